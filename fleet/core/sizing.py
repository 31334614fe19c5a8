"""How many replicas of how many slots each group has: fixed groups first, the rest of the budget divided by balance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm

from fleet.core.balance import balance, exact_budgets, shape
from fleet.core.facts import Overrides
from fleet.core.manifest import Group
from fleet.core.manifest import Share as SaidShare
from fleet.core.prices import FREE, Prices
from fleet.core.shares import UNBOUNDED, Allocation, Share, Tail
from fleet.core.wording import counted, listed
from fleet.errors import Refused


@dataclass(frozen=True, slots=True)
class Wish:
    """What one group asks for. ``size``: slots of a full replica; ``counts``: what one replica takes of the budget.

    prices: what its replicas and slots take of the other budgets.  whole: only whole replicas come and go.
    """

    name: str
    group: Group
    size: int
    counts: int
    prices: Prices = FREE
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Shaped:
    """The slots of each replica of a group, and why."""

    shape: tuple[int, ...]
    reason: str
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What the manifest says about the division as a whole. ``moving``: the controller's decisions count.

    capacity: the other budgets, as far as the manifest sets them.
    """

    budget: int | None
    tail: Tail
    moving: bool
    capacity: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Division:
    """The shares, what each of them got, and what there was of the other budgets."""

    shares: tuple[Share, ...]
    allocation: Allocation
    capacity: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Movable:
    """What the controller divides: shares, the slots they have together, and what there is of the other budgets."""

    shares: tuple[Share, ...]
    slots: int
    capacity: Mapping[str, int]


def divide(wishes: Sequence[Wish], rules: Rules, *, overrides: Overrides) -> tuple[dict[str, Shaped], tuple[str, ...]]:
    """Shapes by group name, and notes. Raises Refused with the sums where the budget does not add up.

    A paused group keeps its part of the budget: pausing one group must not replace workers of the others.
    """
    fixed = {wish.name: count for wish in wishes if (count := _fixed_replicas(wish, overrides)) is not None}
    taken = {wish.name: fixed[wish.name] * wish.counts for wish in wishes if wish.name in fixed}
    parts = [_share(wish) for wish in wishes if wish.name not in fixed]
    left = _left(rules.budget, taken, parts)
    rules = replace(rules, capacity=_capacity_left(rules.capacity, wishes, fixed))
    overrides = replace(overrides, slots=_decisions(wishes, overrides))
    shares, notes = _divided(left, parts, taken, rules, overrides)
    shapes = {}
    for wish in wishes:
        shaped = _fixed(wish, fixed[wish.name], overrides) if wish.name in fixed else _flexible(wish, shares[wish.name])
        shapes[wish.name] = _paused(wish, shaped, overrides)
    return shapes, notes


def _decisions(wishes: Sequence[Wish], overrides: Overrides) -> dict[str, int]:
    """What the controller decided, as far as it still has a say: a manifest may have changed since."""
    moving = {wish.name for wish in wishes if wish.group.autoscale is not None}
    return {name: slots for name, slots in overrides.slots.items() if name in moving}


def division(wishes: Sequence[Wish], rules: Rules, *, overrides: Overrides) -> Division | None:
    """The static shares of what fixed groups leave; None where nothing is shared."""
    fixed = {wish.name: count for wish in wishes if (count := _fixed_replicas(wish, overrides)) is not None}
    taken = {wish.name: fixed[wish.name] * wish.counts for wish in wishes if wish.name in fixed}
    parts = [_share(wish) for wish in wishes if wish.name not in fixed]
    if not parts:
        return None
    left = _left(rules.budget, taken, parts)
    capacity = _capacity_left(rules.capacity, wishes, fixed)
    return Division(tuple(parts), _balanced(left, parts, taken, replace(rules, capacity=capacity)), capacity)


def movable(wishes: Sequence[Wish], rules: Rules, *, overrides: Overrides) -> Movable:
    """The groups that autoscale, with what fixed groups and static shares leave them."""
    divided = division(wishes, rules, overrides=overrides)
    if divided is None:
        return Movable((), 0, {})
    moving = {wish.name for wish in wishes if wish.group.autoscale is not None}
    slots = divided.allocation.slots
    standing = [part for part in divided.shares if part.name not in moving]
    return Movable(
        shares=tuple(part for part in divided.shares if part.name in moving),
        slots=divided.allocation.budget - sum(slots[part.name] for part in standing),
        capacity={
            name: there - sum(part.used(name, slots[part.name]) for part in standing)
            for name, there in divided.capacity.items()
        },
    )


def _capacity_left(capacity: Mapping[str, int], wishes: Sequence[Wish], fixed: Mapping[str, int]) -> dict[str, int]:
    """What fixed groups leave of the other budgets. One that they alone overdraw is refused with the whole plan."""
    left = {
        name: there
        - sum(
            fixed[wish.name] * wish.prices.used(name, wish.size, size=wish.size)
            for wish in wishes
            if wish.name in fixed
        )
        for name, there in capacity.items()
    }
    return {name: there for name, there in left.items() if there >= 0}


def _fixed_replicas(wish: Wish, overrides: Overrides) -> int | None:
    """The replica count of a group that is not divided: fixed in the manifest, or held by an override."""
    if wish.name in overrides.replicas:
        return overrides.replicas[wish.name]
    if wish.group.share is None and wish.group.autoscale is None:
        return 1 if wish.group.replicas is None else wish.group.replicas
    return None


def _share(wish: Wish) -> Share:
    """Its part, as asked for. Where there is no smaller replica, or none could become one, slots come whole."""
    said = wish.group.autoscale or wish.group.share or SaidShare()
    unit = lcm(said.unit, wish.size) if wish.whole else said.unit
    return Share(wish.name, said.weight, said.min, said.max, said.tier, unit, wish.size, wish.prices)


def _left(budget: int | None, taken: Mapping[str, int], parts: Sequence[Share]) -> int:
    """What fixed groups leave to the others. Without a budget everyone may have its max."""
    if budget is None:
        endless = [part.name for part in parts if part.max is None]
        if endless:
            raise Refused(
                f"{listed(map(repr, endless))}: a share of spec.concurrency, and the manifest has none",
                hint="set spec.concurrency, or give each of these groups a max",
            )
        return sum(part.max or 0 for part in parts)
    total = sum(taken.values())
    if total > budget:
        most = listed(f"{name} {slots}" for name, slots in sorted(taken.items(), key=lambda item: (-item[1], item[0])))
        sums = f"{counted(total, 'slot')} of spec.concurrency {budget}: {total - budget} too many ({most})"
        raise Refused(
            f"fixed groups take {sums}",
            hint=f"raise spec.concurrency to {total}, or lower replicas or pool.concurrency of these groups",
        )
    return budget - total


@dataclass(frozen=True, slots=True)
class _Part:
    slots: int
    reason: str


def _divided(
    left: int, parts: Sequence[Share], taken: Mapping[str, int], rules: Rules, overrides: Overrides
) -> tuple[dict[str, _Part], tuple[str, ...]]:
    if not parts:
        return {}, ()
    allocation = _balanced(left, parts, taken, rules)
    shares = {part.name: _Part(allocation.slots[part.name], allocation.reasons[part.name]) for part in parts}
    decided = {part.name for part in parts if part.name in overrides.slots} if rules.moving else set()
    if decided:
        shares |= _moved(left, parts, shares, decided, rules, overrides)
    return shares, _leftover(left, parts, rules) if allocation.left and rules.budget is not None else ()


def _balanced(left: int, parts: Sequence[Share], taken: Mapping[str, int], rules: Rules) -> Allocation:
    try:
        return balance(left, parts, tail=rules.tail, capacity=rules.capacity)
    except Refused as error:
        if rules.budget is None or not taken or sum(part.min for part in parts) <= left:
            raise
        whole = f"spec.concurrency {rules.budget} less {sum(taken.values())} of fixed groups"
        raise Refused(f"{error.message}; {left} is {whole}", hint=error.hint) from None


def _moved(
    left: int,
    parts: Sequence[Share],
    static: Mapping[str, _Part],
    decided: set[str],
    rules: Rules,
    overrides: Overrides,
) -> dict[str, _Part]:
    """Groups the controller decided about, within their bounds and what the others leave of the budget."""
    standing = [part for part in parts if part.name not in decided]
    slots = left - sum(static[part.name].slots for part in standing)
    capacity = {
        name: there - sum(part.used(name, static[part.name].slots) for part in standing)
        for name, there in rules.capacity.items()
    }
    ceilings = [_capped(part, overrides.slots[part.name]) for part in parts if part.name in decided]
    allocation = balance(slots, ceilings, capacity=capacity)
    reasons = {
        name: f"{overrides.slot_reasons.get(name, 'moved by the controller')}; static share {static[name].slots}"
        for name in decided
    }
    return {name: _Part(slots, reasons[name]) for name, slots in allocation.slots.items()}


def _capped(part: Share, decision: int) -> Share:
    """The share with the decision, in whole units, as its ceiling."""
    whole = -(-max(part.min, decision) // part.unit) * part.unit
    ceiling = (UNBOUNDED if part.max is None else part.max) // part.unit * part.unit
    return replace(part, max=min(whole, ceiling))


def _leftover(left: int, parts: Sequence[Share], rules: Rules) -> tuple[str, ...]:
    """Why some of the budget is not used."""
    allocation = balance(left, parts, tail=rules.tail, capacity=rules.capacity)
    rest = counted(allocation.left, "slot")
    if allocation.next_in_line is None:
        used_up = f", or stopped by {listed(sorted(set(allocation.stopped.values())))}" if allocation.stopped else ""
        return (f"{rest} of spec.concurrency not used: every group is at its max{used_up}",)
    down, up = exact_budgets(left, parts, capacity=rules.capacity)
    base = (rules.budget or 0) - left
    return (
        f"{rest} of spec.concurrency not used: the next unit of {allocation.next_in_line!r} does not fit;"
        f" {base + down} or {base + up} would leave nothing over",
    )


def _fixed(wish: Wish, count: int, overrides: Overrides) -> Shaped:
    what = f"{counted(count, 'replica')} x {counted(wish.counts, 'slot')}"
    if wish.name not in overrides.replicas:
        return Shaped((wish.size,) * count, f"{what}, fixed in the manifest")
    why = overrides.reasons.get(wish.name)
    return Shaped((wish.size,) * count, f"{what}, held by scale --live" + (f": {why}" if why else ""))


def _flexible(wish: Wish, part: _Part) -> Shaped:
    return Shaped(shape(part.slots, wish.size), part.reason)


def _paused(wish: Wish, shaped: Shaped, overrides: Overrides) -> Shaped:
    if not wish.group.paused and wish.name not in overrides.paused:
        return shaped
    kept = counted(sum(shaped.shape) if wish.counts else 0, "slot")
    return Shaped((), f"paused; keeps its {kept} of the budget" if wish.counts else "paused", paused=True)
