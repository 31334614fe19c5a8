"""Which steps one look of the controller may begin, which starts wait, and what a person should know about it. PURE."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fleet.core.autoscale.startable_steps import begun, in_rollout, starting
from fleet.core.desired import Desired
from fleet.core.plan import Action, Plan, Step
from fleet.core.planning.planner import plan
from fleet.core.text.format import listed
from fleet.errors import FleetError
from fleet.operate.controller.look import World

_ALIVE = frozenset({Action.RESIZE, Action.RELEASE, Action.FORGET})


@dataclass(frozen=True, slots=True)
class Beginnings:
    """paced: replicas that are to start and wait, so that not all start at once."""

    steps: Plan
    paced: int
    notes: tuple[str, ...] = ()


def beginnings(
    desired: Desired,
    world: World,
    *,
    groups: Collection[str],
    starts: int,
    fingerprints: Callable[[], Mapping[str, str]],
) -> Beginnings:
    """What can be begun on the way to ``desired`` in these groups.

    starts: how many replicas may be starting at once.  fingerprints: of the secrets as they are now, by name;
    called only where a replica starts; a FleetError of it goes to the notes.
    """
    applied, observed = world.applied, world.observed
    every = plan(desired, observed)
    before = every if desired == applied.desired else plan(applied.desired, observed)
    rolling = in_rollout(before, has_ended=applied.revision == applied.good) & set(groups)
    free = set(groups) - rolling
    steps = begun(every, observed, groups=free, starts=starts)
    paced = starting(every, free) - starting(steps, groups)
    notes = []
    if rolling:
        notes.append(f"{listed(sorted(rolling))}: not moved, because `fleet apply` has still something to do there")
    coming = [step for step in steps.steps if step.action is Action.START]
    if coming and (note := cannot_start(coming, fingerprints)):
        steps = _alive_only(steps)
        notes.append(f"no replica is started: {note}")
    return Beginnings(steps, paced, tuple(notes))


def cannot_start(starts: Sequence[Step], fingerprints: Callable[[], Mapping[str, str]]) -> str:
    """Why none of these may start, or ''. Secrets that changed since the apply are for the next apply to roll out."""
    try:
        marks = fingerprints()
    except FleetError as error:
        return error.message
    changed = {name for name, mark in _secret_marks(starts) if marks.get(name) != mark}
    return f"{listed(sorted(changed))} changed, `fleet apply` rolls that out" if changed else ""


def _secret_marks(starts: Sequence[Step]) -> Iterator[tuple[str, str]]:
    """Secret and fingerprint of everything that is about to start."""
    for step in starts:
        if step.target is not None:
            yield from step.target.spec.secret_marks().items()


def _alive_only(steps: Plan) -> Plan:
    """The steps without those that make room for replicas that cannot start."""
    return replace(steps, steps=tuple(step for step in steps.steps if step.action in _ALIVE))
