"""A group whose whole new set comes up beside the old one: the old one leaves once the new one was judged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fleet.core.desired import CanaryPolicy, Desired, DesiredGroup, group_of, is_replica, split_name
from fleet.core.observed import Observed
from fleet.core.plan import Action, Step
from fleet.core.planning.assignment import Variants, free_indices
from fleet.core.planning.canaries import judged_by
from fleet.core.planning.step_kinds import CYCLES, LEAVES, runs, works

_THERE = frozenset({Action.KEEP, Action.RESIZE, Action.HOLD, Action.RELEASE})


def is_blue_green(group: DesiredGroup, steps: Sequence[Step], observed: Observed) -> bool:
    """Whether a replica of an older revision works, in a group that is to be replaced as a whole."""
    wanted = Variants(group).digest_of.values() if group.rollout.blue_green is not None else ()
    return bool(wanted) and any(
        step.action in {Action.REPLACE, *LEAVES}
        and works(step, observed)
        and observed.replicas[step.replica].digest not in wanted
        for step in steps
    )


def beside_the_old(group: DesiredGroup, steps: Sequence[Step], desired: Desired, observed: Observed) -> list[Step]:
    """The steps of a group, those apart that replace a running replica: a new one starts under a free index, and the
    old one drains.

    A hold of the whole group goes over to the new ones; one of a single replica ends with it, and no new one gets its
    name.
    """
    taken = {split_name(step.replica)[1] for step in steps}
    taken |= {replica.index for replica in observed.replicas.values() if replica.group == group.name}
    taken |= {split_name(name)[1] for name in desired.drained if is_replica(name) and group_of(name) == group.name}
    indices, names, found = free_indices(taken, first=group.first_index), {}, []
    for step in steps:
        if step.action is Action.REPLACE and runs(step, observed) and step.target is not None:
            target = replace(step.target, index=next(indices))
            names[step.replica] = target.name
            why = f"{step.reason}: beside {step.replica}, which leaves once the new set is judged"
            found.append(replace(step, action=Action.START, replica=target.name, target=target, reason=why))
            found.append(replace(step, action=Action.DRAIN, target=None, reason="the new set has taken over"))
        else:
            found.append(step)
    return [one for step in found for one in _held_again(step, names, whole=group.name in desired.drained)]


def _held_again(step: Step, names: dict[str, str], *, whole: bool) -> Iterator[Step]:
    if step.action is not Action.HOLD or step.replica not in names:
        yield step
    elif whole:
        name = names[step.replica]
        yield replace(step, replica=name, after=(f"{Action.START} {name}",))


def judged_last(
    policy: CanaryPolicy, steps: Sequence[Step], *, awaited: Sequence[Step]
) -> tuple[list[list[Step]], list[Step]]:
    """All that comes, then the one that is judged, alone, so that the others are ready by then; and what leaves.

    Where the new set is there already, from a rollout that was cut short, one of it is judged again.
    """
    coming = [step for step in steps if step.action in CYCLES or step.action is Action.START] + list(awaited)
    new = next((step for step in reversed(coming) if step.action is Action.START), None)
    if new is None:
        kept = next((step for step in steps if step.action in _THERE), None)
        why = "the new set is there, and is judged"
        new = kept and replace(kept, action=Action.START, reason=why, after=())
    downs = [step for step in steps if step.action in LEAVES]
    return [[step for step in coming if step is not new], [judged_by(new, [policy])] if new else []], downs
