"""The stages of a group that keeps to the fleet's slots when they are short: what gives up slots goes before what
takes more, and nothing stands in for what is replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fleet.core.desired import Desired, DesiredGroup
from fleet.core.observed import Observed
from fleet.core.plan import Action, Step
from fleet.core.planning.budget import slots_added
from fleet.core.planning.canaries import parted
from fleet.core.planning.step_kinds import CYCLES, LEAVES, works


@dataclass(frozen=True, slots=True)
class LessFirst:
    """downs: what leaves, before anything else.  less: stages that take no more slots than before.  more: stages that
    do."""

    downs: list[Step]
    less: list[list[Step]]
    more: list[list[Step]]


def less_first(
    group: DesiredGroup, steps: Sequence[Step], desired: Desired, observed: Observed, *, awaited: Sequence[Step] = ()
) -> LessFirst:
    """The steps of a group that rolls, by what they do to its slots. ``awaited``: are ready before the rest begins."""
    takes = {step.id for step in steps if slots_added(desired, step, observed) > 0}
    cycles = [step for step in steps if step.action in CYCLES]
    idle = [step for step in cycles if not works(step, observed)]
    working = [step for step in cycles if works(step, observed)]
    same, larger = ([step for step in working if (step.id in takes) is more] for more in (False, True))
    at_once = max(1, group.rollout.max_unavailable)
    fresh = sum(step.action in {Action.KEEP, Action.RESIZE} for step in steps)
    first, second = (same, larger) if same else (larger, [])
    canaries = parted(group.rollout, first, fresh=fresh, at_once=at_once)
    judged, rest = [*canaries.batches, *_batches(canaries.rest, at_once)], _batches(second, at_once)
    starts = [step for step in steps if step.action is Action.START]
    begin = [*awaited, *(step for step in idle if step.id not in takes)]
    coming = [*(step for step in idle if step.id in takes), *starts]
    less, more = (judged, rest) if same else ([], judged)
    return LessFirst([step for step in steps if step.action in LEAVES], [begin, *less], [coming, *more])


def _batches(steps: Sequence[Step], at_once: int) -> list[list[Step]]:
    return [list(steps[start : start + at_once]) for start in range(0, len(steps), at_once)]
