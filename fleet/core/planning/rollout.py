"""Puts the steps of a plan in waves, so that a group keeps working while it is replaced.

Steps of one wave may run together and waves run in order; a step's ``after`` names what it waits for, always in an
earlier wave. What each group goes through is said in :mod:`fleet.core.planning.stages`.

A group begins when the groups it depends on are up, and goes before they go; the embedded broker is first and last.
What is not in the manifest leaves after everything came, unless the ceilings of the fleet hold only the other way
round: then what leaves makes room first. Where groups are to keep to the fleet's slots meanwhile, the first order that
does so is taken, and spares come as far as the slots that are left over go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from fleet.core.desired import BROKER_GROUP, Desired, DesiredGroup, group_of, split_name
from fleet.core.observed import Observed
from fleet.core.plan import Action, Plan, Step
from fleet.core.planning import budget
from fleet.core.planning.stages import GroupStages, Order, stages_of
from fleet.core.planning.step_kinds import CYCLES
from fleet.core.planning.waves import Stage, scheduled

Wait = tuple[Stage, Sequence[Stage]]
"""A stage, and stages that must be done before it begins."""


def in_waves(plan: Plan, desired: Desired, observed: Observed) -> Plan:
    """The plan with spares, waves, what each step waits for, its budgets and its longest duration."""
    usual = _arranged(plan, desired, observed, Order())
    if budget.excess(usual.usage) == 0:
        return usual
    careful = [name for name, group in sorted(desired.groups.items()) if group.rollout.keeps_budget]
    if not careful:
        other = _arranged(plan, desired, observed, Order(room_first=True))
        return _least_excess(usual, other)
    none = dict.fromkeys(careful, 0)
    orders = (
        Order(spares=none),
        Order(room_first=True, spares=none),
        Order(room_first=True, less_first=True, spares=none),
    )
    plans = [_arranged(plan, desired, observed, order) for order in orders]
    best = _least_excess(*plans)
    order = orders[plans.index(best)]
    spares = _granted(best, [desired.groups[name] for name in careful])
    return _least_excess(_arranged(plan, desired, observed, replace(order, spares=spares)), best)


def _least_excess(*plans: Plan) -> Plan:
    """The first of those that break the ceilings least."""
    return min(plans, key=lambda plan: budget.excess(plan.usage))


def _granted(plan: Plan, groups: Iterable[DesiredGroup]) -> dict[str, int]:
    """How many spares of each of these groups the slots have room for that a plan without them leaves over."""
    room = next((used.limit - used.at_peak for used in plan.usage if used.limit and used.name == budget.SLOTS), 0)
    rolling = {group_of(step.replica) for step in plan.changes if step.action in CYCLES}
    spares = {}
    for group in groups:
        size = budget.cost(group, group.spec, max(group.shape, default=0))[budget.SLOTS]
        most = group.rollout.max_surge if group.name in rolling else 0
        spares[group.name] = max(0, min(most, room // size)) if size else most
        room -= spares[group.name] * size
    return spares


def worst_case_seconds(steps: Iterable[Step]) -> float:
    """The longest a plan may take: in each wave its slowest step."""
    waves: dict[int, float] = {}
    for step in steps:
        waves[step.wave] = max(waves.get(step.wave, 0.0), _longest_seconds(step))
    return sum(waves.values())


def _longest_seconds(step: Step) -> float:
    if step.action is Action.START:
        return step.ready_timeout_seconds + step.longest_watched_seconds
    if step.action in CYCLES:
        return step.grace_seconds + step.ready_timeout_seconds + step.longest_watched_seconds
    if step.action is Action.RESIZE:
        return step.grace_seconds + step.ready_timeout_seconds
    return step.grace_seconds if step.action in {Action.DRAIN, Action.STOP, Action.REAP} else 0.0


def _arranged(plan: Plan, desired: Desired, observed: Observed, order: Order) -> Plan:
    groups = stages_of(plan, desired, observed, order)
    stages = _linked(groups, desired, _reaps(plan), room_first=order.room_first)
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
    """All stages, each knowing what it waits for. Every rule names its own waits, and none reads another's."""
    strays = _stray_stages(reaps)
    leaving = [group for group in groups.values() if group.makes_room and group.name != BROKER_GROUP]
    _apply(
        *_up_after_dependencies(groups, desired),
        *_up_after_strays(groups, strays),
        *_grow_after_shrinks(groups),
        *_more_after_less(groups, desired),
        *(_up_after_leaving(groups, leaving) if room_first else _orphans_down_after_ups(groups)),
        *(_one_after_another(groups, desired) if room_first else ()),
        *_dependencies_down_after(leaving if room_first else list(groups.values()), groups, desired),
        *_broker_down_after_all(groups),
    )
    every = (stage for group in groups.values() for stage in (group.shrink, *group.up, group.down))
    return [*strays.values(), *(stage for stage in every if stage is not None)]


def _apply(*waits: Wait) -> None:
    for stage, others in waits:
        stage.after = [*stage.after, *(other for other in others if other not in stage.after)]


def _up_after_dependencies(groups: Mapping[str, GroupStages], desired: Desired) -> Iterator[Wait]:
    for group in groups.values():
        if group.up:
            yield group.up[0], _last_up(group.name, groups, desired, frozenset({group.name}))


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


def _stray_stages(reaps: Sequence[Step]) -> dict[str, Stage]:
    """One stage per group that has strays, by its name."""
    stages: dict[str, Stage] = {}
    for step in reaps:
        stages.setdefault(_identity(step.replica)[0], Stage([])).steps.append(step)
    return stages


def _up_after_strays(groups: Mapping[str, GroupStages], strays: Mapping[str, Stage]) -> Iterator[Wait]:
    for name, stage in strays.items():
        if name in groups and groups[name].up:
            yield groups[name].up[0], [stage]


def _grow_after_shrinks(groups: Mapping[str, GroupStages]) -> Iterator[Wait]:
    """Slots are given up before others take them: together they never pass the budget."""
    shrinks = _present(group.shrink for group in groups.values())
    for grow in _present(group.grow for group in groups.values()):
        yield grow, shrinks


def _more_after_less(groups: Mapping[str, GroupStages], desired: Desired) -> Iterator[Wait]:
    """Of groups that keep to the slots: what takes more waits for all that gives up some, but for what comes only
    after it."""
    for group in groups.values():
        if group.more is None:
            continue
        others = [
            one
            for one in groups.values()
            if one is not group and one.name != BROKER_GROUP and not _depends(one.name, group.name, desired)
        ]
        yield group.more, _present(stage for one in others for stage in (one.less, one.down))


def _depends(name: str, other: str, desired: Desired) -> bool:
    """Whether a group depends on another, through others too."""
    seen, todo = {name}, [name]
    while todo:
        wanted = desired.groups.get(todo.pop())
        new = set(wanted.depends_on if wanted is not None else ()) - seen
        if other in new:
            return True
        seen |= new
        todo += new
    return False


def _orphans_down_after_ups(groups: Mapping[str, GroupStages]) -> Iterator[Wait]:
    """What is not in the manifest leaves after everything came."""
    ups = [group.up[-1] for group in groups.values() if group.up]
    for group in groups.values():
        if group.orphan and group.down is not None:
            yield group.down, ups


def _up_after_leaving(groups: Mapping[str, GroupStages], leaving: Sequence[GroupStages]) -> Iterator[Wait]:
    """What leaves or shrinks makes room before anything comes."""
    rooms = _present([*(group.shrink for group in groups.values()), *(group.down for group in leaving)])
    for group in groups.values():
        if group.up:
            yield group.up[0], rooms


def _one_after_another(groups: Mapping[str, GroupStages], desired: Desired) -> Iterator[Wait]:
    """Groups that need the slots of two sets, and keep to the fleet's, share the room for the second."""
    alone = [one for name, one in groups.items() if one.alone and desired.groups[name].rollout.keeps_budget]
    for before, after in pairwise(alone):
        related = _depends(before.name, after.name, desired) or _depends(after.name, before.name, desired)
        if after.up and not related:
            yield after.up[0], _present([*before.up[-1:], before.down])


def _dependencies_down_after(
    candidates: Sequence[GroupStages], groups: Mapping[str, GroupStages], desired: Desired
) -> Iterator[Wait]:
    """A group goes before the groups that it depends on."""
    among = {group.name for group in candidates}
    for group in candidates:
        wanted = desired.groups.get(group.name)
        if wanted is None or group.down is None:
            continue
        for other in wanted.depends_on:
            below = groups[other].down if other in among else None
            if below is not None:
                yield below, [group.down]


def _broker_down_after_all(groups: Mapping[str, GroupStages]) -> Iterator[Wait]:
    """Workers hand back and acknowledge while they drain: the broker goes when everything else is done."""
    broker = groups.get(BROKER_GROUP)
    if broker is None or broker.down is None:
        return
    others = [group for group in groups.values() if group is not broker]
    yield broker.down, _present(stage for group in others for stage in (group.shrink, *group.up[-1:], group.down))


def _present(stages: Iterable[Stage | None]) -> list[Stage]:
    return [stage for stage in stages if stage is not None]
