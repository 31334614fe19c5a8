"""What one group goes through in a plan, stage after stage, so that it keeps working while it is replaced.

1. what is not there comes: new replicas, and outdated ones that do no work at the moment anyway; what is just
   starting gets ready;
2. spares, as far as ``maxSurge`` goes and replicas that leave later cannot stand in for them;
3. the outdated ones that work, so many at a time that never more than ``maxUnavailable`` are missing;
4. those that get more slots;
5. what is not wanted any more leaves, spares too.

What gives up slots waits for nothing, and what gets more waits for all of them: so the ceilings hold all the way.
Other settings are changed with the first stage. Nothing of this is missed, so none of it needs a spare.

With the strategy ``recreate`` everything that is outdated stops before anything starts. A group that keeps to the
fleet's slots (``peak: budget``) has no more spares than the order of the plan grants it, and where slots are short it
goes through the stages of :mod:`fleet.core.planning.less_first`. With ``blueGreen`` all new replicas come beside the
old ones, which leave at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fleet.core.desired import Desired, DesiredGroup, Replica, split_name
from fleet.core.observed import Observed
from fleet.core.plan import Action, Plan, Step
from fleet.core.planning.assignment import Variants, free_indices
from fleet.core.planning.blue_green import beside_the_old, is_blue_green, judged_last
from fleet.core.planning.canaries import parted
from fleet.core.planning.less_first import LessFirst, less_first
from fleet.core.planning.step_kinds import CYCLES, HOLDS, LEAVES, runs, works
from fleet.core.planning.waves import Stage, chained


@dataclass(frozen=True, slots=True)
class Order:
    """What comes before what, where groups share ceilings.

    room_first: what leaves makes room before anything comes.  less_first: of groups that keep to the fleet's slots,
    what gives up slots goes before what takes more.  spares: the most of a group; one that is left out has as many as
    its policy says.
    """

    room_first: bool = False
    less_first: bool = False
    spares: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class GroupStages:
    """The stages of one group: ``up`` one after another, then ``down``.

    shrink: replicas give up slots, whenever they like.  grow: the one of ``up`` that needs slots others gave up.
    leaves_first: ``down`` comes before ``up``.  less, more: where it does, the last of ``up`` that gives up slots and
    the first that takes more.  alone: it needs the slots of two sets meanwhile.
    """

    name: str
    up: list[Stage]
    down: Stage | None
    orphan: bool = False
    shrink: Stage | None = None
    grow: Stage | None = None
    leaves_first: bool = False
    less: Stage | None = None
    more: Stage | None = None
    alone: bool = False

    @property
    def makes_room(self) -> bool:
        """It can leave before anything comes."""
        return self.down is not None and (self.leaves_first or not self.up)


def stages_of(plan: Plan, desired: Desired, observed: Observed, order: Order) -> dict[str, GroupStages]:
    """The stages of every group, by name."""
    steps: dict[str, list[Step]] = {}
    for step in plan.steps:
        if step.action is not Action.REAP:
            steps.setdefault(split_name(step.replica)[0], []).append(step)
    names = sorted(desired.groups.keys() | steps.keys())
    return {name: _staged(name, steps.get(name, []), desired, observed, order) for name in names}


def _staged(name: str, steps: Sequence[Step], desired: Desired, observed: Observed, order: Order) -> GroupStages:
    group = desired.groups.get(name)
    if group is None:
        gone = [step for step in steps if step.action in LEAVES]
        return GroupStages(name, [], Stage(gone) if gone else None, orphan=True)
    resizes = [step for step in steps if step.action is Action.RESIZE and works(step, observed)]
    shrinks = [step for step in resizes if _extra_slots(step, observed) < 0]
    grows = [step for step in resizes if _extra_slots(step, observed) > 0]
    blue_green = group.rollout.blue_green if is_blue_green(group, steps, observed) else None
    if blue_green is not None:
        steps = beside_the_old(group, steps, desired, observed)
    recreate = group.rollout.strategy == "recreate" and any(step.action is Action.REPLACE for step in steps)
    at_once = [step for step in steps if step.action in HOLDS and not step.after]
    at_once += [step for step in steps if step.action is Action.RESIZE and step not in (*shrinks, *grows)]
    afterwards = [step for step in steps if step.action in HOLDS and step.after]
    shrink = Stage(shrinks) if shrinks else None
    if order.less_first and group.rollout.keeps_budget and blue_green is None:
        parts = _recreated_less_first(steps, observed) if recreate else _less_first(group, steps, desired, observed)
        return _in_parts(name, parts, shrink, grows, [at_once, afterwards])
    if blue_green is not None:
        ups, downs = judged_last(blue_green, steps, awaited=_all_awaited(group, steps, observed))
    else:
        ups, downs = _recreated(steps, observed) if recreate else _rolled(group, steps, observed, order)
    up = chained([[*ups[0], *at_once], *ups[1:], grows, afterwards])
    grow = next((stage for stage in up if stage.steps == grows), None) if grows else None
    down = Stage(downs, up[-1:]) if downs else None
    return GroupStages(name, up, down, shrink=shrink, grow=grow, alone=blue_green is not None)


def _in_parts(
    name: str, parts: LessFirst, shrink: Stage | None, grows: list[Step], others: Sequence[list[Step]]
) -> GroupStages:
    """``others``: what changes no slots, with the first stage and with the last."""
    at_once, afterwards = others
    less = [stage for stage in [[*parts.less[0], *at_once], *parts.less[1:]] if stage]
    more = [stage for stage in [*parts.more, grows] if stage]
    up = chained([*less, *more, afterwards])
    return GroupStages(
        name,
        up,
        Stage(parts.downs) if parts.downs else None,
        shrink=shrink,
        leaves_first=True,
        less=up[len(less) - 1] if less else None,
        more=up[len(less)] if more else None,
    )


def _recreated_less_first(steps: Sequence[Step], observed: Observed) -> LessFirst:
    (stops, *starts), downs = _recreated(steps, observed)
    return LessFirst(downs, [stops], starts)


def _less_first(group: DesiredGroup, steps: Sequence[Step], desired: Desired, observed: Observed) -> LessFirst:
    return less_first(group, steps, desired, observed, awaited=_all_awaited(group, steps, observed))


def _extra_slots(step: Step, observed: Observed) -> int:
    """How many more slots the replica will have."""
    seen = observed.replicas[step.replica]
    return 0 if step.target is None else step.target.spec.pool.concurrency - max(seen.slots, seen.target_slots)


def _recreated(steps: Sequence[Step], observed: Observed) -> tuple[list[list[Step]], list[Step]]:
    """All stop, then all start: never two versions at once. One replica alone is simply replaced."""
    cycles = [step for step in steps if step.action in CYCLES]
    starts = [step for step in steps if step.action is Action.START]
    downs = [step for step in steps if step.action in LEAVES]
    if len(cycles) == 1 and not starts and not downs:
        return [cycles], []
    stops = [replace(step, action=Action.DRAIN, target=None) for step in cycles if runs(step, observed)]
    again = [replace(step, action=Action.START) if runs(step, observed) else step for step in cycles]
    return [[*stops, *downs], [*starts, *again]], []


def _rolled(
    group: DesiredGroup, steps: Sequence[Step], observed: Observed, order: Order
) -> tuple[list[list[Step]], list[Step]]:
    """New ones, spares, batches; and what leaves at the end. Replicas that leave and work stand in for spares."""
    working = [step for step in steps if step.action in CYCLES and works(step, observed)]
    first = [step for step in steps if step.action in CYCLES and not works(step, observed)]
    first += [step for step in steps if step.action is Action.START]
    downs = [step for step in steps if step.action in LEAVES]
    useful = [step for step in downs if works(step, observed)]
    if working or useful:
        first += _all_awaited(group, steps, observed)
    if not working:
        return [first], downs
    idle = [step for step in downs if not works(step, observed)]
    surge = min(group.rollout.max_surge, order.spares.get(group.name, len(working)), len(working))
    spares = _spares(group, steps, observed, count=surge - len(useful))
    at_once = max(1, len(useful) + len(spares) + group.rollout.max_unavailable)
    fresh = sum(step.action in {Action.KEEP, Action.RESIZE} for step in steps)
    canaries = parted(group.rollout, working, spares=spares, fresh=fresh, at_once=at_once)
    rest = [canaries.rest[start : start + at_once] for start in range(0, len(canaries.rest), at_once)]
    gone = [*useful, *(_spare_leaves(spare) for spare in spares)]
    return [[*first, *idle], *canaries.spares, *canaries.batches, *rest], gone


def _all_awaited(group: DesiredGroup, steps: Sequence[Step], observed: Observed) -> list[Step]:
    return [_awaited(step, group) for step in steps if step.action is Action.KEEP and not works(step, observed)]


def _awaited(kept: Step, group: DesiredGroup) -> Step:
    """A replica that starts at this moment, often the spare of a rollout cut short: the others wait until it is ready.

    Starting what runs already is no more than waiting for it.
    """
    return replace(kept, action=Action.START, reason=f"is starting: the rest of {group.name} waits for it")


def _spares(group: DesiredGroup, steps: Sequence[Step], observed: Observed, *, count: int) -> list[Step]:
    if count <= 0:
        return []
    taken = {split_name(step.replica)[1] for step in steps}
    taken |= {replica.index for replica in observed.replicas.values() if replica.group == group.name}
    indices, variants = free_indices(taken, first=group.first_index), Variants(group)
    return [_spare(group, variants.replica(next(indices), max(group.shape))) for _ in range(count)]


def _spare(group: DesiredGroup, target: Replica) -> Step:
    return Step(
        Action.START,
        target.name,
        f"spare while {group.name} rolls",
        target=target,
        grace_seconds=target.spec.drain_timeout_seconds,
        ready_timeout_seconds=group.ready_timeout_seconds,
        min_ready_seconds=group.rollout.min_ready_seconds,
        deadline_seconds=group.rollout.deadline_seconds,
    )


def _spare_leaves(spare: Step) -> Step:
    return replace(spare, action=Action.DRAIN, reason="the spare is not needed any more", target=None)
