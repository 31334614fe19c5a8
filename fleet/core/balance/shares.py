"""What each group may have of a budget, and what it got: the values before and after a division."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from fleet.core.balance.costs import FREE, Prices

Tail = Literal["hold", "fill"]
UNBOUNDED = 1 << 40


@dataclass(frozen=True, slots=True)
class Share:
    """What one group may have. Slots are given in whole units; lower tiers are filled first, after every floor.

    slots_per_replica: of a full one.  prices: what replicas and slots take of other resources.
    """

    name: str
    weight: int | float | Fraction = 1
    min: int = 1
    max: int | None = None
    tier: int = 0
    unit: int = 1
    slots_per_replica: int = 1
    prices: Prices = field(default=FREE, hash=False)

    def used(self, resource: str, slots: int) -> int:
        """How much of a resource ``slots`` take."""
        return self.prices.used(resource, slots, slots_per_replica=self.slots_per_replica)


@dataclass(frozen=True, slots=True)
class Allocation:
    """Slots per group, what is left over, and why.

    next_in_line: the group that gets the next unit when the budget grows.  gives_first: the one that gives a unit back
    when it shrinks.
    stopped: group -> the resource that ended its growth.
    """

    budget: int
    slots: Mapping[str, int]
    left: int
    reasons: Mapping[str, str]
    next_in_line: str | None = None
    gives_first: str | None = None
    stopped: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class NormalShare:
    """A share in normal form (integer weight, floor and ceiling in whole units) and what it has so far."""

    share: Share
    weight: int
    floor: int
    ceiling: int
    slots: int
    precision: int = 0
    stopped: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it may have more."""
        return self.slots < self.ceiling and not self.stopped

    def due(self, slots: int) -> tuple[int, int, str]:
        """When the unit above ``slots`` is given: smallest first, ties by name."""
        return self.share.tier, ((2 * slots + self.share.unit) << self.precision) // self.weight, self.share.name

    def at(self, step: int, grain: int) -> int:
        """Slots once every unit due up to ``step / grain`` is given, never less than now."""
        unit = self.share.unit
        earned = (2 * step * self.weight + grain * unit) // (2 * grain * unit) * unit
        return min(max(earned, self.slots), self.ceiling)


def exact(weight: int | float | Fraction) -> Fraction:
    """The number as it was written: 0.1 is a tenth."""
    return Fraction(str(weight)) if isinstance(weight, float) else Fraction(weight)


def problem_of(part: NormalShare) -> str:
    share = part.share
    if share.weight <= 0 or share.unit < 1 or share.slots_per_replica < 1:
        return f"group {share.name!r}: weight and unit must be above 0"
    if share.max is not None and share.min > share.max:
        return f"group {share.name!r}: min {share.min} is above max {share.max}"
    if part.floor > part.ceiling:
        bounds = f"min {share.min} and max {share.max}"
        return f"group {share.name!r}: no multiple of its unit {share.unit} lies between {bounds}"
    return ""
