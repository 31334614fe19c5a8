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
from math import lcm

from fleet.core.balance.floors import check_floors
from fleet.core.balance.reasons import explained
from fleet.core.balance.shares import UNBOUNDED, Allocation, NormalShare, Share, Tail, exact, problem_of
from fleet.errors import Refused

_NOTHING: Mapping[str, int] = {}
_MOST_JUMPS = 4


def balance(
    budget: int, groups: Sequence[Share], *, tail: Tail = "hold", capacity: Mapping[str, int] = _NOTHING
) -> Allocation:
    """Divide ``budget`` slots. The order of ``groups`` does not matter.

    ``capacity``: what there is of each other resource. Raises Refused, with every sum, where it cannot add up.
    """
    parts = _normal(groups)
    check_floors(budget, parts, capacity)
    left = budget - sum(part.floor for part in parts)
    resources = _Resources(parts, capacity)
    for tier in sorted({part.share.tier for part in parts}):
        left = _fill([part for part in parts if part.share.tier == tier], left, tail, resources)
    return explained(budget, parts, budget - sum(part.slots for part in parts))


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


def _normal(groups: Sequence[Share]) -> list[NormalShare]:
    weights = [exact(group.weight) for group in groups]
    scale = lcm(*(weight.denominator for weight in weights))
    parts = [_part(group, int(weight * scale)) for group, weight in zip(groups, weights, strict=True)]
    problems = [problem for part in parts if (problem := problem_of(part))]
    names = [group.name for group in groups]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    problems += [f"group {name!r} appears twice" for name in twice]
    if problems:
        raise Refused("; ".join(problems), hint="fix these groups: a weight above 0, and min <= max in whole units")
    precision = 1 + 2 * max((part.weight.bit_length() for part in parts), default=0)
    for part in parts:  # two dues differ by 1 / (weight * weight) at least: rounded down here they keep their order
        part.precision = precision
    return sorted(parts, key=lambda part: part.share.name)


def _part(share: Share, weight: int) -> NormalShare:
    unit = max(share.unit, 1)
    floor = -(-share.min // unit) * unit
    ceiling = (UNBOUNDED if share.max is None else share.max) // unit * unit
    return NormalShare(share, weight, floor, ceiling, floor)


class _Resources:
    """What is left of the other resources while slots are given out."""

    def __init__(self, parts: Sequence[NormalShare], capacity: Mapping[str, int]) -> None:
        self._parts = parts
        self._capacity = capacity
        self._free = {
            name: there - sum(part.share.used(name, part.slots) for part in parts) for name, there in capacity.items()
        }

    def __bool__(self) -> bool:
        return bool(self._free)

    def lacking(self, part: NormalShare, slots: int) -> str:
        """The first resource that is too short for the part to have ``slots``; "" when all suffice."""
        cost = self._cost(part, slots)
        return next((name for name, more in cost.items() if more > self._free[name]), "")

    def give(self, part: NormalShare, slots: int) -> None:
        for name, more in self._cost(part, slots).items():
            self._free[name] -= more
        part.slots = slots

    def hold(self, parts: Sequence[NormalShare], slots: Sequence[int]) -> bool:
        """Whether all ``parts`` could have their number of ``slots`` at once."""
        pairs = list(zip(parts, slots, strict=True))
        return all(
            sum(part.share.used(name, want) - part.share.used(name, part.slots) for part, want in pairs) <= free
            for name, free in self._free.items()
        )

    def _cost(self, part: NormalShare, slots: int) -> dict[str, int]:
        share = part.share
        return {name: share.used(name, slots) - share.used(name, part.slots) for name in self._free}


def _fill(parts: Sequence[NormalShare], left: int, tail: Tail, resources: _Resources) -> int:
    """Give one tier what it may have; returns what the next tier may use.

    A jump gives whole levels at once; each resource that runs out ends it early, and after a few of those going on
    unit by unit is cheaper.
    """
    for _ in range(_MOST_JUMPS):
        left = _jump(parts, left, resources)
        left, ended = _grow(parts, left, tail, resources, until_stopped=True)
        if ended:
            break
    else:
        left, _ = _grow(parts, left, tail, resources)
    held = tail == "hold" and any(part.is_open for part in parts)
    return 0 if held else left


def _jump(parts: Sequence[NormalShare], left: int, resources: _Resources) -> int:
    """Give everything due up to the highest level that fits, at once; the few units above are given one by one."""
    growing = [part for part in parts if part.is_open]
    if left <= 2 * len(growing) or not growing:
        return left
    if (whole := sum(part.ceiling - part.slots for part in growing)) <= left and not resources:
        for part in growing:
            part.slots = part.ceiling
        return left - whole
    grain = 2 * sum(part.weight for part in growing)
    level = _level(growing, left, grain, resources)
    have = sum(part.slots for part in growing)
    for part in growing:
        resources.give(part, part.at(level, grain))
    return left + have - sum(part.slots for part in growing)


def _level(growing: Sequence[NormalShare], left: int, grain: int, resources: _Resources) -> int:
    """A level that fits and leaves less than two units each, or else the highest one that fits.

    Bisection, begun where the level would lie without floors and ceilings.
    """
    have = sum(part.slots for part in growing)
    enough = max(2 * (part.slots + left + part.share.unit) * grain // part.weight for part in growing)
    low, high, middle = 0, enough + 1, min(enough, 2 * (have + left))
    while high - low > 1:
        slots = [part.at(middle, grain) for part in growing]
        rest = left + have - sum(slots)
        if rest >= 0 and resources.hold(growing, slots):
            low = middle
            if rest <= 2 * len(growing):
                break
        else:
            high = middle
        middle = (low + high) // 2 if high <= 4 * low or not low else 2 * low
    return low


def _grow(
    parts: Sequence[NormalShare], left: int, tail: Tail, resources: _Resources, *, until_stopped: bool = False
) -> tuple[int, bool]:
    """The definition: unit by unit to the share that is due first. Returns what is left, and whether it ended."""
    by_name = {part.share.name: part for part in parts}
    queue = [part.due(part.slots) for part in parts if part.is_open]
    heapq.heapify(queue)
    while queue and left > 0:
        part = by_name[heapq.heappop(queue)[2]]
        wanted = part.slots + part.share.unit
        part.stopped = resources.lacking(part, wanted)
        if part.stopped:
            if until_stopped:
                return left, False
            continue
        if part.share.unit > left:
            if tail == "hold":
                break
            continue
        resources.give(part, wanted)
        left -= part.share.unit
        if part.is_open:
            heapq.heappush(queue, part.due(part.slots))
    return left, True
