"""`fleet sync` as a person uses it, and what a change by hand to a synced fleet says."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Desk
from tests.operate.sync.worlds import SOURCE, Upstream, manifest


@pytest.fixture
def upstream(desk: Desk) -> Upstream:
    made = Upstream(desk.folder / "upstream").make()
    text = SOURCE.format(url=made.bare, ref="branch: main", paths="fleet.yaml", git="", more="")
    (desk.folder / "source.yaml").write_text(text)
    return made


def test_run_once_then_status_by_name(desk: Desk, upstream: Upstream) -> None:
    commit = upstream.publish(manifest(2))
    said = desk.fleet("sync", "run", "source.yaml", "--once")
    assert f"Ready     True    Ready      {commit[:12]}  the fleet is at {commit[:12]}" in said.out
    document = desk.fleet("sync", "status", "shop-prod", "-o", "json").json
    assert document["lastAppliedRevision"] == document["lastAttemptedRevision"] == commit
    assert [row["type"] for row in document["conditions"]] == [
        "Fetched",
        "Verified",
        "Valid",
        "Planned",
        "Applying",
        "Ready",
    ]
    assert document["ready"]
    assert [one["source"] for one in desk.fleet("sync", "status", "-o", "json").json["sources"]] == ["shop-prod"]


def test_a_broken_manifest_ends_with_3_and_names_commit_and_line(desk: Desk, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    desk.fleet("sync", "run", "source.yaml", "--once")
    bad = upstream.publish(manifest(2).replace("replicas", "replicsa"))
    said = desk.fleet("sync", "run", "shop-prod", "--once", code=3)
    assert f"commit {bad[:12]}: fleet.yaml:7:" in said.out
    [problem] = desk.fleet("sync", "status", "shop-prod", "-o", "json").json["problems"]
    assert (problem["source"], problem["line"]) == ("fleet.yaml", 7)
    assert len(desk.pids()) == 2


def test_a_rewritten_history_ends_with_9_until_somebody_accepts_it(desk: Desk, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    desk.fleet("sync", "run", "source.yaml", "--once")
    upstream.write("fleet.yaml", manifest(3))
    upstream.git("commit", "-qa", "--amend", "-m", "amended")
    upstream.push("--force")
    said = desk.fleet("sync", "run", "shop-prod", "--once", code=9)
    assert "fleet sync accept shop-prod" in said.out
    assert len(desk.pids()) == 2
    desk.fleet("sync", "accept", "shop-prod")
    desk.fleet("sync", "run", "shop-prod", "--once")
    assert len(desk.pids()) == 3


def test_a_suspension_needs_an_end_and_a_reason(desk: Desk, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    desk.fleet("sync", "run", "source.yaml", "--once")
    for words in (["--for", "1h"], ["--reason", "x"], []):
        desk.fleet("sync", "suspend", "shop-prod", *words, code=64)
    desk.fleet("sync", "suspend", "shop-prod", "--for", "1h", "--reason", "incident 412")
    upstream.publish(manifest(4))
    assert "incident 412" in desk.fleet("sync", "run", "shop-prod", "--once").out
    assert len(desk.pids()) == 2
    desk.fleet("sync", "resume", "shop-prod")
    desk.fleet("sync", "run", "shop-prod", "--once")
    assert len(desk.pids()) == 4


def test_plan_only_waits_for_approve(desk: Desk, upstream: Upstream) -> None:
    source = desk.folder / "source.yaml"
    source.write_text(source.read_text() + "  apply: plan-only\n")
    upstream.publish(manifest(2))
    assert "2 to start" in desk.fleet("sync", "run", "source.yaml", "--once").out
    assert desk.pids() == {}
    desk.fleet("sync", "approve", "shop-prod")
    desk.fleet("sync", "run", "shop-prod", "--once")
    assert len(desk.pids()) == 2


def test_a_source_file_is_checked_with_every_problem(desk: Desk, upstream: Upstream) -> None:
    assert "no problems" in desk.fleet("sync", "check", "source.yaml").out
    source = desk.folder / "source.yaml"
    source.write_text(
        source.read_text().replace("branch: main", "branch: main, tag: v1") + "  bogus: 1\n  aply: auto\n"
    )
    said = desk.fleet("sync", "check", "source.yaml", code=3)
    assert "unknown field 'bogus'" in said.err
    assert "did you mean 'apply'?" in said.err


def test_an_unknown_source_is_a_mistake(desk: Desk) -> None:
    assert "there is no source 'nope'" in desk.fleet("sync", "status", "nope", code=64).err
    assert "needs a source" in desk.fleet("sync", "run", code=64).err
    assert desk.fleet("sync", "status").out == "no sources\n"


# --- ownership


@pytest.fixture
def synced(desk: Desk, upstream: Upstream) -> Desk:
    upstream.publish(manifest(2))
    desk.fleet("sync", "run", "source.yaml", "--once")
    desk.manifest.write_text(manifest(5))
    return desk


def test_apply_by_hand_on_a_synced_fleet_says_who_owns_it(synced: Desk) -> None:
    said = synced.fleet("apply", "fleet.yaml", code=9)
    assert "fleet 'shop' belongs to the source 'shop-prod'" in said.err
    assert "--suspend 1h --reason" in said.err
    assert len(synced.pids()) == 2
    synced.fleet("plan", "fleet.yaml")
    for words in (["rollback", "--to", "1"], ["down", "--yes"], ["scale", "clock=3", "fleet.yaml"]):
        assert "belongs to the source" in synced.fleet(*words, code=9).err
    assert len(synced.pids()) == 2


def test_apply_by_hand_with_a_suspension_holds_until_it_ends(synced: Desk, upstream: Upstream) -> None:
    synced.fleet("apply", "fleet.yaml", "--suspend", "1h", code=64)
    said = synced.fleet("apply", "fleet.yaml", "--suspend", "1h", "--reason", "incident 412")
    assert "keeps its hands off until" in said.err
    assert len(synced.pids()) == 5
    assert "incident 412" in synced.fleet("sync", "run", "shop-prod", "--once").out
    assert len(synced.pids()) == 5
    synced.fleet("apply", "fleet.yaml")  # meanwhile it needs no more words
    synced.fleet("sync", "resume", "shop-prod")
    synced.fleet("sync", "run", "shop-prod", "--once")
    assert len(synced.pids()) == 2


def test_adopt_takes_the_fleet_from_its_source_for_good(synced: Desk, upstream: Upstream) -> None:
    synced.fleet("apply", "fleet.yaml", "--adopt")
    upstream.publish(manifest(7))
    said = synced.fleet("sync", "run", "shop-prod", "--once", code=9)
    assert "belongs to" in said.out
    assert len(synced.pids()) == 5
    synced.fleet("sync", "run", "shop-prod", "--once", "--adopt")
    assert len(synced.pids()) == 7


def test_steering_a_synced_fleet_needs_no_owner(synced: Desk) -> None:
    synced.fleet("restart", "clock.0")
    synced.fleet("pause", "clock")
    synced.fleet("resume", "clock")
    synced.fleet("scale", "--live", "clock=3", "--fleet", "shop")
    assert len(synced.pids()) == 3


def test_two_manifests_of_one_name_do_not_fight_over_a_fleet(desk: Desk) -> None:
    desk.fleet("apply", "fleet.yaml")
    other = desk.folder / "elsewhere" / "fleet.yaml"
    other.parent.mkdir()
    other.write_text(desk.manifest.read_text().replace("replicas: 3", "replicas: 1"))
    said = desk.fleet("apply", str(other), code=9)
    assert "two manifests with one name?" in said.err
    assert str(desk.manifest) in said.err
    desk.fleet("apply", "fleet.yaml", str(other))  # an overlay is the same source
    desk.fleet("apply", str(other), "--adopt")
    desk.fleet("apply", "fleet.yaml", code=9)


def test_the_name_of_a_fleet_that_was_taken_down_is_free(desk: Desk) -> None:
    desk.fleet("apply", "fleet.yaml")
    other = desk.folder / "other.yaml"
    other.write_text(desk.manifest.read_text())
    desk.fleet("apply", str(other), code=9)
    desk.fleet("down", "fleet.yaml", "--yes")
    desk.fleet("apply", str(other))
    desk.fleet("apply", "fleet.yaml", code=9)


def test_a_fleet_of_before_owners_were_written_belongs_to_its_last_manifest(desk: Desk) -> None:
    desk.fleet("apply", "fleet.yaml")
    (desk.state / "owner.json").unlink()
    other = desk.folder / "other.yaml"
    other.write_text(desk.manifest.read_text())
    desk.fleet("apply", str(other), code=9)
    desk.fleet("apply", "fleet.yaml")
    desk.fleet("apply", "--fleet", "shop")


@pytest.mark.parametrize("text", ["", "{half", "[]", '{"kind": "nobody", "files": []}'])
def test_a_damaged_owner_is_said_and_written_again_by_whoever_adopts(desk: Desk, text: str) -> None:
    desk.fleet("apply", "fleet.yaml")
    path = desk.state / "owner.json"
    path.write_text(text)

    said = desk.fleet("apply", "fleet.yaml", code=1)
    assert "owner.json is damaged" in said.err
    assert "say --adopt" in said.err
    desk.fleet("drain", "thumbs")
    desk.fleet("resume", "thumbs")
    desk.fleet("rollback", "--to", "1", "--adopt")
    desk.fleet("apply", "fleet.yaml", "--adopt")
    desk.fleet("apply", "fleet.yaml")
    path.write_text(text)
    desk.fleet("down", "--yes", "--adopt")


def test_without_owner_and_last_manifest_the_next_apply_writes_both_again(desk: Desk) -> None:
    desk.fleet("apply", "fleet.yaml")
    (desk.state / "owner.json").unlink()
    (desk.state / "revisions" / "0001.json").write_text("")

    assert "apply the manifest itself" in desk.fleet("drain", "thumbs", code=1).err
    desk.fleet("apply", "fleet.yaml")
    desk.fleet("drain", "thumbs")


# --- what a merge would do, and what differs


def test_plan_between_two_revisions_and_diff(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = Upstream(desk.folder / "upstream").make()
    upstream.publish(manifest(2))
    upstream.git("checkout", "-q", "-b", "feature")
    upstream.write("fleet.yaml", manifest(3))
    upstream.commit()
    monkeypatch.chdir(upstream.work)
    said = desk.fleet("plan", "--base", "main", "--head", "HEAD", "--detailed-exitcode", code=2)
    assert said.out.splitlines()[0] == "+ clock.2  start  scale up 2 -> 3"
    document = desk.fleet("plan", "--base", "main", "-o", "json").json
    assert (document["base"], document["head"], document["summary"]["start"]) == ("main", "HEAD", 1)
    assert "| clock.2 | start | scale up 2 -> 3 |" in desk.fleet("plan", "--base", "main", "-o", "markdown").out
    assert desk.fleet("plan", "--base", "HEAD", "--detailed-exitcode").code == 0
    desk.fleet("plan", "-o", "markdown", code=64)
    assert desk.world.calls == []


def test_diff_compares_the_manifest_with_what_runs(desk: Desk) -> None:
    desk.fleet("apply", "fleet.yaml")
    assert desk.fleet("diff", "--detailed-exitcode").out == "fleet shop: what runs is as the manifest says\n"
    desk.write(thumbs=4)
    assert desk.fleet("diff", "--detailed-exitcode", code=2).out == "+ thumbs  3 of 4 replicas there  (thumbs.3)\n"
    [row] = desk.fleet("diff", "-o", "json").json["differences"]
    assert row == {"group": "thumbs", "kind": "missing", "what": "3 of 4 replicas there", "replicas": ["thumbs.3"]}
    assert "```diff\n+ thumbs" in desk.fleet("diff", "-o", "markdown").out


def test_problems_as_sarif_name_file_line_and_path(desk: Desk) -> None:
    desk.manifest.write_text(desk.manifest.read_text().replace("replicas: 1", "replicsa: 1", 1))
    document = desk.fleet("validate", "-o", "sarif", code=3).json
    assert document["version"] == "2.1.0"
    results = document["runs"][0]["results"]
    first = results[0]
    place = first["locations"][0]
    assert first["level"] == "error"
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "fleet.yaml"
    line = place["physicalLocation"]["region"]["startLine"]
    assert "replicsa" in desk.manifest.read_text().splitlines()[line - 1]
    assert {one["ruleId"] for one in results} <= {rule["id"] for rule in document["runs"][0]["tool"]["driver"]["rules"]}
    desk.write()
    assert desk.fleet("validate", "-o", "sarif").json["runs"][0]["results"] == []
