"""What one group goes through in a plan, stage after stage, so that it keeps working while it is replaced.

1. what is not there comes: new replicas, and outdated ones that do no work at the moment anyway; what is just
   starting gets ready;
2. spares, as far as ``maxSurge`` goes and replicas that leave later cannot stand in for them;
3. the outdated ones that work, so many at a time that never more than ``maxUnavailable`` are missing;
4. those that get more slots;
5. what is not wanted any more leaves, spares too.

What gives up slots waits for nothing, and what gets more waits for all of them: so the ceilings hold all the way.
Other settings are changed with the first stage. Nothing of this is missed, so none of it needs a spare.

With the strategy ``recreate`` everything that is outdated stops before anything starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fleet.core.desired import Desired, DesiredGroup, Replica, split_name
from fleet.core.observed import Observed, State
from fleet.core.plan import Action, Plan, Step
from fleet.core.planning.assignment import Variants, free_indices
from fleet.core.planning.waves import Stage, chained

CYCLES = frozenset({Action.REPLACE, Action.RESTART})
LEAVES = frozenset({Action.DRAIN, Action.STOP, Action.FORGET})
HOLDS = frozenset({Action.HOLD, Action.RELEASE})


@dataclass(slots=True)
class GroupStages:
    """The stages of one group: ``up`` one after another, then ``down``.

    shrink: replicas give up slots, whenever they like.  grow: the one of ``up`` that needs slots others gave up.
    """

    name: str
    up: list[Stage]
    down: Stage | None
    orphan: bool = False
    shrink: Stage | None = None
    grow: Stage | None = None

    @property
    def only_leaves(self) -> bool:
        return self.down is not None and not self.up


def stages_of(plan: Plan, desired: Desired, observed: Observed) -> dict[str, GroupStages]:
    """The stages of every group, by name."""
    steps: dict[str, list[Step]] = {}
    for step in plan.steps:
        if step.action is not Action.REAP:
            steps.setdefault(split_name(step.replica)[0], []).append(step)
    names = sorted(desired.groups.keys() | steps.keys())
    return {name: _staged(name, steps.get(name, []), desired.groups.get(name), observed) for name in names}


def _staged(name: str, steps: Sequence[Step], group: DesiredGroup | None, observed: Observed) -> GroupStages:
    if group is None:
        gone = [step for step in steps if step.action in LEAVES]
        return GroupStages(name, [], Stage(gone) if gone else None, orphan=True)
    resizes = [step for step in steps if step.action is Action.RESIZE and _works(step, observed)]
    shrinks = [step for step in resizes if _extra_slots(step, observed) < 0]
    grows = [step for step in resizes if _extra_slots(step, observed) > 0]
    recreate = group.rollout.strategy == "recreate" and any(step.action is Action.REPLACE for step in steps)
    ups, downs = _recreated(steps, observed) if recreate else _rolled(group, steps, observed)
    at_once = [step for step in steps if step.action in HOLDS and not step.after]
    at_once += [step for step in steps if step.action is Action.RESIZE and step not in (*shrinks, *grows)]
    afterwards = [step for step in steps if step.action in HOLDS and step.after]
    up = chained([[*ups[0], *at_once], *ups[1:], grows, afterwards])
    return GroupStages(
        name,
        up,
        Stage(downs, up[-1:]) if downs else None,
        shrink=Stage(shrinks) if shrinks else None,
        grow=next((stage for stage in up if stage.steps == grows), None) if grows else None,
    )


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
    stops = [replace(step, action=Action.DRAIN, target=None) for step in cycles if _runs(step, observed)]
    again = [replace(step, action=Action.START) if _runs(step, observed) else step for step in cycles]
    return [[*stops, *downs], [*starts, *again]], []


def _rolled(group: DesiredGroup, steps: Sequence[Step], observed: Observed) -> tuple[list[list[Step]], list[Step]]:
    """New ones, spares, batches; and what leaves at the end. Replicas that leave and work stand in for spares."""
    working = [step for step in steps if step.action in CYCLES and _works(step, observed)]
    first = [step for step in steps if step.action in CYCLES and not _works(step, observed)]
    first += [step for step in steps if step.action is Action.START]
    downs = [step for step in steps if step.action in LEAVES]
    useful = [step for step in downs if _works(step, observed)]
    if working or useful:
        first += [_awaited(step, group) for step in steps if step.action is Action.KEEP and not _works(step, observed)]
    if not working:
        return [first], downs
    idle = [step for step in downs if not _works(step, observed)]
    spares = _spares(group, steps, observed, count=min(group.rollout.max_surge, len(working)) - len(useful))
    at_once = max(1, len(useful) + len(spares) + group.rollout.max_unavailable)
    spares, canaries, rest = _canaries(group, spares, working)
    batches = [part[start : start + at_once] for part in (canaries, rest) for start in range(0, len(part), at_once)]
    return [[*first, *idle], spares, *batches], [*useful, *(_spare_leaves(spare) for spare in spares)]


def _canaries(
    group: DesiredGroup, spares: list[Step], working: list[Step]
) -> tuple[list[Step], list[Step], list[Step]]:
    """Spares; those of the working ones that get the new revision first, to be judged by the last of them; the rest.

    At least one old replica stays to be compared with; where there is only one, its spare is judged.
    """
    policy = group.rollout.canary
    replaced = [step for step in working if step.action is Action.REPLACE]
    if policy is None or not replaced:
        return spares, [], working
    first = replaced[: min(policy.replicas, len(working) - 1)]
    if not first:
        return [replace(spare, canary=policy) for spare in spares[:1]] + spares[1:], [], working
    return spares, [*first[:-1], replace(first[-1], canary=policy)], [step for step in working if step not in first]


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
    indices, variants = free_indices(taken), Variants(group)
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
    return replace(spare, action=Action.DRAIN, reason="the spare is not needed any more", target=None, canary=None)


def _works(step: Step, observed: Observed) -> bool:
    """The replica does its work now (or is only held), so that stopping it is missed."""
    seen = observed.replicas.get(step.replica)
    return seen is not None and seen.running and not seen.trouble and (seen.state is State.READY or seen.held)


def _runs(step: Step, observed: Observed) -> bool:
    seen = observed.replicas.get(step.replica)
    return seen is not None and seen.running
