"""What one look of the controller may begin of a plan, and where many such looks end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.backends.memory import MemoryBackend
from fleet.core.autoscale.startable_steps import begun, in_rollout
from fleet.core.desired import Desired
from fleet.core.observed import Observed, State
from fleet.core.plan import Action, Plan
from fleet.core.planning.planner import plan
from fleet.core.spec import Kind, PoolSpec, WorkerSpec
from fleet.operate.apply.events import WalkOptions
from fleet.operate.apply.walk import apply
from tests.properties.strategies import fleets, worlds
from tests.worlds import but, fleet, group, running

MANY = 100
GOES = "takes no new task, and goes when it is done"


def looked(desired: Desired, observed: Observed, *, starts: int = MANY, groups: tuple[str, ...] = ("a",)) -> Plan:
    """What a look at this world begins."""
    return begun(plan(desired, observed), observed, groups=groups, starts=starts)


def steps(desired: Desired, observed: Observed, *, starts: int = MANY, groups: tuple[str, ...] = ("a",)) -> list[str]:
    return [step.id for step in looked(desired, observed, starts=starts, groups=groups).steps]


def fewer(**fields: Any) -> tuple[Desired, Observed]:
    """Two replicas where one is wanted; a.1 is the one that goes, and looks like this."""
    return fleet(group("a", 1)), but(running(group("a", 1, 1)), "a.1", **fields)


# how a replica goes


def test_an_idle_replica_takes_nothing_new_first() -> None:
    (step,) = looked(*fewer()).steps

    assert step.id == "hold a.1"
    assert step.reason.endswith(GOES)


def test_a_busy_one_too_and_then_it_is_left_to_finish() -> None:
    desired, seen = fleet(group("a", 1, 1)), running(group("a", 1, 1, 1))
    for index in range(3):
        seen = but(seen, f"a.{index}", busy=1)

    assert steps(desired, seen) == ["hold a.2"]
    assert steps(desired, but(seen, "a.2", held=True, state=State.DRAINING)) == []


def test_one_that_was_told_a_moment_ago_is_given_the_time_to_hear_it() -> None:
    assert steps(*fewer(held=True)) == []


def test_when_nothing_is_left_in_it_it_goes() -> None:
    assert steps(*fewer(held=True, state=State.DRAINING)) == ["drain a.1"]


def test_one_that_is_on_its_way_out_is_told_nothing_more() -> None:
    assert steps(*fewer(state=State.DRAINING, busy=1)) == []
    assert steps(*fewer(state=State.DRAINING)) == []


def test_one_that_is_gone_is_struck_off() -> None:
    assert steps(*fewer(state=State.STOPPED, pid=None)) == ["forget a.1"]


def test_one_that_never_got_to_work_goes_at_once() -> None:
    assert steps(*fewer(state=State.STARTING)) == ["drain a.1"]


@pytest.mark.parametrize(
    ("kind", "counts", "expected"),
    [("command", False, "drain a.1"), ("celery", False, "drain a.1"), ("celery", True, "hold a.1")],
)
def test_what_keeps_no_record_gets_its_grace_at_once(kind: Kind, counts: bool, expected: str) -> None:
    """It does not know how to take nothing new and go on."""
    spec = WorkerSpec(kind, "shop", "a", pool=PoolSpec("prefork", 1), command=("rq", "worker"))
    one, two = group("a", 1, spec=spec), group("a", 1, 1, spec=spec)

    assert steps(fleet(one), but(running(two), "a.1", counts=counts)) == [expected]


def test_what_nobody_knows_the_document_of_is_drained() -> None:
    assert "drain a.1" in steps(*fewer(spec=None))


def test_a_replica_that_was_to_go_is_taken_back() -> None:
    seen = but(running(group("a", 1, 1)), "a.1", held=True, state=State.DRAINING, busy=1)

    assert steps(fleet(group("a", 1, 1)), seen) == ["release a.1"]


# how slots come


def test_slots_change_in_place_at_once() -> None:
    assert steps(fleet(group("a", 7, pool="threads")), running(group("a", 3, pool="threads"))) == ["resize a.0"]


def test_no_more_replicas_come_up_at_once_than_the_machine_can_start() -> None:
    desired = fleet(group("a", *(1,) * 9), group("b", 1))
    seen = running(group("a", 1), group("b", 1))

    assert len(steps(desired, seen, starts=4)) == 4
    assert len(steps(desired, but(seen, "a.0", state=State.STARTING), starts=4)) == 3
    assert len(steps(desired, but(seen, "b.0", state=State.STARTING), starts=4)) == 3
    assert steps(desired, but(seen, "a.0", state=State.STARTING), starts=1) == []


def test_a_machine_that_starts_nothing_more_still_lets_go() -> None:
    desired = fleet(group("a", 1, 1, 1), group("b", 1))
    seen = running(group("a", 1), group("b", 1, 1))

    assert steps(desired, seen, starts=0, groups=("a", "b")) == ["hold b.1"]


# what is left alone


def test_only_groups_that_move_are_touched() -> None:
    desired = fleet(group("a", 1), group("b", 1), group("c", 1, 1, env={"A": "b"}))
    seen = running(group("a", 1, 1), group("b", 1, 1), group("c", 1))

    assert steps(desired, seen) == ["hold a.1"]


def test_what_a_rollout_has_still_to_replace_is_not_replaced_by_a_look() -> None:
    desired = fleet(group("a", 1, 1, env={"A": "new"}))
    seen = running(group("a", 1, 1))

    assert {step.action for step in plan(desired, seen).steps} == {Action.REPLACE}
    assert steps(desired, seen) == []


def test_one_that_was_parked_is_not_run_again() -> None:
    seen = but(running(group("a", 1, 1)), "a.0", state=State.FAILED, pid=None)

    assert steps(fleet(group("a", 1, 1)), seen) == []


def test_one_that_leaves_and_is_wanted_again_is_waited_for() -> None:
    seen = but(running(group("a", 1, 1)), "a.0", state=State.DRAINING, busy=1)

    assert steps(fleet(group("a", 1, 1)), seen) == []
    assert steps(fleet(group("a", 1, 1)), but(seen, "a.0", state=State.STOPPED, pid=None, busy=0)) == ["start a.0"]


@pytest.mark.parametrize("has_ended", [True, False])
def test_a_group_with_an_outdated_replica_is_in_a_rollout(has_ended: bool) -> None:
    desired = fleet(group("a", 1, 1, env={"A": "new"}), group("b", 1))

    assert in_rollout(plan(desired, running(group("a", 1, 1), group("b", 1))), has_ended=has_ended) == {"a"}


@pytest.mark.parametrize("missing", [{"state": State.STOPPED, "pid": None}, {"state": State.DRAINING}])
def test_what_is_missing_is_a_looks_to_start_unless_the_apply_failed(missing: dict[str, Any]) -> None:
    desired = fleet(group("a", 1, 1), group("b", 1))
    todo = plan(desired, but(running(group("a", 1, 1), group("b", 1)), "a.1", **missing))

    assert in_rollout(todo, has_ended=True) == frozenset()
    assert in_rollout(todo, has_ended=False) == {"a"}


def test_slots_on_their_way_are_no_rollout() -> None:
    desired = fleet(group("a", 4, pool="threads"), group("b", 1))
    seen = running(group("a", 3, pool="threads"), group("b", 1, 1))

    assert in_rollout(plan(desired, seen), has_ended=False) == frozenset()


def test_steps_wait_for_nothing() -> None:
    desired, seen = fleet(group("a", 1, 1, depends_on=("b",)), group("b", 1)), running(group("a", 1), group("b", 1))
    late = [replace(step, wave=3, after=("start b.0",)) for step in plan(desired, seen).steps]
    todo = replace(plan(desired, seen), steps=tuple(late))

    (step,) = begun(todo, seen, groups=("a",), starts=MANY).steps

    assert (step.id, step.wave, step.after) == ("start a.1", 0, ())


# whatever the world is like


@given(fleets())
def test_of_a_fleet_that_is_as_it_should_be_nothing_is_begun(desired: Desired) -> None:
    seen = running(*desired.groups.values())

    assert looked(replace(desired, drained=frozenset()), seen, groups=tuple(desired.groups)).is_empty


@given(worlds(), st.integers(0, 5), st.sets(st.sampled_from("abc")))
def test_a_look_cuts_no_task_and_does_nothing_that_is_not_planned(
    world: tuple[Desired, Observed], starts: int, groups: set[str]
) -> None:
    desired, observed = world
    planned = {step.replica for step in plan(desired, observed).changes}
    todo = looked(desired, observed, starts=starts, groups=tuple(groups))

    assert {step.replica for step in todo.changes} <= planned
    assert {step.replica.partition(".")[0] for step in todo.steps} <= groups
    assert todo.count(Action.START) <= starts
    for step in todo.changes:
        assert step.action in {Action.START, Action.RESIZE, Action.RELEASE, Action.FORGET, Action.HOLD, Action.DRAIN}
        if step.action is Action.DRAIN:
            seen = observed.replicas[step.replica]
            assert not (seen.busy and (seen.held or seen.state is State.READY))


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, ...]:
    full, rest = draw(st.integers(0, 4)), draw(st.integers(0, 3))
    return (4,) * full + ((rest,) if rest else ())


@given(
    st.sampled_from(["solo", "threads"]),
    st.tuples(shapes(), shapes()),
    st.lists(st.integers(0, 4), min_size=5, max_size=5),
    st.integers(1, 3),
    st.booleans(),
)
def test_looks_that_never_wait_end_where_a_patient_walk_would(
    pool: str, around: tuple[tuple[int, ...], tuple[int, ...]], busy: list[int], starts: int, is_changed: bool
) -> None:
    """On the way no worker is told to stop while a task runs in it, and whoever stays keeps its process."""
    before, after = (tuple(1 for _ in shape) if pool == "solo" else shape for shape in around)
    backend, one = MemoryBackend("shop", stepwise=True), group("a", *(before or (4,)), pool=pool)
    backend.load(running(replace(one, shape=before)).replicas.values())
    for name, tasks in zip(backend.observe().replicas, busy, strict=False):
        backend.work(name, min(tasks, backend.observe().replicas[name].slots))
    pids = {replica.pid for replica in backend.observe().replicas.values()}
    if is_changed:
        _looks(backend, fleet(replace(one, shape=(*before, *before))), starts, most=2)  # and then it is decided anew

    desired = fleet(replace(one, shape=after))
    _looks(backend, desired, starts, most=60)

    assert plan(desired, backend.observe()).is_empty
    kept = pids & {replica.pid for replica in backend.observe().replicas.values()}
    assert len(kept) >= min(len(before), len(after))


def _looks(backend: MemoryBackend, desired: Desired, starts: int, *, most: int) -> None:
    """So many looks; tasks end one replica at a time, so that they outlast some of them."""
    for _ in range(most):
        observed = backend.observe()
        calls = len(backend.calls)
        todo = looked(desired, observed, starts=starts)
        apply(todo, backend, desired=desired, secrets={}, options=WalkOptions(wait=False, passing=True))
        for what, names in backend.calls[calls:]:
            assert what != "stop" or not any(observed.replicas[name].busy for name in names)
        backend.tick()
        worker = next((one.name for one in backend.observe().replicas.values() if one.busy), None)
        if worker is not None:
            backend.finish(worker)
