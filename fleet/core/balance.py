"""A budget of slots divided over groups by weight, between floors and ceilings.

The rule is a divisor method (Webster), the integer form of weighted max-min fairness: the next unit of slots always
goes to the group with the largest ``weight / (slots + unit / 2)``. Which unit comes next never depends on the budget,
so the division of a budget is a prefix of the division of any larger one. From that follow: more budget takes from no
one, an edit of one group moves slots only to or from that group, and two machines never disagree (integers and
fractions only). Largest remainder, the usual choice, has none of this (the Alabama paradox).

Where groups move in units larger than one slot no rule is exact *and* monotone: ``tail="hold"`` stays monotone and
leaves less than one unit over, ``tail="fill"`` uses the rest up and may take slots away when the budget grows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Literal

from fleet.core.wording import counted, listed
from fleet.errors import Refused

Tail = Literal["hold", "fill"]
UNBOUNDED = 1 << 40


@dataclass(frozen=True, slots=True)
class Share:
    """What one group may have. Slots are given in whole units; lower tiers are filled first, after every floor."""

    name: str
    weight: int | float | Fraction = 1
    min: int = 1
    max: int | None = None
    tier: int = 0
    unit: int = 1


@dataclass(frozen=True, slots=True)
class Allocation:
    """Slots per group, what is left over, and why.

    next_in_line: who gets the next unit when the budget grows.  gives_first: who gives one back when it shrinks.
    """

    budget: int
    slots: Mapping[str, int]
    left: int
    reasons: Mapping[str, str]
    next_in_line: str | None = None
    gives_first: str | None = None


@dataclass(slots=True)
class _Part:
    """A share in normal form (integer weight, floor and ceiling in whole units) and what it has so far."""

    share: Share
    weight: int
    floor: int
    ceiling: int
    slots: int

    def due(self, slots: int) -> tuple[int, Fraction, str]:
        """When the unit above ``slots`` is given: smallest first, ties by name."""
        unit = self.share.unit
        return self.share.tier, Fraction(2 * slots + unit, 2 * self.weight), self.share.name

    def at(self, step: int, grain: int) -> int:
        """Slots once every unit due up to ``step / grain`` is given, never less than now."""
        unit = self.share.unit
        earned = (2 * step * self.weight + grain * unit) // (2 * grain * unit) * unit
        return min(max(earned, self.slots), self.ceiling)


def balance(budget: int, groups: Sequence[Share], *, tail: Tail = "hold") -> Allocation:
    """Divide ``budget`` slots. The order of ``groups`` does not matter. Raises Refused where it cannot add up."""
    parts = _normal(groups)
    left = budget - sum(part.floor for part in parts)
    if left < 0:
        raise _too_little(budget, parts)
    for tier in sorted({part.share.tier for part in parts}):
        left = _fill([part for part in parts if part.share.tier == tier], left, tail)
    return _explained(budget, parts, budget - sum(part.slots for part in parts))


def shape(slots: int, size: int) -> tuple[int, ...]:
    """Slots of each replica: full ones of ``size``, then at most one smaller; one more slot changes one replica."""
    full, rest = divmod(slots, size)
    return (size,) * full + ((rest,) if rest else ())


def exact_budgets(budget: int, groups: Sequence[Share]) -> tuple[int, int]:
    """The nearest budgets at or below and above this one that leave nothing over."""
    down = budget - balance(budget, groups).left
    most = 2 * max(group.unit for group in groups)
    up = next((more for more in range(budget + 1, budget + most + 1) if balance(more, groups).left == 0), down)
    return down, up


def _normal(groups: Sequence[Share]) -> list[_Part]:
    weights = [Fraction(str(group.weight)) for group in groups]
    scale = lcm(*(weight.denominator for weight in weights))
    parts = [_part(group, int(weight * scale)) for group, weight in zip(groups, weights, strict=True)]
    problems = [problem for part in parts if (problem := _problem(part))]
    names = [group.name for group in groups]
    problems += [f"group {name!r} appears twice" for name in sorted(set(names)) if names.count(name) > 1]
    if problems:
        raise Refused("; ".join(problems))
    return sorted(parts, key=lambda part: part.share.name)


def _part(share: Share, weight: int) -> _Part:
    unit = max(share.unit, 1)
    floor = -(-share.min // unit) * unit
    ceiling = (UNBOUNDED if share.max is None else share.max) // unit * unit
    return _Part(share, weight, floor, ceiling, floor)


def _problem(part: _Part) -> str:
    share = part.share
    if share.weight <= 0 or share.unit < 1:
        return f"group {share.name!r}: weight and unit must be above 0"
    if share.max is not None and share.min > share.max:
        return f"group {share.name!r}: min {share.min} is above max {share.max}"
    if part.floor > part.ceiling:
        bounds = f"min {share.min} and max {share.max}"
        return f"group {share.name!r}: no multiple of its unit {share.unit} lies between {bounds}"
    return ""


def _too_little(budget: int, parts: Sequence[_Part]) -> Refused:
    need = sum(part.floor for part in parts)
    largest = sorted(parts, key=lambda part: (-part.floor, part.share.name))
    names = listed((f"{part.share.name} {part.floor}" for part in largest), most=3)
    return Refused(
        f"the groups' minimums need {counted(need, 'slot')} and {budget} are there: {need - budget} short ({names})",
        hint=f"raise the budget by {need - budget}, lower a min, or let a group go to zero with min: 0",
    )


def _fill(parts: Sequence[_Part], left: int, tail: Tail) -> int:
    """Give one tier what it may have; returns what the next tier may use."""
    left = _grow(parts, _jump(parts, left), tail)
    stuck = tail == "hold" and any(part.slots < part.ceiling for part in parts)
    return 0 if stuck else left


def _jump(parts: Sequence[_Part], left: int) -> int:
    """Give everything due up to the highest level that fits, at once; the few units above are given one by one."""
    if left <= 2 * len(parts):
        return left
    grain = 2 * sum(part.weight for part in parts)
    enough = max(2 * (part.slots + left + part.share.unit) * grain // part.weight for part in parts)
    have = sum(part.slots for part in parts)
    level = _highest(enough, fits=lambda step: sum(part.at(step, grain) for part in parts) - have <= left)
    for part in parts:
        part.slots = part.at(level, grain)
    return left + have - sum(part.slots for part in parts)


def _highest(most: int, *, fits: Callable[[int], bool]) -> int:
    """The largest integer up to ``most`` that fits, by bisection; 0 always does."""
    low, high = 0, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _grow(parts: Sequence[_Part], left: int, tail: Tail) -> int:
    """The definition: unit by unit to whoever is due first, until nothing is left or nobody may have more."""
    by_name = {part.share.name: part for part in parts}
    queue = [part.due(part.slots) for part in parts if part.slots < part.ceiling]
    heapq.heapify(queue)
    while queue and left > 0:
        part = by_name[heapq.heappop(queue)[2]]
        if part.share.unit > left:
            if tail == "hold":
                break
            continue
        part.slots += part.share.unit
        left -= part.share.unit
        if part.slots < part.ceiling:
            heapq.heappush(queue, part.due(part.slots))
    return left


def _explained(budget: int, parts: Sequence[_Part], left: int) -> Allocation:
    growing = [part for part in parts if part.slots < part.ceiling]
    shrinking = [part for part in parts if part.slots > part.floor]
    first = min(growing, key=lambda part: part.due(part.slots), default=None)
    last = max(shrinking, key=lambda part: part.due(part.slots - part.share.unit), default=None)
    following = first.share.name if first else None
    giving = last.share.name if last else None
    return Allocation(
        budget=budget,
        slots={part.share.name: part.slots for part in parts},
        left=left,
        reasons=_reasons(budget, parts, last, following),
        next_in_line=following,
        gives_first=giving,
    )


def _reasons(budget: int, parts: Sequence[_Part], last: _Part | None, following: str | None) -> dict[str, str]:
    level = last.due(last.slots - last.share.unit) if last else None
    bound = {part.share.name: _bound(part, level) for part in parts}
    sharing = [part for part in parts if not bound[part.share.name]]
    total = sum((Fraction(str(part.share.weight)) for part in parts), Fraction(0))
    shared = f"{float(sum(Fraction(str(part.share.weight)) for part in sharing)):g}"
    slots = sum(part.slots for part in sharing)
    reasons = {}
    for part in parts:
        share = part.share
        text = {
            "": f"weight {float(share.weight):g} of {shared} in the {counted(slots, 'slot')} shared by weight",
            "pinned": f"min = max = {share.min}",
            "max": f"capped at max {share.max}; its share went to the others",
            "min": f"raised to min {share.min}; its share alone is {_ideal(share, budget, total):.1f}",
        }[bound[share.name]]
        text += "; next slot goes here" if share.name == following else ""
        text += "; gives first if the budget shrinks" if last is part else ""
        reasons[share.name] = text
    return reasons


def _ideal(share: Share, budget: int, total: Fraction) -> float:
    return float(Fraction(str(share.weight)) * budget / total)


def _bound(part: _Part, level: tuple[int, Fraction, str] | None) -> str:
    """What stops this group from having just its share: nothing, its ceiling, its floor, or both."""
    if part.floor == part.ceiling:
        return "pinned"
    if part.slots == part.ceiling:
        return "max"
    raised = part.slots == part.floor > 0 and (level is None or part.due(part.slots - part.share.unit) > level)
    return "min" if raised else ""
