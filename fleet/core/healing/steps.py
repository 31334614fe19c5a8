"""The steps of a plan that one look may begin in order to heal: PURE."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from fleet.core.desired import CONTROLLER_GROUP, RESERVED_PREFIX, Desired, group_of
from fleet.core.observed import Observed, State
from fleet.core.plan import Action, Plan, Step
from fleet.core.planning.planner import plan
from fleet.core.planning.rollout import in_waves

_OF_OWN_PROGRAMS = frozenset({Action.START, Action.RESTART})
"""The controller replaces no program of fleet's own: the data of the embedded broker are not for a loop to risk."""

_OF_MOVING_GROUPS = frozenset({Action.RESTART})
"""In a group that autoscales the rest is done where slots are moved, as long as they are."""

_STOPS_MOVES = frozenset({Action.REPLACE, Action.REAP})
"""With one of these to do, no slots are moved in a group."""

_WHATEVER_ROLLS = frozenset({Action.RESTART, Action.START})


def healing_steps(
    desired: Desired, observed: Observed, *, starved: frozenset[str], moving: Collection[str], has_ended: bool
) -> list[Step]:
    """What can be begun now, group by group: always the first wave of that group's plan, as ``apply`` has it.

    starved: replicas to restart because they take no tasks.  moving: groups that autoscale.  has_ended: the last apply
    got to its end; else its rollout is paused or was killed, and only what runs already as it was applied is healed.
    """
    every = plan(desired, observed, restart=starved, kept=False)
    groups = sorted({group_of(step.replica) for step in every.changes} - {CONTROLLER_GROUP})
    found: list[Step] = []
    for group in groups:
        own = replace(every, steps=tuple(step for step in every.steps if group_of(step.replica) == group), notes=())
        steps = _first_wave(own, desired, observed) if has_ended else _apart_from_rollout(own, observed)
        found += _allowed(list(steps), own, group, moving)
    return [replace(step, wave=0, after=()) for step in found]


def _first_wave(of_group: Plan, desired: Desired, observed: Observed) -> Iterator[Step]:
    """So the group's ``rollout`` bounds hold: a look begins one wave, and the next look plans again."""
    changes = in_waves(of_group, desired, observed).changes
    first = min((step.wave for step in changes), default=0)
    yield from (step for step in changes if step.wave == first)


def _apart_from_rollout(of_group: Plan, observed: Observed) -> Iterator[Step]:
    """A replica with the applied digest is restarted or started again; nothing new comes, nothing is replaced."""
    for step in of_group.changes:
        seen = observed.replicas.get(step.replica)
        if step.action in _WHATEVER_ROLLS and seen is not None and seen.state is not State.FAILED:
            yield step


def _allowed(steps: list[Step], of_group: Plan, group: str, moving: Collection[str]) -> list[Step]:
    actions = {step.action for step in of_group.changes}
    if group.startswith(RESERVED_PREFIX):
        return steps if actions <= _OF_OWN_PROGRAMS else []
    if group in moving and not actions & _STOPS_MOVES:
        return [step for step in steps if step.action in _OF_MOVING_GROUPS]
    return steps
