"""Waves: who waits for whom, and how long it may take."""

from __future__ import annotations

import pytest

from fleet.core.desired import BROKER_GROUP, RolloutPolicy
from fleet.core.observed import Observed
from fleet.core.plan import Action, Plan
from fleet.core.planning.waves import Stage, scheduled
from tests.worlds import FLEET, but, fleet, group, planned, running


def waves(todo: Plan) -> list[list[str]]:
    """Ids of the steps, wave by wave."""
    found: dict[int, list[str]] = {}
    for step in todo.changes:
        found.setdefault(step.wave, []).append(step.id)
    return [found[number] for number in sorted(found)]


def rolled(shape: int, surge: int, missing: int) -> list[int]:
    """How many replacements each wave of a rollout has."""
    policy = RolloutPolicy("rolling", surge, missing)
    old, new = (group("a", *[1] * shape, env={"A": value}, rollout=policy) for value in "12")
    todo = planned(fleet(new), running(old))
    return [sum(mark.startswith("replace") for mark in wave) for wave in waves(todo)]


def test_batches_are_as_large_as_spares_and_missing_ones_allow() -> None:
    assert rolled(5, surge=0, missing=1) == [1, 1, 1, 1, 1]
    assert rolled(5, surge=0, missing=2) == [2, 2, 1]
    assert rolled(5, surge=1, missing=0) == [0, 1, 1, 1, 1, 1, 0]
    assert rolled(5, surge=2, missing=1) == [0, 3, 2, 0]
    assert rolled(2, surge=9, missing=0) == [0, 2, 0]


def test_replicas_that_leave_stand_in_for_spares_and_go_last() -> None:
    old, new = group("a", *[1] * 5), group("a", *[1] * 3, env={"A": "1"})

    assert waves(planned(fleet(new), running(old))) == [
        ["replace a.0", "replace a.1"],
        ["replace a.2"],
        ["drain a.3", "drain a.4"],
    ]


def test_new_replicas_come_before_old_ones_are_replaced() -> None:
    old, new = group("a", 1), group("a", 1, 1, env={"A": "1"})

    assert waves(planned(fleet(new), running(old))) == [
        ["start a.1"],
        ["start a.2"],
        ["replace a.0"],
        ["drain a.2"],
    ]


def test_independent_groups_roll_side_by_side() -> None:
    old = [group(name, 1) for name in "ab"]
    new = [group(name, 1, env={"A": "1"}) for name in "ab"]

    assert waves(planned(fleet(*new), running(*old))) == [
        ["start a.1", "start b.1"],
        ["replace a.0", "replace b.0"],
        ["drain a.1", "drain b.1"],
    ]


def test_a_new_broker_is_there_before_its_workers_are_replaced() -> None:
    recreate = RolloutPolicy("recreate", 0, 1)
    old = (group(BROKER_GROUP, 1, rollout=recreate), group("a", 1, depends_on=(BROKER_GROUP,)))
    new = (
        group(BROKER_GROUP, 1, env={"A": "1"}, rollout=recreate),
        group("a", 1, env={"A": "1"}, depends_on=(BROKER_GROUP,)),
    )

    assert waves(planned(fleet(*new), running(*old)))[:2] == [["replace fleet-broker.0"], ["start a.1"]]


def test_a_broker_that_is_not_wanted_any_more_goes_when_nobody_needs_it() -> None:
    old = (group(BROKER_GROUP, 1), group("a", 1), group("gone", 1))
    new = group("a", 1, env={"A": "1"})

    assert waves(planned(fleet(new), running(*old), prune=True))[-2:] == [
        ["drain a.1", "drain gone.0"],
        ["drain fleet-broker.0"],
    ]


def test_the_longest_time_is_the_slowest_step_of_every_wave() -> None:
    quick, slow = group("a", 1, ready_timeout_seconds=5.0), group("b", 1, ready_timeout_seconds=70.0)

    assert planned(fleet(quick, slow), Observed(FLEET)).worst_case_seconds == 70.0
    assert planned(fleet(quick), running(quick, slow), prune=True).worst_case_seconds == 60.0
    rolling = group("a", 1, env={"A": "1"}, ready_timeout_seconds=5.0)
    assert planned(fleet(rolling), running(quick)).worst_case_seconds == 5.0 + (60.0 + 5.0) + 60.0


def test_a_held_replica_counts_as_one_that_is_there() -> None:
    old, new = (group("a", 1, 1, env={"A": value}) for value in "12")
    todo = planned(fleet(new, drained=frozenset({"a.0"})), but(running(old), "a.0", held=True))

    assert waves(todo) == [["start a.2"], ["replace a.0"], ["replace a.1"], ["hold a.0"], ["drain a.2"]]
    assert todo.count(Action.HOLD) == 1


def test_stages_in_a_circle_are_a_mistake_of_the_program() -> None:
    one, other = Stage([]), Stage([])
    one.after, other.after = [other], [one]

    with pytest.raises(ValueError, match="circle"):
        list(scheduled([one, other]))
