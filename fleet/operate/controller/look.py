"""One look of the controller as a value: what it saw, decided and began, and when the next one is due. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.core.autoscale.decide import Decision
from fleet.core.autoscale.load import estimated_age_seconds
from fleet.core.autoscale.measure import Measured
from fleet.core.healing.judge import Heals
from fleet.core.observed import Observed
from fleet.core.plan import Plan
from fleet.errors import FleetError
from fleet.state.applied import Applied
from fleet.state.decisions import Decisions

LONGEST_PAUSE_SECONDS = 30.0
IDLE_SECONDS = 5.0
"""Pause between two looks at a fleet that has nothing to move."""

LOOKS_PER_TICK = 4
HURRIED_TICKS = 3
"""Slots that are given up are free long before a tick is over, unless a task runs in them. So while a group waits for
slots, for so many ticks in a row there are looks in between, which follow what the last tick decided."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look saw and decided.

    asked: slots per group that are asked for now; what a group gets beyond that waits until others give up slots.
    steps: what was begun.  paced: replicas that are to start and wait, so that not all start at once.  heals: what was
    wrong with replicas.  note: why nothing could be done, or what stood in the way.
    """

    at: float
    tick_seconds: float
    budget: int = 0
    decision: Decision | None = None
    sights: Mapping[str, Measured] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)
    steps: tuple[str, ...] = ()
    paced: int = 0
    note: str = ""
    heals: Heals = field(default_factory=Heals)

    @property
    def is_waiting(self) -> bool:
        """Whether a group waits for slots that others have still to give up, or that are not begun yet."""
        gets = self.decision.slots if self.decision is not None else {}
        return self.paced > 0 or any(
            self.asked[name] - self.sights[name].parked < slots for name, slots in gets.items()
        )

    def to_json(self) -> dict[str, Any]:
        """For ``explain --live -o json``, and for the file that the controller leaves."""
        groups = {name: self._group(name) for name in sorted(self.asked)}
        return {
            "at": round(self.at, 3),
            "tickSeconds": self.tick_seconds,
            "budget": self.budget,
            "squeezed": self.decision is not None and self.decision.is_squeezed,
            "groups": groups,
            "steps": list(self.steps),
            "heals": self.heals.to_json(),
            "note": self.note,
        }

    def _group(self, name: str) -> dict[str, Any]:
        assert self.decision is not None
        verdict, sample = self.decision.verdicts[name], self.sights[name].sample
        age, is_estimated = self.oldest(name)
        return {
            "has": sample.has,
            "need": verdict.need,
            "wants": verdict.wants,
            "share": verdict.share,
            "gets": verdict.gets,
            "asked": self.asked[name],
            "why": verdict.reason,
            "burst": verdict.is_burst,
            "queue": sample.queue,
            "oldestAge": None if age is None else round(age, 3),
            "ageEstimated": is_estimated,
            "busy": sample.busy,
            "ready": sample.ready,
            "starting": sample.starting,
            "draining": sample.draining,
            "parked": self.sights[name].parked,
            "completions": sample.completions,
            "busySeconds": None if sample.busy_seconds is None else round(sample.busy_seconds, 3),
        }

    def oldest(self, name: str) -> tuple[float | None, bool]:
        """How long the group's oldest task has waited, and whether that is an estimate."""
        sample = self.sights[name].sample
        if sample.oldest_age_seconds is not None or self.decision is None:
            return sample.oldest_age_seconds, sample.age_is_estimated
        track = self.decision.memory.groups[name].track
        return estimated_age_seconds(track, sample.queue or 0), True


@dataclass(frozen=True, slots=True)
class World:
    """What a look was made from: what was applied last, and the replicas."""

    applied: Applied
    observed: Observed


@dataclass(frozen=True, slots=True)
class Seen:
    """A look before anything is begun. ``world`` None: there is nothing to move."""

    look: Look
    world: World | None = None


# --- when to look again


@dataclass(frozen=True, slots=True)
class NextLook:
    """When to look again, and how.

    due: Unix seconds.  follow: the decision to carry on with (None: decide again).  hurried: looks in a row in which a
    group waited for slots.  pause_seconds: the last pause after a failed look, 0 after one that did not fail.
    """

    due: float = 0.0
    follow: Decision | None = None
    hurried: int = 0
    pause_seconds: float = 0.0


def next_look(before: NextLook, result: Look | FleetError, *, began: float) -> NextLook:
    """What follows a look that began at ``began``, Unix seconds.

    A look is due when the tick of its decision ends. While a group waits for slots there are looks in between, which
    follow that decision. After a failed look there is a pause that doubles each time.
    """
    if isinstance(result, FleetError):
        pause = min(LONGEST_PAUSE_SECONDS, 2 * before.pause_seconds or IDLE_SECONDS)
        return NextLook(began + pause, hurried=before.hurried, pause_seconds=pause)
    hurried = before.hurried + 1 if result.is_waiting else 0
    tick_ends = (result.decision.at if result.decision is not None else began) + result.tick_seconds
    between = began + result.tick_seconds / LOOKS_PER_TICK
    if 0 < hurried <= HURRIED_TICKS * LOOKS_PER_TICK and between < tick_ends:
        return NextLook(between, follow=result.decision, hurried=hurried)
    return NextLook(tick_ends, hurried=hurried)


# --- what is kept of a look


def decisions_after(look: Look, before: Decisions) -> Decisions:
    """What was decided now. Groups that a person holds keep what was decided before."""
    return Decisions(look.at, {**before.slots, **look.asked}, {**before.reasons, **_reasons(look)})


def moved(before: Mapping[str, int], look: Look, steps: Plan) -> dict[str, Any]:
    """One entry for the audit: which groups got a different number, why, and what that was decided on."""
    groups, reasons = look.to_json()["groups"], _reasons(look)
    slots_before = {name: before.get(name, group["has"]) for name, group in groups.items()}
    moves = {
        name: {"from": slots_before[name], "to": slots, "why": reasons[name]}
        for name, slots in sorted(look.asked.items())
        if slots_before[name] != slots
    }
    inputs = {name: groups[name] for name in moves}
    done = [[step.id, step.reason] for step in steps.changes]
    return {"event": "balance.moved", "moves": moves, "inputs": inputs, "budget": look.budget, "steps": done}


def _reasons(look: Look) -> dict[str, str]:
    assert look.decision is not None
    return {name: look.decision.verdicts[name].reason for name in look.asked}
