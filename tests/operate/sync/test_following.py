"""The fleet follows, waits, heals and stays, as its source says."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from fleet.errors import Interrupted, Refused
from fleet.operate.apply.events import Event
from fleet.operate.sync import ownership
from fleet.operate.sync.orders import resume, suspend
from fleet.operate.sync.state import Reconciled, read_orders, read_reconciled, write
from fleet.operate.sync.watcher import Watcher
from tests.operate.sync.worlds import Place, Upstream, manifest

TWO = "    other: {command: [sleep, '2000'], replicas: 1}\n"


def ready(state: Reconciled) -> tuple[str, str]:
    row = state.conditions.get("Ready")
    return row.state, row.reason


def test_a_push_that_scales_keeps_the_processes_that_stay(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    before = place.pids()
    commit = upstream.publish(manifest(4), message="four clocks")
    _, state = place.look()
    assert state.applied == state.attempted == commit
    assert before.items() <= place.pids().items()
    assert len(place.pids()) == 4
    revision = place.local().history.latest()
    assert revision is not None
    assert revision.origin.git == {"sha": commit}
    assert revision.message == f"commit {commit[:12]}: four clocks"


def test_a_push_of_code_beside_the_manifest_replaces_what_runs_it(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    before = place.pids()
    upstream.publish("VERSION = 2\n", path="app.py")
    place.look()
    assert not set(before.values()) & set(place.pids().values())


def test_a_look_without_news_changes_nothing(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    calls = list(place.world.calls)
    _, state = place.look()
    assert place.world.calls == calls
    assert ready(state) == ("True", "Ready")


@pytest.mark.parametrize(
    ("mode", "expected", "running"),
    [("enabled", ("True", "Healed"), 2), ("warn", ("False", "Drifted"), 1), ("disabled", ("True", "Ready"), 1)],
)
def test_what_differs_is_put_right_said_or_left(
    place: Place, upstream: Upstream, mode: str, expected: tuple[str, str], running: int
) -> None:
    upstream.publish(manifest(2))
    place.look(more=f"  selfHeal: {{mode: {mode}}}\n")
    place.world.stop(["clock.1"])
    place.world.forget(["clock.1"])
    _, state = place.look(more=f"  selfHeal: {{mode: {mode}}}\n")
    assert ready(state) == expected
    assert len(place.running()) == running


def test_a_broken_commit_does_not_stop_the_healing_of_the_last_good_one(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    upstream.publish("nonsense: [")
    place.world.stop(["clock.0"])
    place.world.forget(["clock.0"])
    _, state = place.look()
    assert ready(state) == ("True", "Healed")
    assert place.running() == ["clock.0", "clock.1"]


def test_what_is_refused_is_in_the_fleets_audit_once(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    broken = upstream.publish("nonsense: [")
    place.look()
    place.look()

    (entry,) = [one for one in place.local().audit.read() if one["event"] == "sync.failed"]
    assert entry["commit"] == broken
    assert entry["reason"].startswith("Valid: ")


def test_a_repair_that_somebody_undoes_is_parked(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    states = []
    for _ in range(4):
        place.world.stop(["clock.1"])
        place.world.forget(["clock.1"])
        states.append(ready(place.look()[1])[1])
        place.clock += 5
    assert states == ["Healed", "Healed", "Healed", "Parked"]
    place.clock += 600
    assert ready(place.look()[1])[1] == "Healed"


def test_a_worker_that_is_as_wanted_and_does_not_work_is_not_ready(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    place.world.ignore_settings("clock.1")
    place.world.stepwise = True
    place.world.crash("clock.1")
    _, state = place.look(more="  selfHeal: {mode: warn}\n")
    assert ready(state)[0] == "False"
    assert "clock.1" in state.conditions.get("Ready").message


def test_a_rollout_that_may_outlast_its_timeout_is_refused(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2).replace("replicas: 2", "replicas: 2, health: {readyTimeout: 3h}"))
    _, state = place.look()
    planned = state.conditions.get("Planned")
    assert (planned.state, planned.reason) == ("False", "Refused")
    assert "the rollout may take 3h, and spec.timeout allows 2h" in planned.message
    assert not place.running()


def test_live_exceptions_are_no_drift(place: Place, upstream: Upstream) -> None:
    from fleet.state.overrides import Override

    upstream.publish(manifest(2))
    place.look()
    local = place.local()
    local.keep_overrides((Override("replicas", "clock", place.clock, "ana", until=place.clock + 60, replicas=5),))
    place.look()
    assert len(place.running()) == 5
    place.clock += 61
    place.look()
    assert len(place.running()) == 2


def test_plan_only_says_what_it_would_do_and_waits_for_approval(place: Place, upstream: Upstream) -> None:
    commit = upstream.publish(manifest(2))
    _, state = place.look(more="  apply: plan-only\n")
    assert not place.running()
    assert (state.previewed, state.plan["summary"]["start"]) == (commit, 2)
    assert ready(state) == ("Unknown", "PlanOnly")
    write(place.places.orders, replace(read_orders(place.places), approved=commit))
    _, state = place.look(more="  apply: plan-only\n")
    assert state.applied == commit
    assert len(place.running()) == 2
    assert read_orders(place.places).approved == ""


def test_outside_its_windows_a_commit_waits_and_the_fleet_is_healed(place: Place, upstream: Upstream) -> None:
    window = '  apply: window\n  windows: {night: {cron: "0 2 * * *", for: 2h, tz: Europe/Berlin}}\n'
    berlin = ZoneInfo("Europe/Berlin")
    place.clock = datetime(2026, 11, 30, 3, 0, tzinfo=berlin).timestamp()
    first = upstream.publish(manifest(2))
    assert place.look(more=window)[1].applied == first
    place.clock = datetime(2026, 11, 30, 4, 0, tzinfo=berlin).timestamp()
    second = upstream.publish(manifest(3))
    place.world.stop(["clock.1"])
    place.world.forget(["clock.1"])
    _, state = place.look(more=window)
    assert (state.applied, len(place.running())) == (first, 2)
    assert "the next window opens 2026-12-01T01:00:00Z" in state.conditions.get("Ready").message
    place.clock = datetime(2026, 12, 1, 2, 0, tzinfo=berlin).timestamp()
    assert place.look(more=window)[1].applied == second


def test_a_suspended_source_looks_and_touches_nothing(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    suspend(place.places, seconds=3600, reason="incident 412", now=place.clock)
    commit = upstream.publish(manifest(5))
    place.world.stop(["clock.1"])
    place.world.forget(["clock.1"])
    fetched, state = place.look()
    assert fetched.good == commit
    assert place.running() == ["clock.0"]
    assert ready(state) == ("Unknown", "Suspended")
    assert "incident 412" in state.conditions.get("Ready").message
    place.clock += 3601
    place.look()
    assert len(place.running()) == 5


def test_a_suspension_can_be_ended_early_and_stand_in_the_source(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    suspend(place.places, seconds=3600, reason="x", now=place.clock)
    resume(place.places)
    place.look()
    assert len(place.running()) == 2
    upstream.publish(manifest(3))
    said = '  suspend: {until: "2999-01-01T00:00:00Z", reason: moving house}\n'
    _, state = place.look(more=said)
    assert "moving house" in state.conditions.get("Ready").message
    assert len(place.running()) == 2


def test_more_than_max_destroy_is_refused_and_the_fleet_stays(place: Place, upstream: Upstream) -> None:
    first = upstream.publish(manifest(4))
    place.look(more="  maxDestroy: 30%\n")
    upstream.publish(manifest(2))
    _, state = place.look(more="  maxDestroy: 30%\n")
    planned = state.conditions.get("Planned")
    assert (planned.state, planned.reason) == ("False", "Refused")
    assert "removes 2 of 4 replicas, and maxDestroy allows 1" in planned.message
    assert (state.applied, len(place.running()), state.failures) == (first, 4, 1)
    upstream.publish(manifest(3))
    assert len(place.look(more="  maxDestroy: 30%\n")[1].applied) == 40
    assert len(place.running()) == 3


@pytest.mark.parametrize(("prune", "stays"), [("false", True), ("true", False)])
def test_a_group_that_left_the_manifest_goes_only_where_prune_is_asked_for(
    place: Place, upstream: Upstream, prune: str, stays: bool
) -> None:
    upstream.publish(manifest(2, more=TWO))
    place.look(more=f"  prune: {prune}\n")
    upstream.publish(manifest(2))
    place.look(more=f"  prune: {prune}\n")
    assert ("other.0" in place.running()) is stays


def broken_push(place: Place, upstream: Upstream, policy: str) -> tuple[str, str, Reconciled]:
    """A good commit, then one whose replicas never get ready: both, and where that ended."""
    text = manifest(2).replace(
        "replicas: 2", f"replicas: 2, health: {{readyTimeout: 1s}}, rollout: {{onFailure: {policy}}}"
    )
    good = upstream.publish(text)
    place.look()
    bad = upstream.publish(text.replace("1000", "1001"))
    loops = place.following()
    loops.fetching.look()
    look = loops.target.look(loops.revisions.manifest(bad, base=good), prune=False)
    for step in look.change.plan.changes:
        if step.target is not None:
            place.world.break_starts(step.target.digest)
    return good, bad, loops.look()


def test_a_rollout_that_was_rolled_back_is_not_tried_again_and_the_fleet_is_healed(
    place: Place, upstream: Upstream
) -> None:
    good, bad, state = broken_push(place, upstream, "rollback")
    assert (state.applied, state.failed) == (good, bad)
    assert ready(state) == ("False", "RolledBack")
    calls = list(place.world.calls)
    place.look()
    assert place.world.calls == calls
    place.world.stop(["clock.1"])
    place.world.forget(["clock.1"])
    _, state = place.look()
    assert place.running() == ["clock.0", "clock.1"]
    assert state.failed == bad


def test_a_rollout_that_is_paused_waits_for_a_person_or_a_new_commit(place: Place, upstream: Upstream) -> None:
    good, bad, state = broken_push(place, upstream, "pause")
    assert (state.applied, state.failed, state.is_paused) == (good, bad, True)
    assert ready(state) == ("False", "RolloutFailed")
    calls = list(place.world.calls)
    _, state = place.look()
    assert place.world.calls == calls
    assert ready(state) == ("False", "RolloutPaused")
    fixed = upstream.publish(manifest(2))
    _, state = place.look()
    assert (state.applied, state.failed) == (fixed, "")


def test_a_failed_revision_is_tried_again_when_somebody_approves_it(place: Place, upstream: Upstream) -> None:
    _, bad, _ = broken_push(place, upstream, "pause")
    write(place.places.orders, replace(read_orders(place.places), approved=bad))
    began = len(place.world.calls)
    _, state = place.look()
    assert len(place.world.calls) > began
    assert (state.failed, read_orders(place.places).approved) == (bad, "")


def test_an_interrupted_rollout_goes_on_with_the_next_process(place: Place, upstream: Upstream) -> None:
    commit = upstream.publish(manifest(2))
    loops = place.following()
    loops.fetching.look()
    with pytest.raises(Interrupted):
        loops.look(interrupted=lambda: 15)
    state = read_reconciled(place.places)
    assert (state.attempted, state.applied) == (commit, "")
    assert place.look()[1].applied == commit
    assert len(place.running()) == 2


def test_a_checkout_that_was_removed_is_made_again(place: Place, upstream: Upstream) -> None:
    commit = upstream.publish(manifest(2))
    place.look()
    subprocess.run(["rm", "-rf", str(place.places.checkouts)], check=True)
    place.world.stop(["clock.1"])
    place.world.forget(["clock.1"])
    _, state = place.look()
    assert (state.applied, ready(state)) == (commit, ("True", "Healed"))


def test_only_a_few_checkouts_are_kept(place: Place, upstream: Upstream) -> None:
    for replicas in range(1, 10):
        commit = upstream.publish(manifest(replicas))
        place.look()
    kept = {path.name for path in place.places.checkouts.iterdir()}
    assert commit in kept
    assert len(kept) <= 6
    assert read_reconciled(place.places).base in kept


# --- ownership


def test_a_fleet_of_files_is_not_taken_without_a_word(place: Place, upstream: Upstream) -> None:
    local = place.local()
    local.places.state.mkdir(parents=True)
    ownership.write(local.places.state, ownership.of_files(("/srv/shop/fleet.yaml",)))
    commit = upstream.publish(manifest(2))
    _, state = place.look()
    planned = state.conditions.get("Planned")
    assert (planned.state, planned.reason) == ("False", "Refused")
    assert "belongs to /srv/shop/fleet.yaml" in planned.message
    assert not place.running()
    _, state = place.look(adopt=True)
    assert state.applied == commit
    owner = ownership.read(local.places.state)
    assert owner is not None
    assert (owner.kind, owner.name) == ("source", "shop-prod")
    assert place.look()[1].applied == commit


def test_a_fleet_that_was_taken_over_is_left_alone(place: Place, upstream: Upstream) -> None:
    upstream.publish(manifest(2))
    place.look()
    ownership.write(place.local().places.state, ownership.of_files(("/srv/shop/fleet.yaml",)))
    place.world.stop(["clock.1"])
    place.world.forget(["clock.1"])
    upstream.publish(manifest(5))
    place.look()
    assert place.running() == ["clock.0"]


class Heard:
    """What somebody who looks on hears."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str]] = []
        self.steps: list[tuple[str, str]] = []
        self.watcher = Watcher(lambda loop, what: self.stages.append((loop, what)), self._take)

    def _take(self, events: Sequence[Event]) -> None:
        self.steps += [(event.phase, event.step.replica) for event in events]


def test_who_looks_on_hears_each_stage_and_each_step(place: Place, upstream: Upstream) -> None:
    commit, heard = upstream.publish(manifest(1))[:12], Heard()
    place.look(watcher=heard.watcher)
    assert heard.stages == [
        ("repository", "fetching branch main"),
        ("repository", f"reading {commit}"),
        ("repository", ""),
        ("fleet", f"reading {commit}"),
        ("fleet", f"planning {commit}"),
        ("fleet", f"applying {commit}"),
        ("fleet", ""),
    ]
    assert heard.steps == [(phase, "clock.0") for phase in ("planned", "started", "done")]


def test_who_looks_on_hears_of_a_repair(place: Place, upstream: Upstream) -> None:
    commit, heard = upstream.publish(manifest(2))[:12], Heard()
    place.look()
    place.world.stop(["clock.1"])
    place.world.forget(["clock.1"])
    place.look(watcher=heard.watcher)
    assert ("fleet", f"healing to {commit}") in heard.stages
    assert ("done", "clock.1") in heard.steps
    assert heard.stages[-1] == ("fleet", "")


def test_a_look_that_fails_rests_as_well(place: Place, upstream: Upstream) -> None:
    upstream.publish("groups: [")
    heard = Heard()
    place.look(watcher=heard.watcher)
    assert [stage for stage in heard.stages if not stage[1]] == [("repository", ""), ("fleet", "")]


@pytest.mark.parametrize(
    ("owner", "claimant", "is_refused"),
    [
        (None, ownership.of_files(("/a",)), False),
        (ownership.of_files(("/a",)), ownership.of_files(("/a", "/b")), False),
        (ownership.of_files(("/a",)), ownership.of_files(("/b",)), True),
        (ownership.of_files(()), ownership.of_files(()), False),
        (ownership.of_files(("/a",)), ownership.of_files(()), True),
        (ownership.of_files(("/a",)), ownership.of_source("s", "git"), True),
        (ownership.of_source("s", "git"), ownership.of_files(("/a",)), True),
        (ownership.of_source("s", "git"), ownership.of_source("s", "git2"), False),
        (ownership.of_source("s", "git"), ownership.of_source("t", "git"), True),
    ],
)
def test_who_may_change_whose_fleet(owner: ownership.Owner | None, claimant: ownership.Owner, is_refused: bool) -> None:
    if not is_refused:
        ownership.refuse_other("shop", owner, claimant)
        return
    with pytest.raises(Refused, match="belongs to"):
        ownership.refuse_other("shop", owner, claimant)
