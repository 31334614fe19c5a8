"""Puts the steps of a plan in waves, so that a group keeps working while it is replaced.

Steps of one wave may run together and waves run in order; a step's ``after`` names what it waits for, always in an
earlier wave. What each group goes through is said in :mod:`fleet.core.stages`.

A group begins when the groups it depends on are up, and goes before they go; the embedded broker is first and last.
What is not in the manifest leaves after everything came, unless the ceilings of the fleet hold only the other way
round: then what leaves makes room first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from fleet.core import budget
from fleet.core.desired import BROKER_GROUP, Desired, split_name
from fleet.core.observed import Observed
from fleet.core.plan import Action, Plan, Step
from fleet.core.stages import CYCLES, GroupStages, stages_of
from fleet.core.waves import Stage, scheduled


def in_waves(plan: Plan, desired: Desired, observed: Observed) -> Plan:
    """The plan with spares, waves, what each step waits for, its budgets and its longest duration."""
    usual = _arranged(plan, desired, observed, room_first=False)
    if budget.excess(usual.usage) == 0:
        return usual
    other = _arranged(plan, desired, observed, room_first=True)
    return other if budget.excess(other.usage) < budget.excess(usual.usage) else usual


def worst_case_seconds(steps: Iterable[Step]) -> float:
    """The longest a plan may take: in each wave its slowest step."""
    waves: dict[int, float] = {}
    for step in steps:
        waves[step.wave] = max(waves.get(step.wave, 0.0), _longest_seconds(step))
    return sum(waves.values())


def _longest_seconds(step: Step) -> float:
    if step.action is Action.START:
        return step.ready_timeout_seconds
    if step.action in CYCLES or step.action is Action.RESIZE:
        return step.grace_seconds + step.ready_timeout_seconds
    return step.grace_seconds if step.action in {Action.DRAIN, Action.STOP, Action.REAP} else 0.0


def _arranged(plan: Plan, desired: Desired, observed: Observed, *, room_first: bool) -> Plan:
    groups = stages_of(plan, desired, observed)
    stages = _linked(groups, desired, _reaps(plan), room_first=room_first)
    changed = list(scheduled(stages))
    named = {step.replica for step in changed if step.action is not Action.REAP}
    kept = [step for step in plan.steps if step.action is Action.KEEP and step.replica not in named]
    steps = tuple(sorted([*kept, *changed], key=_order))
    arranged = replace(plan, steps=steps)
    return replace(
        arranged, usage=budget.usage(desired, arranged, observed), worst_case_seconds=worst_case_seconds(steps)
    )


def _order(step: Step) -> tuple[int, str, int, str, int]:
    group, index = _identity(step.replica)
    return step.wave, group, index, step.action, step.pid or 0


def _identity(name: str) -> tuple[str, int]:
    """Group and index; a stray may carry any name."""
    try:
        return split_name(name)
    except ValueError:
        return name, -1


def _reaps(plan: Plan) -> list[Step]:
    return [step for step in plan.steps if step.action is Action.REAP]


def _linked(
    groups: Mapping[str, GroupStages], desired: Desired, reaps: Sequence[Step], *, room_first: bool
) -> list[Stage]:
    """All stages, linked: strays before their replicas, dependencies up first and down last, room first if need be."""
    _up_after_dependencies(groups, desired)
    strays = _before_their_replicas(groups, reaps)
    shrinks = [group.shrink for group in groups.values() if group.shrink is not None]
    _all_after((group.grow for group in groups.values() if group.grow is not None), shrinks)
    leaving = [group for group in groups.values() if group.only_leaves and group.name != BROKER_GROUP]
    if room_first:
        rooms = [*shrinks, *(group.down for group in leaving if group.down is not None)]
        _all_after([group.up[0] for group in groups.values() if group.up], rooms)
    else:
        ups = [group.up[-1] for group in groups.values() if group.up]
        _all_after([group.down for group in groups.values() if group.orphan and group.down is not None], ups)
    _down_before_dependencies(leaving if room_first else list(groups.values()), groups, desired)
    _broker_last(groups)
    every = (stage for group in groups.values() for stage in (group.shrink, *group.up, group.down))
    return [*strays, *(stage for stage in every if stage is not None)]


def _up_after_dependencies(groups: Mapping[str, GroupStages], desired: Desired) -> None:
    for group in groups.values():
        if group.up:
            _all_after(group.up[:1], _last_up(group.name, groups, desired, frozenset({group.name})))


def _last_up(name: str, groups: Mapping[str, GroupStages], desired: Desired, path: frozenset[str]) -> list[Stage]:
    """The last upward stages of everything this group depends on, through groups with nothing to do."""
    found: list[Stage] = []
    wanted = desired.groups.get(name)
    for other in wanted.depends_on if wanted is not None else ():
        if other in path or other not in groups:
            continue
        up = groups[other].up
        found += up[-1:] if up else _last_up(other, groups, desired, path | {other})
    return found


def _before_their_replicas(groups: Mapping[str, GroupStages], reaps: Sequence[Step]) -> list[Stage]:
    stages: dict[str, Stage] = {}
    for step in reaps:
        stages.setdefault(_identity(step.replica)[0], Stage([])).steps.append(step)
    for name, stage in stages.items():
        if name in groups:
            _all_after(groups[name].up[:1], [stage])
    return list(stages.values())


def _down_before_dependencies(
    candidates: Sequence[GroupStages], groups: Mapping[str, GroupStages], desired: Desired
) -> None:
    among = {group.name for group in candidates}
    for group in candidates:
        wanted = desired.groups.get(group.name)
        for other in wanted.depends_on if wanted is not None and group.down is not None else ():
            below = groups[other].down if other in among else None
            if below is not None and group.down is not None:
                _all_after([below], [group.down])


def _broker_last(groups: Mapping[str, GroupStages]) -> None:
    """Workers hand back and acknowledge while they drain: the broker goes when everything else is done."""
    broker = groups.get(BROKER_GROUP)
    if broker is None or broker.down is None:
        return
    others = [group for group in groups.values() if group is not broker]
    ends = (stage for group in others for stage in (group.shrink, *group.up[-1:], group.down))
    _all_after([broker.down], [stage for stage in ends if stage is not None])


def _all_after(stages: Iterable[Stage], before: Sequence[Stage]) -> None:
    for stage in stages:
        stage.after = [*stage.after, *(other for other in before if other not in stage.after)]
