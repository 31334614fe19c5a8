"""What is wrong with a replica, by the step that a plan has for it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from fleet.core.desired import group_of
from fleet.core.observed import Observed, ObservedReplica, State, Trouble, leaving
from fleet.core.plan import Action, Step


class Kind(StrEnum):
    """A class of what is wrong, as a manifest names it under ``spec.heal``."""

    STOPPED = "stopped"
    STUCK = "stuck"
    MISSING = "missing"
    PARKED = "parked"
    DRIFT = "drift"
    OVERRIDES = "overrides"


class Mode(StrEnum):
    """What is done about a class: put it right, say it, or nothing."""

    ENABLED = "enabled"
    WARN = "warn"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Ailment:
    """One thing that is wrong. ``step`` puts it right, or begins to.  goes_on: it was begun at an earlier look."""

    kind: Kind
    step: Step
    goes_on: bool = False

    @property
    def key(self) -> str:
        """Names it from one look to the next: ``stuck thumbs.1``; a stray by its pid too."""
        pid = f"@{self.step.pid}" if self.step.pid is not None else ""
        return f"{self.kind} {self.step.replica}{pid}"


STOPS_FIRST = frozenset({Action.RESTART, Action.REPLACE, Action.DRAIN, Action.STOP})
"""Steps that take two looks: the replica is told to stop, and when it has, the rest is done."""

_OF_SCALE = frozenset({Kind.MISSING, Kind.DRIFT})
"""What ends an override: replicas come or go, take work again or no more."""


def ailments(
    steps: Iterable[Step], observed: Observed, *, under_way: Mapping[str, str], ending: Collection[str] = ()
) -> list[Ailment]:
    """What these steps put right. under_way: replica -> class, for one that was told to stop.  ending: groups in which
    an override has ended."""
    found = []
    for step in steps:
        kind, name = kind_of(step, observed), step.replica
        if kind is None or (name in under_way and _leaves(step, observed)):
            continue
        if name in under_way and kind in (Kind.STOPPED, Kind.DRIFT):
            found.append(Ailment(Kind(under_way[name]), step, goes_on=True))
        else:
            found.append(Ailment(Kind.OVERRIDES if kind in _OF_SCALE and group_of(name) in ending else kind, step))
    return found


def _leaves(step: Step, observed: Observed) -> bool:
    seen = observed.replicas.get(step.replica)
    return seen is not None and leaving(seen)


def kind_of(step: Step, observed: Observed) -> Kind | None:
    """What this step is for; None where nothing is to be begun: it is as it should be, on its way up, or leaving."""
    seen = observed.replicas.get(step.replica)
    if step.action is Action.KEEP or (seen is not None and leaving(seen) and not seen.trouble):
        return None
    if step.action is Action.START:
        return _of_start(seen)
    if step.action is Action.RESTART and seen is not None:
        if seen.spec is not None and seen.spec.restart.policy == "never":
            return None
        if seen.cannot_start and seen.spec is None:  # its launcher refuses a launch document that makes no sense
            return Kind.DRIFT
        return Kind.PARKED if seen.state is State.FAILED else Kind.STUCK if seen.trouble else None
    return Kind.DRIFT


def _of_start(seen: ObservedReplica | None) -> Kind | None:
    if seen is None:
        return Kind.MISSING
    return None if seen.running or seen.state is State.STARTING else Kind.STOPPED


def starved(observed: Observed) -> frozenset[str]:
    """Replicas that take no tasks although the broker answers others of the fleet.

    Where it answers nobody, a restart of everybody would help nobody.
    """
    workers = [one for one in observed.replicas.values() if one.can_hold]
    if not any(_consumes(one) for one in workers):
        return frozenset()
    return frozenset(one.name for one in workers if one.trouble is Trouble.NOT_CONSUMING)


def _consumes(replica: ObservedReplica) -> bool:
    return replica.state is State.READY and not replica.trouble and replica.busy < replica.slots
