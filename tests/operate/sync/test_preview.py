"""What a merge would do, and where what runs differs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given

from fleet.core.observed import Observed, State
from fleet.errors import ManifestError, UsageError
from fleet.operate.sync import offline
from fleet.operate.sync.drift import differences, text
from fleet.operate.sync.git import GitError
from fleet.operate.sync.preview import markdown, preview
from tests.operate.sync.worlds import Upstream, manifest
from tests.properties.strategies import fleets
from tests.worlds import but, fleet, group, running, without


def shown(upstream: Upstream, base: str = "main", head: str = "HEAD") -> str:
    return markdown(preview([str(upstream.work / "fleet.yaml")], base=base, head=head, prune=True, environ={}))


def test_a_merge_as_markdown(upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    upstream.git("checkout", "-q", "-b", "feature")
    upstream.write("fleet.yaml", manifest(3, more="    pipe: {command: [sh, -c, 'a | b'], replicas: 1}\n"))
    upstream.commit()
    assert shown(upstream) == (
        "### fleet plan: shop, `main` to `HEAD`\n"
        "\n"
        "| replica | action | reason |\n"
        "|---|---|---|\n"
        "| clock.2 | start | scale up 2 -> 3 |\n"
        "| pipe.0 | start | not running yet |\n"
        "\n"
        "Plan: 2 to start, 2 untouched.\n"
        "Takes 1m in the worst case.\n"
    )


def test_what_the_base_got_meanwhile_is_not_undone(upstream: Upstream) -> None:
    upstream.publish(manifest(2, more="    other: {command: [sleep, '5'], replicas: 1}\n"))
    upstream.git("checkout", "-q", "-b", "feature")
    text_of_branch = (upstream.work / "fleet.yaml").read_text()
    upstream.git("checkout", "-q", "main")
    upstream.write("fleet.yaml", text_of_branch.replace("replicas: 2", "replicas: 4"))
    upstream.commit("main goes on")
    upstream.git("checkout", "-q", "feature")
    upstream.write("notes.txt", "a change elsewhere\n")
    upstream.commit("the branch")
    said = preview([str(upstream.work / "fleet.yaml")], base="main", head="HEAD", prune=True, environ={})
    assert said.merged
    assert said.plan.is_empty


def test_a_merge_in_conflict_is_said(upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    upstream.git("checkout", "-q", "-b", "feature")
    upstream.write("fleet.yaml", manifest(3))
    upstream.commit()
    upstream.git("checkout", "-q", "main")
    upstream.write("fleet.yaml", manifest(4))
    upstream.commit()
    with pytest.raises(GitError, match="feature does not merge into main"):
        shown(upstream, head="feature")


def test_a_new_manifest_starts_everything_and_a_broken_one_is_refused(upstream: Upstream) -> None:
    upstream.publish("hello\n", path="README")
    upstream.git("checkout", "-q", "-b", "feature")
    upstream.write("fleet.yaml", manifest(1))
    upstream.commit()
    assert "| clock.0 | start |" in shown(upstream)
    upstream.write("fleet.yaml", manifest(1).replace("replicas", "replicsa"))
    upstream.commit()
    with pytest.raises(ManifestError, match=r"fleet\.yaml:7:"):
        shown(upstream)


def test_what_is_no_revision_or_no_checkout_is_said(upstream: Upstream, tmp_path: object) -> None:
    upstream.publish(manifest(1))
    with pytest.raises(UsageError, match="no revision 'nope'"):
        shown(upstream, base="nope")
    with pytest.raises(UsageError, match="lies in no git checkout"):
        preview(["/fleet.yaml"], base="a", head="b", prune=True, environ={})


@given(fleets())
def test_a_fleet_that_runs_as_it_should_needs_no_step(desired: offline.Desired) -> None:
    assert differences(desired, offline.running(desired)) == ()


# --- drift

THUMBS = group("thumbs", 1, 1, 1)
MAIL = group("mail", 4, pool="threads")


def test_every_way_to_differ_in_a_line() -> None:
    other = group("old", 1)
    world = without(running(THUMBS, replace(MAIL, spec=replace(MAIL.spec, env=(("A", "1"),))), other), "thumbs.1")
    world = but(world, "thumbs.2", state=State.STOPPED, pid=None, note="by hand")
    assert text("shop", differences(fleet(THUMBS, MAIL), world)) == (
        "~ mail    env.A removed  (mail.0)\n"
        "- old     the manifest has no such group: 1 replica  (old.0)\n"
        "+ thumbs  2 of 3 replicas there  (thumbs.1)\n"
        "! thumbs  stopped (by hand)  (thumbs.2)\n"
    )


def test_a_fleet_that_does_not_run_misses_everything() -> None:
    found = differences(fleet(THUMBS, MAIL), Observed("shop"))
    assert [(one.group, one.kind, len(one.replicas)) for one in found] == [
        ("mail", "missing", 1),
        ("thumbs", "missing", 3),
    ]


def test_no_difference_is_said() -> None:
    assert (
        text("shop", differences(fleet(THUMBS), running(THUMBS))) == "fleet shop: what runs is as the manifest says\n"
    )
