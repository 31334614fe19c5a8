"""Fetch, verify, validate: what is refused, and that the last good revision stays."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.operate.sync.state import Fetched
from tests.operate.sync.worlds import Place, Upstream, conditions, manifest


def refusal(fetched: Fetched) -> tuple[str, str, str]:
    """The first stage that says no: its name, the reason, the message."""
    row = next(one for one in fetched.conditions.all() if one.state == "False")
    return row.stage, row.reason, row.message


def test_a_push_is_fetched_verified_valid(place: Place, upstream: Upstream) -> None:
    commit = upstream.publish(manifest(3), message="three clocks")
    fetched, _ = place.look()
    assert (fetched.seen, fetched.good, fetched.fleet, fetched.subject) == (commit, commit, "shop", "three clocks")
    assert (place.places.checkouts / commit / "fleet.yaml").read_text() == manifest(3)


def test_a_broken_manifest_is_refused_with_its_commit_and_line(place: Place, upstream: Upstream) -> None:
    good = upstream.publish(manifest(2))
    place.look()
    bad = upstream.publish(manifest(2).replace("replicas: 2", "replicsa: 2"))
    fetched, reconciled = place.look()
    assert (fetched.seen, fetched.good, reconciled.applied) == (bad, good, good)
    stage, reason, message = refusal(fetched)
    assert (stage, reason) == ("Valid", "ManifestInvalid")
    assert f"commit {bad[:12]}: fleet.yaml:7:" in message
    assert "unknown field 'replicsa'" in message
    assert [(row["source"], row["line"]) for row in fetched.problems] == [("fleet.yaml", 7)]
    assert place.running() == ["clock.0", "clock.1"]


def test_a_history_that_was_rewritten_is_refused(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    good = upstream.publish(manifest(3))
    place.look()
    upstream.git("reset", "-q", "--hard", "HEAD~1")
    upstream.write("fleet.yaml", manifest(1))
    forced = upstream.commit("an older state, made to look new")
    upstream.push("--force")
    fetched, reconciled = place.look()
    stage, reason, message = refusal(fetched)
    assert (stage, reason) == ("Verified", "HistoryRewritten")
    assert good[:12] in message
    assert forced[:12] in message
    assert (fetched.good, reconciled.applied) == (good, good)
    assert len(place.running()) == 3


def test_a_branch_that_goes_back_is_refused(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    good = upstream.publish(manifest(3))
    place.look()
    upstream.git("reset", "-q", "--hard", "HEAD~1")
    upstream.push("--force")
    fetched, _ = place.look()
    assert refusal(fetched)[1] == "HistoryRewritten"
    assert fetched.good == good


def test_a_rewritten_history_is_taken_where_that_is_allowed(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    upstream.write("fleet.yaml", manifest(1))
    upstream.git("add", "-A")
    upstream.git("commit", "-q", "--amend", "-m", "amended")
    upstream.push("--force")
    fetched, reconciled = place.look(git="    allowForcePush: true\n")
    assert fetched.good == reconciled.applied == upstream.git("rev-parse", "HEAD")


def test_a_moved_tag_is_refused_as_a_rewritten_branch_is(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    upstream.git("tag", "v1")
    upstream.git("push", "-q", "origin", "v1")
    place.look(ref="tag: v1")
    upstream.git("checkout", "-q", "--orphan", "other")
    upstream.commit("elsewhere")
    upstream.git("tag", "-f", "v1")
    upstream.git("push", "-q", "-f", "origin", "v1")
    fetched, _ = place.look(ref="tag: v1")
    assert refusal(fetched)[1] == "HistoryRewritten"


def test_semver_follows_the_highest_release_and_never_goes_back(place: Place, upstream: Upstream) -> None:
    first = upstream.publish(manifest(1))
    upstream.git("tag", "v1.2.0")
    second = upstream.publish(manifest(2))
    upstream.git("tag", "-a", "v1.10.0", "-m", "ten")
    upstream.publish(manifest(9))
    upstream.git("tag", "v2.0.0")
    upstream.git("push", "-q", "--tags", "origin")
    fetched, reconciled = place.look(ref='semver: "^1"')
    assert fetched.good == reconciled.applied == second
    assert len(place.running()) == 2
    upstream.git("push", "-q", "origin", ":refs/tags/v1.10.0")
    fetched, _ = place.look(ref='semver: "^1"')
    assert fetched.seen == first
    assert refusal(fetched)[1] == "HistoryRewritten"


def test_one_commit_is_taken_wherever_it_is(place: Place, upstream: Upstream) -> None:
    commit = upstream.publish(manifest(2))
    upstream.publish(manifest(5))
    fetched, _ = place.look(ref=f"commit: {commit}")
    assert fetched.good == commit
    assert len(place.running()) == 2


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("branch: nope", "there is no branch 'nope'"),
        ("tag: v9", "there is no tag 'v9'"),
        ('semver: ">=9"', "no version tag in the range '>=9'"),
        (f"commit: {'a' * 40}", "there is no commit"),
    ],
)
def test_what_is_not_there_is_said(place: Place, upstream: Upstream, ref: str, message: str) -> None:
    upstream.publish(manifest(2))
    fetched, _ = place.look(ref=ref)
    stage, _, told = refusal(fetched)
    assert stage == "Fetched"
    assert message in told


def test_a_repository_that_is_gone_is_said_and_the_fleet_stays(place: Place, upstream: Upstream) -> None:
    good = upstream.publish(manifest(2))
    place.look()
    upstream.bare.rename(upstream.bare.with_name("moved.git"))
    fetched, reconciled = place.look()
    assert refusal(fetched)[0] == "Fetched"
    assert (fetched.good, fetched.failures, reconciled.applied) == (good, 1, good)
    fetched, _ = place.look()
    assert fetched.failures == 2
    assert len(place.running()) == 2


def removed(up: Upstream) -> None:
    (up.work / "fleet.yaml").unlink()


def made_a_folder(up: Upstream) -> None:
    removed(up)
    up.write("fleet.yaml/x", "")


def made_a_link(up: Upstream) -> None:
    removed(up)
    up.write("x.yaml", manifest(1))
    (up.work / "fleet.yaml").symlink_to("x.yaml")


def over_budget(up: Upstream) -> None:
    text = manifest(9, more="  concurrency: 0\n")
    up.write("fleet.yaml", text.replace("command: [sleep, '1000']", "app: a:b, pool: solo"))


BAD: dict[str, tuple[Callable[[Upstream], object], str]] = {
    "missing": (removed, "fleet.yaml  it is not in the repository"),
    "folder": (made_a_folder, "it is a folder"),
    "link": (made_a_link, "no regular file"),
    "empty": (lambda up: up.write("fleet.yaml", ""), "the file is empty"),
    "without groups": (lambda up: up.write("fleet.yaml", manifest(1).split("    clock")[0]), "groups"),
    "renamed": (lambda up: up.write("fleet.yaml", manifest(1, name="other")), "is of fleet 'other' now"),
    "over budget": (over_budget, "slots"),
    "link that leaves": (lambda up: (up.work / "out").symlink_to("../../etc"), "the link out leads out of the tree"),
    "too big": (lambda up: up.write("big", "x" * (300 << 10)), "maxSize allows"),
}


@pytest.mark.parametrize(("prepare", "message"), BAD.values(), ids=BAD)
def test_nothing_but_a_whole_manifest_reaches_the_fleet(
    place: Place, upstream: Upstream, prepare: Callable[[Upstream], object], message: str
) -> None:
    good = upstream.publish(manifest(2))
    place.look(git="    maxSize: 200Ki\n")
    prepare(upstream)
    upstream.commit("a bad one")
    upstream.push()
    fetched, reconciled = place.look(git="    maxSize: 200Ki\n")
    stage, _, told = refusal(fetched)
    assert stage in {"Valid", "Fetched"}
    assert message in told
    assert (fetched.good, reconciled.applied) == (good, good)
    assert place.running() == ["clock.0", "clock.1"]


def test_several_manifests_are_merged_in_order(place: Place, upstream: Upstream) -> None:
    upstream.write("base.yaml", manifest(1))
    upstream.write("prod.yaml", "spec: {groups: {clock: {replicas: 4}}}\n")
    upstream.commit()
    upstream.push()
    place.look(paths="base.yaml, prod.yaml")
    assert len(place.running()) == 4


def test_hooks_filters_and_submodules_of_a_repository_run_nothing(
    place: Place, upstream: Upstream, tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    upstream.write(".gitattributes", "* filter=evil\n")
    upstream.write(".gitmodules", '[submodule "x"]\n\tpath = x\n\turl = ../nowhere\n')
    upstream.write("hooks/post-checkout", f"#!/bin/sh\ntouch {proof}\n")
    upstream.publish(manifest(1))
    upstream.git("update-index", "--add", "--cacheinfo", f"160000,{upstream.git('rev-parse', 'HEAD')},x")
    upstream.git("commit", "-q", "-m", "a submodule")
    upstream.push()
    place.look()
    hooks = place.places.repository / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {proof}\n")
        (hooks / name).chmod(0o755)
    commit = upstream.publish(manifest(2))
    fetched, _ = place.look()
    assert fetched.good == commit
    assert not proof.exists()
    assert not (place.places.checkouts / commit / "x").exists()


def test_what_a_killed_git_left_behind_is_no_obstacle(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(1))
    place.look()
    for left in ("HEAD.lock", "packed-refs.lock", "refs/fleet/head.lock", "config.lock"):
        (place.places.repository / left).touch()
    (place.places.checkouts / f".{'a' * 40}.xyz").mkdir()
    commit = upstream.publish(manifest(2))
    fetched, reconciled = place.look()
    assert fetched.good == reconciled.applied == commit
    assert sorted(os.listdir(place.places.checkouts))[0] != f".{'a' * 40}.xyz"


def test_the_environment_names_the_commit(place: Place, upstream: Upstream) -> None:
    text = manifest(1).replace("replicas: 1", 'replicas: 1, env: {COMMIT: "${env:FLEET_COMMIT}"}')
    commit = upstream.publish(text)
    place.look()
    [one] = place.world.observe().replicas.values()
    assert one.spec is not None
    assert dict(one.spec.env)["COMMIT"] == commit


def test_a_damaged_state_file_is_said_and_nothing_is_guessed(place: Place, upstream: Upstream) -> None:
    from fleet.errors import FleetError

    upstream.publish(manifest(1))
    place.look()
    for garbage in ("", "{", '{"format": 1}', "[]", '{"format": 2}'):
        place.places.fetched.write_text(garbage)
        with pytest.raises(FleetError, match=r"fetched\.json cannot be read"):
            place.look()


def test_every_stage_is_true_in_the_end(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(1))
    assert set(conditions(*place.look()).values()) == {"True"}
