"""Slots in use while replicas are replaced: ``peak: budget`` keeps them within the fleet's."""

from __future__ import annotations

from dataclasses import replace
from inspect import cleandoc

import pytest

from fleet.core.desired import Budgets, CanaryPolicy, Desired, RolloutPolicy
from fleet.core.plan import Plan
from fleet.core.planning import budget, plan_text
from fleet.errors import Refused
from tests.worlds import fleet, group, planned, running

BUDGET = RolloutPolicy(max_surge=1, max_unavailable=0, peak="budget")
SURGE = RolloutPolicy(max_surge=1, max_unavailable=0)


def two_versions(
    rollout: RolloutPolicy, *, slots: int, before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]
) -> Plan:
    """The plan from one version of these groups to the next."""
    old, new = (
        [group(name, *shape, pool="prefork", env={"A": version}, rollout=rollout) for name, shape in shapes.items()]
        for version, shapes in (("1", before), ("2", after))
    )
    desired = fleet(*new, budgets=Budgets(slots=slots))
    todo = planned(desired, running(*old))
    budget.check(desired, todo, running(*old))
    return todo


def shown(todo: Plan) -> str:
    """The lines of steps, and of the slots."""
    lines = plan_text.text(todo).splitlines()
    return "\n".join(line for line in lines if line.startswith(("+", "±", "-", "~", "slots")))


def golden(text: str) -> str:
    return cleandoc(text)


def test_a_surge_is_marked_where_it_is_above_the_limit() -> None:
    todo = two_versions(SURGE, slots=4, before={"a": (2, 2)}, after={"a": (2, 2)})

    assert shown(todo) == golden("""
        + a.2  start    spare while a rolls
        ± a.0  replace  env.A changed  (after a.2)
        ± a.1  replace  env.A changed  (after a.0)
        - a.2  drain    the spare is not needed any more  (after a.1)
        slots            4        6      4  ! 2 above the limit at peak
        """)
    assert plan_text.document(todo)["budgets"][0]["aboveAtPeak"] == 2


def test_without_room_an_old_one_leaves_first() -> None:
    todo = two_versions(BUDGET, slots=4, before={"a": (2, 2)}, after={"a": (2, 2)})

    assert shown(todo) == golden("""
        ± a.0  replace  env.A changed
        ± a.1  replace  env.A changed  (after a.0)
        slots            4        4      4
        """)


def test_with_room_a_spare_comes() -> None:
    todo = two_versions(BUDGET, slots=6, before={"a": (2, 2)}, after={"a": (2, 2)})

    assert shown(todo) == golden("""
        + a.2  start    spare while a rolls
        ± a.0  replace  env.A changed  (after a.2)
        ± a.1  replace  env.A changed  (after a.0)
        - a.2  drain    the spare is not needed any more  (after a.1)
        slots            4        6      6
        """)


def test_room_for_one_spare_goes_to_one_group() -> None:
    todo = two_versions(BUDGET, slots=6, before={"a": (2, 2), "b": (1,)}, after={"a": (2, 2), "b": (1,)})

    assert shown(todo) == golden("""
        ± a.0  replace  env.A changed
        + b.1  start    spare while b rolls
        ± a.1  replace  env.A changed  (after a.0)
        ± b.0  replace  env.A changed  (after b.1)
        - b.1  drain    the spare is not needed any more  (after b.0)
        slots            5        6      6
        """)


def test_slots_that_move_between_groups_are_given_up_first() -> None:
    todo = two_versions(
        BUDGET, slots=6, before={"a": (1, 1, 1, 1), "b": (1, 1)}, after={"a": (1, 1), "b": (1, 1, 1, 1)}
    )

    assert shown(todo) == golden("""
        - a.2  drain    scale down 4 -> 2
        - a.3  drain    scale down 4 -> 2
        ± a.0  replace  env.A changed  (after a.2, a.3)
        ± b.0  replace  env.A changed  (after a.2, a.3)
        ± a.1  replace  env.A changed  (after a.0)
        ± b.1  replace  env.A changed  (after b.0)
        + b.2  start    scale up 2 -> 4  (after a.1 … a.3, b.1)
        + b.3  start    scale up 2 -> 4  (after a.1 … a.3, b.1)
        slots            6        6      6
        """)


def test_a_group_of_a_new_shape_never_has_both() -> None:
    todo = two_versions(BUDGET, slots=4, before={"a": (1, 1, 1, 1)}, after={"a": (4,)})

    assert shown(todo) == golden("""
        - a.1  drain    scale down 4 -> 1
        - a.2  drain    scale down 4 -> 1
        - a.3  drain    scale down 4 -> 1
        ± a.0  replace  env.A changed, pool.concurrency 1 -> 4  (after a.1 … a.3)
        slots            4        4      4
        """)


def test_groups_that_wait_for_each_other_are_refused_with_the_sums() -> None:
    """Of two groups that depend on one another the first would have to come after the second has shrunk."""
    old = [group("a", 1, pool="prefork", rollout=BUDGET), group("b", 3, env={"A": "1"}, pool="prefork", rollout=BUDGET)]
    new = [
        group("a", 3, env={"A": "2"}, pool="prefork", rollout=BUDGET),
        group("b", 1, env={"A": "2"}, pool="prefork", rollout=BUDGET, depends_on=("a",)),
    ]
    desired = fleet(*new, budgets=Budgets(slots=4))
    todo = planned(desired, running(*old))

    with pytest.raises(Refused) as refused:
        budget.check(desired, todo, running(*old))

    assert refused.value.message == "slots: 6 of 4 at the rollout's peak (4 at rest), 2 too many (a 3, b 1)"
    assert refused.value.hint == "apply what gets smaller first, then the rest; or write rollout: {peak: surge}"


def test_a_fleet_above_its_budget_may_become_smaller() -> None:
    todo = two_versions(BUDGET, slots=2, before={"a": (1, 1, 1, 1)}, after={"a": (1, 1)})

    assert todo.usage[0].at_peak == 4


def test_what_is_kept_though_it_is_not_in_the_manifest_takes_room() -> None:
    wanted: Desired = fleet(group("new", 1, 1, rollout=BUDGET), budgets=Budgets(slots=2))
    seen = running(group("old", 1))

    with pytest.raises(Refused, match="slots: 3 of 2, 1 too many") as refused:
        budget.check(wanted, planned(wanted, seen), seen)
    assert "--prune" in refused.value.hint

    budget.check(wanted, planned(wanted, seen, prune=True), seen)


# --- growing shares, and whole sets


def test_a_canary_that_grows_replaces_one_share_after_another() -> None:
    steps = tuple(CanaryPolicy(replicas, number=number, of=2) for number, replicas in enumerate((1, 3), 1))
    rollout = RolloutPolicy(max_surge=0, max_unavailable=2, canary=steps[0], later_canaries=steps[1:])
    todo = two_versions(rollout, slots=6, before={"a": (1,) * 6}, after={"a": (1,) * 6})

    assert shown(todo) == golden("""
        ± a.0  replace  env.A changed
        ± a.1  replace  env.A changed  (after a.0)
        ± a.2  replace  env.A changed  (after a.1)
        ± a.3  replace  env.A changed  (after a.2)
        ± a.4  replace  env.A changed  (after a.2)
        ± a.5  replace  env.A changed  (after a.3, a.4)
        slots            6        6      6
        """)
    assert [step.replica for step in todo.changes if step.canary] == ["a.0", "a.2"]


def test_a_spare_is_part_of_the_first_share() -> None:
    steps = tuple(CanaryPolicy(replicas, number=number, of=2) for number, replicas in enumerate((1, 2), 1))
    rollout = RolloutPolicy(max_surge=1, max_unavailable=0, canary=steps[0], later_canaries=steps[1:])
    todo = two_versions(rollout, slots=9, before={"a": (1,) * 3}, after={"a": (1,) * 3})

    assert [(step.id, step.canary.number) for step in todo.changes if step.canary] == [
        ("start a.3", 1),
        ("replace a.0", 2),
    ]


WHOLE = RolloutPolicy(blue_green=CanaryPolicy(title="blue-green"))


def test_a_whole_new_set_comes_beside_the_old_one() -> None:
    todo = two_versions(WHOLE, slots=4, before={"a": (2, 2)}, after={"a": (2, 2)})

    assert shown(todo) == golden("""
        + a.2  start  env.A changed: beside a.0, which leaves once the new set is judged
        + a.3  start  env.A changed: beside a.1, which leaves once the new set is judged  (after a.2)
        - a.0  drain  the new set has taken over  (after a.3)
        - a.1  drain  the new set has taken over  (after a.3)
        slots            4        8      4  ! 4 above the limit at peak
        """)


def test_two_sets_that_share_the_room_come_one_after_another() -> None:
    whole = replace(WHOLE, peak="budget")
    todo = two_versions(whole, slots=5, before={"a": (2,), "b": (1,)}, after={"a": (2,), "b": (1,)})

    assert shown(todo) == golden("""
        + a.1  start  env.A changed: beside a.0, which leaves once the new set is judged
        - a.0  drain  the new set has taken over  (after a.1)
        + b.1  start  env.A changed: beside b.0, which leaves once the new set is judged  (after a.0, a.1)
        - b.0  drain  the new set has taken over  (after b.1)
        slots            3        5      5
        """)


def test_a_second_set_without_room_is_refused() -> None:
    with pytest.raises(Refused, match="slots: 4 of 3 at the rollout's peak") as refused:
        two_versions(replace(WHOLE, peak="budget"), slots=3, before={"a": (1, 1)}, after={"a": (1, 1)})

    assert "peak: surge" in refused.value.hint
