"""A budget of slots divided over groups by weight, between floors and ceilings.

The rule is a divisor method (Webster), the integer form of weighted max-min fairness: the next unit of slots always
goes to the group with the largest ``weight / (slots + unit / 2)``. Which unit comes next never depends on the budget,
so the division of a budget is a prefix of the division of any larger one. From that follow: more budget takes from no
one, an edit of one group moves slots only to or from that group, and two machines never disagree (integers and
fractions only). Largest remainder, the usual choice, has none of this (the Alabama paradox).

Where groups move in units larger than one slot no rule is exact *and* monotone: ``tail="hold"`` stays monotone and
leaves less than one unit over, ``tail="fill"`` uses the rest up and may take slots away when the budget grows.

Slots may have prices in other resources (memory, cores, connections). A group whose next unit does not fit what is
left of one stops there for good, and its share goes to the others. That stays monotone in slots; no rule is monotone
in the other resources as well.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from typing import Literal

from fleet.core.prices import FREE, Prices, overdrawn, told
from fleet.core.wording import counted, listed
from fleet.errors import Refused

Tail = Literal["hold", "fill"]
UNBOUNDED = 1 << 40
_NOTHING: Mapping[str, int] = {}
_MOST_JUMPS = 4


@dataclass(frozen=True, slots=True)
class Share:
    """What one group may have. Slots are given in whole units; lower tiers are filled first, after every floor.

    size: the most slots in one replica.  prices: what replicas and slots take of other resources.
    """

    name: str
    weight: int | float | Fraction = 1
    min: int = 1
    max: int | None = None
    tier: int = 0
    unit: int = 1
    size: int = 1
    prices: Prices = field(default=FREE, hash=False)

    def used(self, resource: str, slots: int) -> int:
        """What this many slots take of a resource."""
        return self.prices.used(resource, slots, size=self.size)


@dataclass(frozen=True, slots=True)
class Allocation:
    """Slots per group, what is left over, and why.

    next_in_line: who gets the next unit when the budget grows.  gives_first: who gives one back when it shrinks.
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
class _Part:
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


def balance(
    budget: int, groups: Sequence[Share], *, tail: Tail = "hold", capacity: Mapping[str, int] = _NOTHING
) -> Allocation:
    """Divide ``budget`` slots. The order of ``groups`` does not matter.

    ``capacity``: what there is of each other resource. Raises Refused, with every sum, where it cannot add up.
    """
    parts = _normal(groups)
    _check_floors(budget, parts, capacity)
    left = budget - sum(part.floor for part in parts)
    stores = _Stores(parts, capacity)
    for tier in sorted({part.share.tier for part in parts}):
        left = _fill([part for part in parts if part.share.tier == tier], left, tail, stores)
    return _explained(budget, parts, budget - sum(part.slots for part in parts))


def shape(slots: int, size: int) -> tuple[int, ...]:
    """Slots of each replica: full ones of ``size``, then at most one smaller; one more slot changes one replica."""
    full, rest = divmod(slots, size)
    return (size,) * full + ((rest,) if rest else ())


def exact_budgets(budget: int, groups: Sequence[Share], *, capacity: Mapping[str, int] = _NOTHING) -> tuple[int, int]:
    """The nearest budgets at or below and above this one that leave nothing over."""
    down = budget - balance(budget, groups, capacity=capacity).left
    most = 2 * max(group.unit for group in groups)
    above = range(budget + 1, budget + most + 1)
    up = next((more for more in above if balance(more, groups, capacity=capacity).left == 0), down)
    return down, up


def _normal(groups: Sequence[Share]) -> list[_Part]:
    weights = [_exact(group.weight) for group in groups]
    scale = lcm(*(weight.denominator for weight in weights))
    parts = [_part(group, int(weight * scale)) for group, weight in zip(groups, weights, strict=True)]
    problems = [problem for part in parts if (problem := _problem(part))]
    names = [group.name for group in groups]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    problems += [f"group {name!r} appears twice" for name in twice]
    if problems:
        raise Refused("; ".join(problems), hint="mend these groups: a weight above 0, and min <= max in whole units")
    precision = 1 + 2 * max((part.weight.bit_length() for part in parts), default=0)
    for part in parts:  # two dues differ by 1 / (weight * weight) at least: rounded down here they keep their order
        part.precision = precision
    return sorted(parts, key=lambda part: part.share.name)


def _exact(weight: int | float | Fraction) -> Fraction:
    """The number as it was written: 0.1 is a tenth."""
    return Fraction(str(weight)) if isinstance(weight, float) else Fraction(weight)


def _part(share: Share, weight: int) -> _Part:
    unit = max(share.unit, 1)
    floor = -(-share.min // unit) * unit
    ceiling = (UNBOUNDED if share.max is None else share.max) // unit * unit
    return _Part(share, weight, floor, ceiling, floor)


def _problem(part: _Part) -> str:
    share = part.share
    if share.weight <= 0 or share.unit < 1 or share.size < 1:
        return f"group {share.name!r}: weight and unit must be above 0"
    if share.max is not None and share.min > share.max:
        return f"group {share.name!r}: min {share.min} is above max {share.max}"
    if part.floor > part.ceiling:
        bounds = f"min {share.min} and max {share.max}"
        return f"group {share.name!r}: no multiple of its unit {share.unit} lies between {bounds}"
    return ""


def _check_floors(budget: int, parts: Sequence[_Part], capacity: Mapping[str, int]) -> None:
    """Everybody's minimum must fit, in slots and in every other resource."""
    used = {resource: sum(part.share.used(resource, part.floor) for part in parts) for resource in capacity}
    need = sum(part.floor for part in parts)
    problems = [_too_few(need, budget, parts)] if need > budget else []
    problems += [_too_little(resource, used[resource], capacity, parts) for resource in overdrawn(used, capacity)]
    if not problems:
        return
    raised = [f"the budget by {need - budget}"] if need > budget else []
    raised += [f"{name} by {told(name, used[name] - capacity[name])}" for name in overdrawn(used, capacity)]
    hint = f"raise {' and '.join(raised)}, lower a min, or let a group go to zero with min: 0"
    raise Refused("; ".join(problems), hint=hint)


def _too_few(need: int, budget: int, parts: Sequence[_Part]) -> str:
    largest = sorted(parts, key=lambda part: (-part.floor, part.share.name))
    names = listed((f"{part.share.name} {part.floor}" for part in largest), most=3)
    return f"the groups' minimums need {counted(need, 'slot')} and {budget} are there: {need - budget} short ({names})"


def _too_little(resource: str, need: int, capacity: Mapping[str, int], parts: Sequence[_Part]) -> str:
    there = capacity[resource]
    costs = {part.share.name: part.share.used(resource, part.floor) for part in parts}
    largest = sorted(costs.items(), key=lambda item: (-item[1], item[0]))
    names = listed((f"{name} {told(resource, cost)}" for name, cost in largest if cost), most=3)
    wanted, short = f"{told(resource, need)} {resource}", told(resource, need - there)
    return f"the groups' minimums need {wanted} and {told(resource, there)} are there: {short} short ({names})"


class _Stores:
    """What is left of the other resources while slots are given out."""

    def __init__(self, parts: Sequence[_Part], capacity: Mapping[str, int]) -> None:
        self._parts = parts
        self._capacity = capacity
        self._free = {
            name: there - sum(part.share.used(name, part.slots) for part in parts) for name, there in capacity.items()
        }

    def __bool__(self) -> bool:
        return bool(self._free)

    def lacking(self, part: _Part, slots: int) -> str:
        """The first resource that is too short for the part to have ``slots``; "" when all suffice."""
        cost = self._cost(part, slots)
        return next((name for name, more in cost.items() if more > self._free[name]), "")

    def give(self, part: _Part, slots: int) -> None:
        """Let the part have ``slots``."""
        for name, more in self._cost(part, slots).items():
            self._free[name] -= more
        part.slots = slots

    def hold(self, parts: Sequence[_Part], slots: Sequence[int]) -> bool:
        """Whether all these parts could have that many at once."""
        pairs = list(zip(parts, slots, strict=True))
        return all(
            sum(part.share.used(name, want) - part.share.used(name, part.slots) for part, want in pairs) <= free
            for name, free in self._free.items()
        )

    def _cost(self, part: _Part, slots: int) -> dict[str, int]:
        share = part.share
        return {name: share.used(name, slots) - share.used(name, part.slots) for name in self._free}


def _fill(parts: Sequence[_Part], left: int, tail: Tail, stores: _Stores) -> int:
    """Give one tier what it may have; returns what the next tier may use.

    A jump gives whole levels at once; each resource that runs out ends it early, and after a few of those going on
    unit by unit is cheaper.
    """
    for _ in range(_MOST_JUMPS):
        left = _jump(parts, left, stores)
        left, ended = _grow(parts, left, tail, stores, until_stopped=True)
        if ended:
            break
    else:
        left, _ = _grow(parts, left, tail, stores)
    held = tail == "hold" and any(part.is_open for part in parts)
    return 0 if held else left


def _jump(parts: Sequence[_Part], left: int, stores: _Stores) -> int:
    """Give everything due up to the highest level that fits, at once; the few units above are given one by one."""
    growing = [part for part in parts if part.is_open]
    if left <= 2 * len(growing) or not growing:
        return left
    if (whole := sum(part.ceiling - part.slots for part in growing)) <= left and not stores:
        for part in growing:
            part.slots = part.ceiling
        return left - whole
    grain = 2 * sum(part.weight for part in growing)
    level = _level(growing, left, grain, stores)
    have = sum(part.slots for part in growing)
    for part in growing:
        stores.give(part, part.at(level, grain))
    return left + have - sum(part.slots for part in growing)


def _level(growing: Sequence[_Part], left: int, grain: int, stores: _Stores) -> int:
    """A level that fits and leaves less than two units each, or else the highest one that fits.

    Bisection, begun where the level would lie without floors and ceilings.
    """
    have = sum(part.slots for part in growing)
    enough = max(2 * (part.slots + left + part.share.unit) * grain // part.weight for part in growing)
    low, high, middle = 0, enough + 1, min(enough, 2 * (have + left))
    while high - low > 1:
        slots = [part.at(middle, grain) for part in growing]
        rest = left + have - sum(slots)
        if rest >= 0 and stores.hold(growing, slots):
            low = middle
            if rest <= 2 * len(growing):
                break
        else:
            high = middle
        middle = (low + high) // 2 if high <= 4 * low or not low else 2 * low
    return low


def _grow(
    parts: Sequence[_Part], left: int, tail: Tail, stores: _Stores, *, until_stopped: bool = False
) -> tuple[int, bool]:
    """The definition: unit by unit to whoever is due first. Returns what is left, and whether this was the end."""
    by_name = {part.share.name: part for part in parts}
    queue = [part.due(part.slots) for part in parts if part.is_open]
    heapq.heapify(queue)
    while queue and left > 0:
        part = by_name[heapq.heappop(queue)[2]]
        wanted = part.slots + part.share.unit
        part.stopped = stores.lacking(part, wanted)
        if part.stopped:
            if until_stopped:
                return left, False
            continue
        if part.share.unit > left:
            if tail == "hold":
                break
            continue
        stores.give(part, wanted)
        left -= part.share.unit
        if part.is_open:
            heapq.heappush(queue, part.due(part.slots))
    return left, True


def _explained(budget: int, parts: Sequence[_Part], left: int) -> Allocation:
    growing = [part for part in parts if part.is_open]
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
        stopped={part.share.name: part.stopped for part in parts if part.stopped},
    )


def _reasons(budget: int, parts: Sequence[_Part], last: _Part | None, following: str | None) -> dict[str, str]:
    level = last.due(last.slots - last.share.unit) if last else None
    bound = {part.share.name: _bound(part, level) for part in parts}
    sharing = [part for part in parts if not bound[part.share.name]]
    shared = f"{float(sum(_exact(part.share.weight) for part in sharing)):g}"
    slots = counted(sum(part.slots for part in sharing), "slot")
    total = sum(part.weight for part in parts)
    reasons = {}
    for part in parts:
        share = part.share
        match bound[share.name]:
            case "":
                text = f"weight {float(share.weight):g} of {shared} in the {slots} shared by weight"
            case "pinned":
                text = f"min = max = {share.min}"
            case "max":
                text = f"capped at max {share.max}; its share went to the others"
            case "stopped":
                text = f"no {part.stopped} left; its share went to the others"
            case _:
                ideal = part.weight * budget / total
                text = f"raised to min {share.min}; its share alone is {ideal:.1f}"
        text += "; next slot goes here" if share.name == following else ""
        text += "; gives first if the budget shrinks" if last is part else ""
        reasons[share.name] = text
    return reasons


def _bound(part: _Part, level: tuple[int, int, str] | None) -> str:
    """What keeps this group from having just its share: nothing, its ceiling, a resource, its floor, or both bounds."""
    if part.floor == part.ceiling:
        return "pinned"
    if part.slots == part.ceiling:
        return "max"
    if part.stopped:
        return "stopped"
    raised = part.slots == part.floor > 0 and (level is None or part.due(part.slots - part.share.unit) > level)
    return "min" if raised else ""
