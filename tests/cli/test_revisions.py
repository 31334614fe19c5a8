"""What a revision pins, what a rollback goes to, and verbs that deploy nothing, over the backend in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.cli.target import fleet_for
from fleet.core.expand.facts import Facts
from fleet.core.observed import ObservedReplica
from fleet.core.spec import digest
from fleet.inputs.manifest import from_files
from fleet.state.revisions import KEPT_OTHERS, KEPT_REVISIONS, History, Origin
from tests.cli.conftest import Desk

HERE = Origin("/srv/shop")
SHA = "0123456789abcdef0123456789abcdef01234567"
GROUPS = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  heal: {{mode: "off"}}
  app: shop:app
  release: {{workdir: current}}
  broker: {{url: {{secret: broker}}}}
  secrets: {{broker: {{file: broker.txt}}}}
  groups:
    thumbs: {{pool: solo, replicas: {thumbs}, queues: [thumbs], env: {{{env}}}, rollout: {{onFailure: {on_failure}}}}}
    mails: {{pool: solo, replicas: 1, queues: [mails]}}
"""


def write(desk: Desk, thumbs: int = 2, env: str = "", on_failure: str = "pause") -> None:
    desk.manifest.write_text(GROUPS.format(thumbs=thumbs, env=env, on_failure=on_failure))


@pytest.fixture
def site(desk: Desk) -> Desk:
    """A fleet with a release behind a link and a secret in a file."""
    for name in ("one", "two"):
        (desk.folder / name).mkdir()
    point(desk, "one")
    tell(desk, "redis://localhost/0")
    write(desk)
    return desk


def point(desk: Desk, release: str) -> None:
    link = desk.folder / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(desk.folder / release)


def tell(desk: Desk, secret: str) -> None:
    path = desk.folder / "broker.txt"
    path.write_text(secret)
    path.chmod(0o600)


def one(desk: Desk, name: str) -> ObservedReplica:
    return desk.world.observe().replicas[name]


def workdirs(desk: Desk) -> set[str]:
    seen = desk.world.observe().replicas.values()
    return {Path(replica.spec.workdir).name for replica in seen if replica.spec is not None}


def broken(desk: Desk) -> None:
    """A manifest whose new replicas of thumbs crash until they are parked."""
    write(desk, env="BROKEN: 'yes'", on_failure="rollback")
    loaded = from_files([str(desk.manifest)])
    desired, _ = fleet_for(loaded).desired_of(loaded)
    desk.world.parks.add(digest(desired.groups["thumbs"].spec))


# --- pins


def test_a_rollback_runs_the_folder_that_the_link_led_to(site: Desk) -> None:
    site.fleet("apply")
    point(site, "two")
    site.fleet("apply")
    assert workdirs(site) == {"two"}
    assert [one["revision"] for one in site.fleet("history", "-o", "json").json["revisions"]] == [1, 2]
    site.fleet("rollback")
    assert workdirs(site) == {"one"}, "the manifest is the same in both; the folder is not"


def test_a_revision_whose_folder_is_gone_says_so(site: Desk) -> None:
    site.fleet("apply")
    point(site, "two")
    site.fleet("apply")
    (site.folder / "one").rmdir()
    said = site.fleet("rollback", code=1)
    assert f"the code of that revision is gone: there is no {site.folder / 'one'}" in said.err
    assert workdirs(site) == {"two"}


def test_history_shows_what_a_revision_resolved_to(site: Desk) -> None:
    git = site.folder / "one" / ".git"
    git.mkdir()
    (git / "HEAD").write_text(SHA)
    site.fleet("apply")
    (revision,) = site.fleet("history", "-o", "json").json["revisions"]
    assert revision["outcome"] == "good"
    assert revision["facts"]["paths"] == {"current": str(site.folder / "one")}
    assert revision["facts"]["commit"] == SHA
    assert len(revision["facts"]["secrets"]["broker"]) == 16
    assert "redis://" not in str(revision)


def test_a_secret_that_was_rotated_makes_a_revision(site: Desk) -> None:
    site.fleet("apply")
    tell(site, "redis://localhost/1")
    site.fleet("apply")
    first, second = site.fleet("history", "-o", "json").json["revisions"]
    assert first["facts"]["secrets"] != second["facts"]["secrets"]
    said = site.fleet("rollback", code=64)
    assert "no earlier good revision that differs" in said.err, "the old value of a secret is nowhere to be had"


# --- good and failed


def test_a_failed_revision_is_marked_and_never_gone_back_to(site: Desk) -> None:
    site.fleet("apply")
    broken(site)
    said = site.fleet("apply", code=5)
    assert "rolled back to revision 1" in said.err
    first, second, third = site.fleet("history", "-o", "json").json["revisions"]
    assert [one["outcome"] for one in (first, second, third)] == ["good", "failed", "good"]
    assert "parked after too many crashes" in second["failure"]
    assert "failed" in site.fleet("history").out
    said = site.fleet("rollback", code=64)
    assert "no earlier good revision that differs" in said.err


def test_what_failed_is_not_tried_again_unchanged(site: Desk) -> None:
    site.fleet("apply")
    broken(site)
    site.fleet("apply", code=5)
    before, calls = site.pids(), list(site.world.calls)
    for _ in range(10):
        said = site.fleet("apply", "-y", code=9)
        assert "exactly this failed before, as revision 2, and was taken back: start thumbs.2: parked" in said.err
    assert (site.pids(), site.world.calls) == (before, calls), "nothing was touched"
    assert len(site.fleet("history", "-o", "json").json["revisions"]) == 3
    assert site.fleet("apply", "--retry", code=5).err.count("rolled back") == 1


@pytest.mark.parametrize("change", ["link", "secret", "manifest", "commit"])
def test_what_failed_is_tried_again_once_something_changed(site: Desk, change: str) -> None:
    site.fleet("apply")
    broken(site)
    site.fleet("apply", code=5)
    match change:
        case "link":
            point(site, "two")
        case "secret":
            tell(site, "redis://localhost/9")
        case "manifest":
            write(site, env="BROKEN: 'no'")
        case "commit":
            (site.folder / "one" / ".git").mkdir()
            (site.folder / "one" / ".git" / "HEAD").write_text(SHA)
    site.fleet("apply", code=5 if change == "commit" else 0)


def test_a_paused_rollout_is_gone_on_with(site: Desk) -> None:
    site.fleet("apply")
    broken(site)
    write(site, env="BROKEN: 'yes'", on_failure="pause")
    site.fleet("apply", code=6)
    site.fleet("apply", code=6)
    site.world.parks.clear()
    site.fleet("apply")
    assert [one["outcome"] for one in site.fleet("history", "-o", "json").json["revisions"]] == ["good", "good"]


def test_only_a_deployment_makes_a_revision_good(site: Desk) -> None:
    site.fleet("apply")
    broken(site)
    write(site, env="BROKEN: 'yes'", on_failure="pause")
    site.fleet("apply", code=6)
    site.fleet("drain", "mails")
    site.fleet("rollback")
    last = site.fleet("history", "-o", "json").json["revisions"][-1]
    assert last["message"] == "rollback to revision 1", "a drain that works says nothing about the revision"


def test_failed_revisions_are_kept_apart_from_the_good_ones(tmp_path: Path) -> None:
    history = History(tmp_path)
    for number in range(KEPT_REVISIONS + 5):
        history.conclude(history.record({"good": number}, origin=HERE, by="ana", facts=Facts()).number, "good")
    good = [one.number for one in history.all()]
    for number in range(KEPT_OTHERS + 30):
        history.conclude(history.record({"bad": number}, origin=HERE, by="cron", facts=Facts()).number, "failed")
    assert [one.number for one in history.all() if one.is_good] == good
    assert sum(not one.is_good for one in history.all()) == KEPT_OTHERS
    assert len(good) == KEPT_REVISIONS


def test_revisions_of_an_earlier_version_count_as_good(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.record({"a": 1}, origin=HERE, by="ana")
    history.record({"a": 2}, origin=HERE, by="ana", facts=Facts())
    earlier = history.last_good(before=2)
    assert earlier is not None
    assert earlier.number == 1


# --- verbs that deploy nothing


BRAKES = (("drain", "thumbs"), ("restart", "thumbs"), ("pause", "thumbs"), ("scale", "thumbs=1", "--live"))


@pytest.mark.parametrize("verb", BRAKES, ids=lambda words: words[0])
def test_brakes_need_no_secret_and_deploy_nothing(site: Desk, verb: tuple[str, ...]) -> None:
    site.fleet("apply")
    point(site, "two")
    (site.folder / "broker.txt").unlink()
    site.fleet(*verb, "--fleet", "shop")
    assert workdirs(site) == {"one"}


def test_resume_needs_no_secret_where_nothing_starts(site: Desk) -> None:
    site.fleet("apply")
    site.fleet("drain", "thumbs")
    assert one(site, "thumbs.0").held
    (site.folder / "broker.txt").unlink()
    point(site, "two")
    site.fleet("resume", "thumbs")
    assert not one(site, "thumbs.0").held
    assert workdirs(site) == {"one"}


def test_resume_starts_what_was_applied_and_not_what_is_there_now(site: Desk) -> None:
    site.fleet("apply")
    site.fleet("pause", "thumbs")
    point(site, "two")
    site.fleet("resume", "thumbs")
    assert workdirs(site) == {"one"}


@pytest.mark.parametrize("verb", [("restart", "thumbs"), ("drain", "thumbs"), ("resume", "thumbs")], ids=lambda w: w[0])
def test_in_a_paused_rollout_every_replica_keeps_what_it_runs(site: Desk, verb: tuple[str, ...]) -> None:
    site.fleet("apply")
    broken(site)
    write(site, env="BROKEN: 'yes'", on_failure="pause")
    site.fleet("apply", code=6)
    before = {name: replica.digest for name, replica in site.world.observe().replicas.items()}
    site.world.parks.clear()
    said = site.fleet(*verb)
    after = {name: replica.digest for name, replica in site.world.observe().replicas.items()}
    assert {name: after[name] for name in ("thumbs.0", "thumbs.1", "mails.0")} == {
        name: before[name] for name in ("thumbs.0", "thumbs.1", "mails.0")
    }
    assert "do not run what was applied last; this changes nothing about it" in said.out


def test_a_restart_of_one_replica_touches_no_other(site: Desk) -> None:
    site.fleet("apply")
    site.world.stop_by_hand("thumbs.1")
    before = site.pids()
    site.fleet("restart", "thumbs.0")
    after = site.pids()
    assert after["thumbs.0"] != before["thumbs.0"]
    assert "thumbs.1" not in after


@pytest.mark.parametrize("verb", BRAKES, ids=lambda words: words[0])
def test_a_fleet_that_is_down_is_not_steered(site: Desk, verb: tuple[str, ...]) -> None:
    site.fleet("apply")
    site.fleet("down", "-y")
    said = site.fleet(*verb, code=9)
    assert "fleet shop is down" in said.err
    assert site.pids() == {}


# --- new code at the same path


def watching(desk: Desk, how: str) -> None:
    write(desk)
    text = desk.manifest.read_text().replace("{workdir: current}", f"{{workdir: current, watch: {how}}}")
    desk.manifest.write_text(text)


def commit(desk: Desk, sha: str) -> None:
    git = desk.folder / "one" / ".git"
    git.mkdir(exist_ok=True)
    (git / "HEAD").write_text(sha)


def test_a_new_commit_at_the_same_path_is_a_rollout(site: Desk) -> None:
    commit(site, SHA)
    watching(site, "commit")
    site.fleet("apply")
    assert "note: code: 3 replicas on commit 0123456789ab with fleet 0" in site.fleet("plan").out
    assert site.fleet("plan", "--detailed-exitcode").code == 0
    commit(site, SHA[::-1])
    said = site.fleet("plan", "--detailed-exitcode", code=2)
    assert "± thumbs.0  replace  code commit 0123456789ab -> commit 76543210fedc" in said.out
    assert "note: code: commit 76543210fedc with fleet" in said.out


def test_new_source_at_the_same_path_is_a_rollout(site: Desk) -> None:
    source = site.folder / "one" / "app.py"
    source.write_text("version = 1\n")
    watching(site, "content")
    site.fleet("apply")
    source.touch()
    (site.folder / "one" / "__pycache__").mkdir()
    (site.folder / "one" / "__pycache__" / "app.py").write_text("no source")
    (site.folder / "one" / "data.bin").write_text("no source either")
    assert site.fleet("plan", "--detailed-exitcode").code == 0, "times and what is made from sources do not count"
    source.write_text("version = 2\n")
    said = site.fleet("plan", "--detailed-exitcode", code=2)
    assert "replace  code content " in said.out


def test_a_folder_without_a_checkout_is_watched_by_its_content(site: Desk) -> None:
    watching(site, "commit")
    assert "note: code: content " in site.fleet("plan").out


def test_another_fleet_is_a_rollout_where_code_is_watched(site: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    watching(site, "content")
    site.fleet("apply")
    monkeypatch.setattr("fleet.inputs.facts.__version__", "9.9")
    assert "-> 9.9" in site.fleet("plan", "--detailed-exitcode", code=2).out
    write(site)
    site.fleet("apply")
    monkeypatch.setattr("fleet.inputs.facts.__version__", "9.10")
    assert site.fleet("plan", "--detailed-exitcode").code == 0, "nothing is watched"
