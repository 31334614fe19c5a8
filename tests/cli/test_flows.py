"""What a person does with a fleet, verb by verb, over the backend in memory."""

from __future__ import annotations

import importlib.util
import json
import re

import pytest

from fleet.core.observed import Observed
from fleet.operate.apply.effects import is_ready
from tests.cli.conftest import Desk


def test_validate_sums_up_or_lists_every_problem(desk: Desk) -> None:
    assert desk.fleet("validate").out == "fleet.yaml: fleet shop, 3 groups, no problems\n"
    desk.manifest.write_text(
        desk.manifest.read_text().replace("pool: solo", "pool: sola").replace("kind: Fleet", "kind: X")
    )
    said = desk.fleet("validate", code=3)
    assert said.out == ""
    assert "fleet.yaml:2:" in said.err
    assert "did you mean 'solo'" in said.err
    assert "2 problems; nothing was touched" in said.err
    assert len(desk.fleet("validate", "-o", "json", code=3).json["problems"]) == 2


def test_validate_finds_what_a_cluster_could_not_have(desk: Desk) -> None:
    cluster = "{image: 'r.example/shop:1', namespace: shop, scaler: fleet}"
    group = "{pool: {type: prefork, concurrency: 2}, queues: [q], autoscale: {min: 17, max: 17, targetWait: 1s}}"
    spec = f"app: 'shop:app', broker: {{url: 'redis://r.example/0'}}, concurrency: 100, groups: {{a: {group}}}"
    head = "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\n"
    (desk.folder / "odd.yaml").write_text(f"{head}spec: {{{spec}, target: kubernetes, kubernetes: {cluster}}}\n")

    assert "no multiple of its unit 2" in desk.fleet("validate", "odd.yaml", code=3).err


def test_validate_says_what_the_installed_celery_cannot_do(desk: Desk) -> None:
    venv = desk.manifest.parent / "venv"
    (venv / "lib" / "python3.11" / "site-packages" / "celery-5.4.0.dist-info").mkdir(parents=True)
    text = desk.manifest.read_text()
    assert "    thumbs:" in text
    text = text.replace(
        "    thumbs:", "    green: {worker: celery, app: 'a:app', pool: gevent, replicas: 1}\n    thumbs:", 1
    )
    text = text.replace("spec:\n", f"spec:\n  release: {{python: {venv}/bin/python}}\n", 1)
    desk.manifest.write_text(text)

    said = desk.fleet("validate")
    assert "Celery 5.4: `celery control terminate` and `revoke --terminate` end no task of gevent" in said.err
    assert "spec.groups.green.worker" in said.err
    assert desk.fleet("validate", "--strict", code=3).out == ""
    desk.manifest.write_text(text.replace("pool: gevent", "pool: solo"))
    assert "Celery 5.4" not in desk.fleet("validate", "--strict").err


def test_a_missing_manifest_is_a_mistake_with_a_hint(desk: Desk) -> None:
    said = desk.fleet("plan", "nowhere.yaml", code=64)
    assert "cannot read nowhere.yaml: No such file or directory" in said.err
    assert "fleet init" in said.err


def test_plan_shows_every_replica_with_its_reason(desk: Desk) -> None:
    said = desk.fleet("plan", "--detailed-exitcode", code=2)
    assert said.out.splitlines()[:5] == [
        "+ clock.0    start  not running yet",
        "+ reports.0  start  not running yet",
        "+ thumbs.0   start  none of 3 is running yet",
        "+ thumbs.1   start  none of 3 is running yet",
        "+ thumbs.2   start  none of 3 is running yet",
    ]
    document = desk.fleet("plan", "-o", "json").json
    assert document["summary"] == {"start": 5, "replace": 0, "resize": 0, "restart": 0, "stop": 0, "keep": 0}
    assert document["steps"][0] == {
        "replica": "clock.0",
        "action": "start",
        "reason": "not running yet",
        "after": [],
    }
    assert desk.world.calls == [], "a plan touches nothing"


def test_apply_then_nothing_to_do(desk: Desk) -> None:
    said = desk.fleet("apply", "fleet.yaml")
    assert "Plan: 5 to start." in said.out
    assert "fleet shop, revision 1: done, 5 steps" in said.err
    assert desk.fleet("plan", "--detailed-exitcode").out == "Nothing to do: 5 replicas as wanted.\n"
    again = desk.fleet("apply", "-o", "json").json
    assert (again["revision"], again["outcome"], again["steps"]) == (1, "done", [])


def test_dry_run_does_nothing(desk: Desk) -> None:
    desk.fleet("apply", "--dry-run")
    assert desk.world.calls == []
    assert not desk.state.exists()


def test_status_json_has_the_promised_shape(desk: Desk) -> None:
    desk.fleet("apply")
    desk.world.work("thumbs.0", 1)
    document = desk.fleet("status", "--fleet", "shop", "-o", "json").json
    assert (document["fleet"], document["revision"], document["ready"]) == ("shop", 1, True)
    thumbs = document["groups"]["thumbs"]
    assert thumbs["replicas"] == {"desired": 3, "ready": 3}
    assert thumbs["slots"] == {"desired": 3, "busy": 1}
    first = thumbs["workers"][0]
    assert first["tasks"] == [{"id": "thumbs.0-0", "name": "task", "since": 1.0}]
    promised = {"name", "pid", "state", "digest", "slots", "busy", "processed", "failed", "memory", "uptime", "tasks"}
    assert promised <= first.keys()


def test_status_tells_what_is_missing(desk: Desk) -> None:
    desk.fleet("apply")
    desk.world.stop_by_hand("thumbs.1")
    desk.world.park("reports.0")
    said = desk.fleet("status")
    assert re.search(r"thumbs +solo +2/3 ready", said.out)
    assert "thumbs: 2 of 3 ready: thumbs.1" in said.out
    assert "fleet shop, revision 1: not ready" in said.out
    assert "(exit 1, 8 times in 10m)" in said.out


def test_status_needs_no_valid_manifest_and_no_facts(desk: Desk) -> None:
    desk.fleet("apply")
    desk.manifest.write_text(desk.manifest.read_text().replace("pool: solo", "pool: nonsense"))
    assert desk.fleet("status", "-o", "json").json["ready"]


def test_scale_edits_the_manifest_and_keeps_its_comments(desk: Desk) -> None:
    desk.fleet("apply")
    before = desk.pids()
    text = desk.manifest.read_text()
    desk.fleet("scale", "thumbs=5", "reports=2")
    expected = text.replace("replicas: 3", "replicas: 5").replace("replicas: 1   # one", "replicas: 2   # one")
    assert desk.manifest.read_text() == expected
    after = desk.pids()
    assert before.items() <= after.items()
    assert len(after) == 8
    assert desk.fleet("plan", "--detailed-exitcode").code == 0


def test_scale_by_name_edits_the_file_that_was_applied(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.fleet("apply", str(desk.manifest))
    monkeypatch.chdir("/")
    desk.fleet("scale", "thumbs=1", "--fleet", "shop")
    assert "replicas: 1, queues: [thumbs]" in desk.manifest.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["thumb=3"], "there is no group"),
        (["thumbs"], "'thumbs' is not GROUP=N"),
        (["thumbs=-1"], "'thumbs=-1' is not GROUP=N"),
        (["thumbs=4", "--for", "1h"], "--for needs --live"),
        (["thumb=3", "--live"], "there is no group 'thumb'"),
    ],
)
def test_scale_refuses_nonsense_and_changes_nothing(desk: Desk, words: list[str], message: str) -> None:
    desk.fleet("apply")
    text = desk.manifest.read_text()
    assert message in desk.fleet("scale", *words, code=64).err
    assert desk.manifest.read_text() == text
    assert not (desk.state / "overrides.yaml").exists()


def test_scale_live_leaves_the_manifest_and_lasts_over_an_apply(desk: Desk) -> None:
    desk.fleet("apply")
    text = desk.manifest.read_text()
    desk.fleet("scale", "thumbs=6", "--live", "--for", "2h", "--reason", "black friday")
    assert desk.manifest.read_text() == text
    assert len(desk.pids()) == 8
    assert "black friday" in (desk.state / "overrides.yaml").read_text()
    assert "override: thumbs 6 replicas until" in desk.fleet("status").out
    desk.fleet("apply")
    assert len(desk.pids()) == 8
    desk.fleet("resume", "thumbs")
    assert len(desk.pids()) == 5
    assert not (desk.state / "overrides.yaml").exists()


def test_an_override_that_has_ended_does_not_count(desk: Desk) -> None:
    desk.fleet("apply")
    desk.fleet("scale", "thumbs=6", "--live", "--for", "2h")
    path = desk.state / "overrides.yaml"
    path.write_text(re.sub(r"until: '[^']*'", "until: '2020-01-01T00:00:00Z'", path.read_text()))
    desk.fleet("apply")
    assert len(desk.pids()) == 5


def test_an_edit_ends_the_live_count_of_that_group(desk: Desk) -> None:
    desk.fleet("apply")
    desk.fleet("scale", "thumbs=6", "--live")
    desk.fleet("scale", "thumbs=4")
    assert len(desk.pids()) == 6


def test_pause_holds_a_group_at_zero_until_resume(desk: Desk) -> None:
    desk.fleet("apply")
    desk.fleet("pause", "thumbs", "--reason", "broken upstream")
    assert sorted(desk.pids()) == ["clock.0", "reports.0"]
    assert "paused" in desk.fleet("status").out
    desk.fleet("apply")
    assert sorted(desk.pids()) == ["clock.0", "reports.0"]
    desk.fleet("resume", "thumbs")
    assert len(desk.pids()) == 5


def test_drain_keeps_the_process_and_takes_no_work(desk: Desk) -> None:
    desk.fleet("apply")
    before = desk.pids()
    desk.fleet("drain", "thumbs.1", "--wait")
    seen = desk.world.observe()
    assert _held(seen) == ["thumbs.1"]
    assert desk.pids() == before
    assert desk.fleet("status", "-o", "json").json["ready"]
    desk.fleet("drain", "thumbs")
    assert _held(desk.world.observe()) == ["thumbs.0", "thumbs.1", "thumbs.2"]
    desk.fleet("resume", "thumbs")
    assert _held(desk.world.observe()) == []
    assert desk.pids() == before


def _held(seen: Observed) -> list[str]:
    assert all(is_ready(one, "") for one in seen.replicas.values())
    return sorted(name for name, one in seen.replicas.items() if one.held)


def test_what_cannot_listen_cannot_be_drained(desk: Desk) -> None:
    desk.fleet("apply")
    said = desk.fleet("drain", "clock", code=64)
    assert "`fleet pause clock` stops it" in said.err
    desk.fleet("drain", "--all")
    assert _held(desk.world.observe()) == ["reports.0", "thumbs.0", "thumbs.1", "thumbs.2"]


def test_restart_runs_the_named_ones_anew(desk: Desk) -> None:
    desk.fleet("apply")
    before = desk.pids()
    desk.fleet("restart", "reports", "thumbs.2")
    after = desk.pids()
    assert {name for name in before if before[name] != after[name]} == {"reports.0", "thumbs.2"}
    assert before.keys() == after.keys()


def test_names_must_be_given_and_known(desk: Desk) -> None:
    desk.fleet("apply")
    assert "name groups or replicas, or say --all" in desk.fleet("restart", code=64).err
    assert "did you mean 'thumbs'?" in desk.fleet("restart", "thums", code=64).err
    assert "did you mean 'thumbs'?" in desk.fleet("pause", "thumbs.0", code=64).err


def test_a_verb_on_one_group_leaves_the_others_alone(desk: Desk) -> None:
    desk.fleet("apply")
    desk.world.stop_by_hand("reports.0")
    said = desk.fleet("restart", "thumbs.0")
    assert "note: left out: reports.0 also differ" in said.out
    assert "reports.0" not in desk.pids()


def test_rollback_is_an_ordinary_plan_and_a_new_revision(desk: Desk) -> None:
    desk.fleet("apply")
    desk.write(thumbs=6)
    desk.fleet("apply")
    assert "3 to stop" in desk.fleet("rollback", "--dry-run").out
    said = desk.fleet("rollback")
    assert "did not change; the next apply follows them" in said.err
    assert len(desk.pids()) == 5
    revisions = desk.fleet("history", "-o", "json").json["revisions"]
    assert [(one["revision"], one["message"], one["current"]) for one in revisions] == [
        (1, "", False),
        (2, "", False),
        (3, "rollback to revision 1", True),
    ]
    desk.fleet("rollback", "--to", "2")
    assert len(desk.pids()) == 8
    assert "there is no revision 9" in desk.fleet("rollback", "--to", "9", code=64).err


def test_rollback_takes_away_groups_that_came_later(desk: Desk) -> None:
    desk.fleet("apply")
    desk.write(more="    late: {command: [sleep, '1'], replicas: 2}\n")
    desk.fleet("apply")
    assert "late.0" in desk.pids()
    desk.fleet("rollback")
    assert "late.0" not in desk.pids()


def test_a_failed_rollout_goes_back_where_its_policy_says_so(desk: Desk) -> None:
    policy = (
        "    web: {command: [sleep, '%d'], replicas: 2, health: {readyTimeout: 1s},"
        " rollout: {onFailure: rollback, maxSurge: 1}}\n"
    )
    desk.write(more=policy % 1)
    desk.fleet("apply")
    good = desk.pids()
    desk.write(more=policy % 2)
    plan = desk.fleet("plan", "-o", "json").json
    assert plan["summary"]["replace"] == 2
    _break_group(desk, "web")
    said = desk.fleet("apply", code=5)
    assert "was rolled back to revision 1" in said.err
    assert desk.pids().keys() == good.keys()
    assert {name: pid for name, pid in desk.pids().items() if name != "web.2"}.items() <= good.items()
    assert desk.fleet("status", "-o", "json").json["revision"] == 3


def _break_group(desk: Desk, group: str) -> None:
    """Whatever this group starts with next never gets ready."""
    from fleet.cli.target import Target, fleet_for, manifest_of
    from fleet.core.planning.assignment import assign

    wanted = manifest_of(Target(("fleet.yaml",), ()))
    desired, _ = fleet_for(wanted).desired_of(wanted)
    for replica in assign(desired.groups[group], ()).wanted.values():
        desk.world.break_starts(replica.digest)


def test_a_failed_rollout_is_paused_otherwise_and_a_mended_manifest_resumes_it(desk: Desk) -> None:
    policy = "    web: {command: [sleep, '%d'], replicas: 2, health: {readyTimeout: 1s}}\n"
    desk.write(more=policy % 1)
    desk.fleet("apply")
    desk.write(more=policy % 2)
    _break_group(desk, "web")
    said = desk.fleet("apply", code=6)
    assert "the rollout failed and is paused" in said.err
    assert "hint: see `fleet logs web" in said.err
    desk.write(more=policy % 3)
    desk.fleet("apply")
    assert desk.fleet("plan", "--detailed-exitcode").code == 0
    outcomes = [entry["outcome"] for entry in _events(desk) if entry["event"] == "apply.ended"]
    assert outcomes == ["done", "failed", "done"]


def _events(desk: Desk) -> list[dict[str, object]]:
    return [json.loads(line) for line in desk.fleet("events", "-o", "json").out.splitlines()]


def test_events_tell_who_did_what_and_why(desk: Desk) -> None:
    desk.fleet("apply")
    desk.fleet("scale", "thumbs=4", "--reason", "more cats")
    entries = _events(desk)
    started = next(entry for entry in entries if entry["event"] == "scale.started")
    assert started["reason"] == "more cats"
    assert started["steps"] == [["start thumbs.3", "scale up 3 -> 4"]]
    assert {"at", "by", "pid"} <= started.keys()
    assert [entry["event"] for entry in entries[-4:]] == ["scale.started", "step.started", "step.done", "scale.ended"]
    assert "step.done         start thumbs.3: scale up 3 -> 4" in desk.fleet("events", "-n", "2").out


def test_a_kept_plan_is_done_exactly_or_refused(desk: Desk) -> None:
    desk.fleet("apply")
    desk.write(thumbs=5)
    desk.fleet("plan", "--out", "plan.json")
    assert (desk.folder / "plan.json").stat().st_mode & 0o777 == 0o600
    desk.write(thumbs=9)
    desk.fleet("apply", "plan.json")
    assert len(desk.pids()) == 7, "the plan counts, not the file as it is now"
    said = desk.fleet("apply", "plan.json", code=7)
    assert "has changed since the plan was made" in said.err


def test_a_kept_plan_is_stale_when_the_world_has_moved(desk: Desk) -> None:
    desk.fleet("plan", "--out", "plan.json")
    desk.fleet("apply")
    desk.world.stop_by_hand("thumbs.0")
    assert desk.fleet("apply", "plan.json", code=7).code == 7


def test_max_destroy_refuses_what_removes_too_much(desk: Desk) -> None:
    desk.fleet("apply")
    desk.write(thumbs=0)
    said = desk.fleet("apply", "--max-destroy", "40%", code=9)
    assert "the plan removes 3 of 5 replicas, and --max-destroy allows 2" in said.err
    assert len(desk.pids()) == 5
    desk.fleet("apply", "--max-destroy", "3")
    assert len(desk.pids()) == 2


def test_groups_that_left_the_manifest_go_when_asked(desk: Desk) -> None:
    desk.write(more="    late: {command: [sleep, '1'], replicas: 2}\n")
    desk.fleet("apply")
    desk.write()
    assert "add --prune to remove them" in desk.fleet("apply").out
    assert len(desk.pids()) == 7
    desk.fleet("apply", "--prune")
    assert len(desk.pids()) == 5


def test_budgets_refuse_before_anything_is_done(desk: Desk) -> None:
    desk.manifest.write_text(desk.manifest.read_text().replace("  groups:", "  budgets: {processes: 3}\n  groups:"))
    assert desk.fleet("apply", code=9).code == 9
    said = desk.fleet("validate", code=3).err
    assert "spec.budgets: " in said
    assert "fleet.yaml:" in said
    assert "start" not in [call for call, _ in desk.world.calls]


def test_a_pool_that_is_not_installed_is_refused_before_anything_is_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "eventlet" else found(name))
    pool = "{type: eventlet, concurrency: 5}"
    desk.write(more=f"    web: {{app: 'shop:tasks', pool: {pool}, replicas: 1, queues: [web]}}\n")
    said = desk.fleet("apply", code=9).err
    assert "web (eventlet)" in said
    assert "pip install eventlet" in said
    assert "start" not in [call for call, _ in desk.world.calls]


def test_down_takes_everything_away_and_apply_by_name_brings_it_back(desk: Desk) -> None:
    desk.fleet("apply")
    assert "confirm with --yes" in desk.fleet("down", code=9).err
    desk.fleet("down", "--yes")
    assert desk.pids() == {}
    assert not desk.world.up
    assert desk.fleet("status").out.strip() == "fleet shop is down"
    desk.fleet("down", "--yes")
    desk.fleet("apply", "--fleet", "shop")
    assert len(desk.pids()) == 5


def test_down_works_with_a_broken_manifest(desk: Desk) -> None:
    desk.fleet("apply")
    desk.manifest.write_text(desk.manifest.read_text() + "nonsense: here\n")
    desk.fleet("down", "--yes", "--fleet", "shop")
    assert desk.pids() == {}


def test_the_only_fleet_needs_no_name(desk: Desk) -> None:
    desk.fleet("apply")
    desk.manifest.rename(desk.folder / "elsewhere.yaml")
    assert desk.fleet("status", "-o", "json").json["fleet"] == "shop"
    assert "there is no fleet 'shep'" in desk.fleet("status", "--fleet", "shep", code=64).err
    assert "did you mean 'shop'?" in desk.fleet("status", "--fleet", "shep", code=64).err


@pytest.mark.parametrize("name", ["../etc", "a/b", "", "UP"])
def test_a_fleet_name_is_never_a_path(desk: Desk, name: str) -> None:
    said = desk.fleet("status", f"--fleet={name}", "x.yaml" if not name else "--watch", code=64)
    assert "Traceback" not in said.err


def test_explain_gives_the_sums(desk: Desk) -> None:
    document = desk.fleet("explain", "-o", "json").json
    assert document["allocated"] == 7
    assert document["groups"]["reports"]["concurrency"] == 4


def test_render_masks_secrets(desk: Desk) -> None:
    (desk.folder / "secret").write_text("hunter2")
    (desk.folder / "secret").chmod(0o600)
    text = desk.manifest.read_text().replace("  groups:", "  secrets: {key: {file: secret}}\n  groups:")
    desk.manifest.write_text(text.replace("pool: solo,", "pool: solo, secretEnv: {KEY: key},"))
    said = desk.fleet("render")
    assert "hunter2" not in said.out + said.err
    assert '"key": "********"' in said.out
    assert "[program:thumbs.0]" in said.out
    desk.fleet("render", "--out", "made")
    assert (desk.folder / "made/run/conf.d/thumbs.0.conf").read_text().startswith("; Written by fleet")


def test_secrets_stay_out_of_everything_that_is_kept(desk: Desk) -> None:
    (desk.folder / "secret").write_text("hunter2")
    (desk.folder / "secret").chmod(0o600)
    text = desk.manifest.read_text().replace("  groups:", "  secrets: {key: {file: secret}}\n  groups:")
    desk.manifest.write_text(text.replace("pool: solo,", "pool: solo, secretEnv: {KEY: key},"))
    desk.fleet("plan", "--out", "plan.json")
    desk.fleet("apply")
    assert desk.world.secrets == {"key": "hunter2"}
    (desk.folder / "secret").unlink()
    kept = [path for path in desk.folder.rglob("*") if path.is_file()]
    assert len(kept) > 4
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]


def test_a_rotated_secret_replaces_its_workers(desk: Desk) -> None:
    (desk.folder / "secret").write_text("one")
    (desk.folder / "secret").chmod(0o600)
    text = desk.manifest.read_text().replace("  groups:", "  secrets: {key: {file: secret}}\n  groups:")
    desk.manifest.write_text(text.replace("pool: solo,", "pool: solo, secretEnv: {KEY: key},"))
    desk.fleet("apply")
    (desk.folder / "secret").write_text("two")
    assert desk.fleet("plan", "-o", "json").json["summary"]["replace"] == 3


def test_init_writes_what_validates(desk: Desk) -> None:
    desk.fleet("init", "new")
    assert desk.fleet("validate", "new/fleet.yaml", "--strict").code == 0
    assert "exists already" in desk.fleet("init", "new", code=64).err
    desk.fleet("init", "new", "--force", "--name", "other")
    assert "metadata: {name: other}" in (desk.folder / "new/fleet.yaml").read_text()


def test_init_takes_over_a_procfile(desk: Desk) -> None:
    (desk.folder / "Procfile").write_text("web: python -m http.server 8000\n")
    desk.fleet("init", "taken", "--from", "procfile", "Procfile")
    assert desk.fleet("validate", "taken/fleet.yaml").code == 0


def test_init_takes_over_what_a_folder_holds_and_says_what_it_left(desk: Desk) -> None:
    project = desk.folder / "project"
    (project / "conf").mkdir(parents=True)
    (project / "Procfile").write_text("web: serve now\n")
    (project / "conf/shop.conf").write_text("[program:mail]\ncommand=celery -A shop worker -c 2\n")
    (project / "compose.yaml").write_text("just: text\n")
    said = desk.fleet("init", "deploy", "--from", "auto", "project").err
    assert "took project/Procfile (procfile)" in said
    assert "took project/conf/shop.conf (supervisor)" in said
    assert "left project/compose.yaml: of no known kind" in said
    text = (desk.folder / "deploy/fleet.yaml").read_text()
    assert "cd ../project && exec serve now" in text
    assert desk.fleet("validate", "deploy/fleet.yaml").code == 0


def test_init_strict_refuses_what_cannot_be_carried_over(desk: Desk) -> None:
    (desk.folder / "shop.conf").write_text("[program:mail]\ncommand=mail\nserverurl=http://x\n")
    assert "--from auto shop.conf" in desk.fleet("init", "taken", "--from", "shop.conf", code=64).err
    failed = desk.fleet("init", "taken", "--from", "supervisor", "*.conf", "--strict", code=3)
    assert "shop.conf:3" in failed.err
    assert "serverurl" in failed.err
    assert not (desk.folder / "taken").exists()
    desk.fleet("init", "taken", "--from", "supervisor", "shop.conf")
    assert "# Not taken over: shop.conf:3: mail: serverurl" in (desk.folder / "taken/fleet.yaml").read_text()


def test_schema_is_the_one_that_is_checked_in(desk: Desk) -> None:
    assert desk.fleet("schema").json["title"]


def test_version(desk: Desk) -> None:
    assert desk.fleet("version").out.startswith("fleet 0.")
    assert desk.fleet("--version", "-o", "json").json.keys() == {"fleet", "python"}
