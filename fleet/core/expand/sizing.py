"""How many replicas of how many slots each group has: fixed groups first, the rest of the budget divided by balance."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import lcm

from fleet.core.balance.costs import FREE, Prices
from fleet.core.balance.divide import balance, exact_budgets, shape
from fleet.core.balance.shares import UNBOUNDED, Allocation, Share, Tail
from fleet.core.expand.facts import Overrides
from fleet.core.manifest.models import Group
from fleet.core.manifest.models import Share as SaidShare
from fleet.core.text.format import counted, listed
from fleet.errors import Refused


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """What one group asks for.

    slots_per_replica: of a full replica.  budget_slots: what one replica takes of the budget.  prices: what its
    replicas and slots take of the other budgets.  whole: only whole replicas come and go.
    """

    name: str
    group: Group
    slots_per_replica: int
    budget_slots: int
    prices: Prices = FREE
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Sized:
    """The slots of each replica of a group, and why."""

    shape: tuple[int, ...]
    reason: str
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What the manifest says about the division as a whole. ``moving``: the controller's decisions apply.

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

    def left_by(self, others: Collection[Share]) -> tuple[int, dict[str, int]]:
        """Slots and other resources that remain when these have what they got."""
        got = self.allocation.slots
        slots = self.allocation.budget - sum(got[share.name] for share in others)
        capacity = {
            name: there - sum(share.used(name, got[share.name]) for share in others)
            for name, there in self.capacity.items()
        }
        return slots, capacity


@dataclass(frozen=True, slots=True)
class Movable:
    """What the controller divides: shares, the slots they have together, and what there is of the other budgets."""

    shares: tuple[Share, ...]
    slots: int
    capacity: Mapping[str, int]


def divide(
    requests: Sequence[GroupRequest], rules: Rules, *, overrides: Overrides
) -> tuple[dict[str, Sized], tuple[str, ...]]:
    """Shapes by group name, and notes. Raises Refused with the numbers where the budget does not add up.

    A paused group keeps its part of the budget: pausing one group must not replace workers of the others.
    """
    fixed = _fixed_replicas(requests, overrides)
    found = _division(requests, rules, fixed, overrides)
    slots = _static(found) | (_decided(found, requests, overrides) if rules.moving else {})
    shapes = {}
    for request in requests:
        name = request.name
        sized = _fixed(request, fixed[name], overrides) if name in fixed else _flexible(request, slots[name])
        shapes[name] = _paused(request, sized, overrides)
    return shapes, _leftover(found, rules)


def division(requests: Sequence[GroupRequest], rules: Rules, *, overrides: Overrides) -> Division | None:
    """The static shares of what fixed groups leave; None where nothing is shared. Raises Refused as ``divide``."""
    fixed = _fixed_replicas(requests, overrides)
    return _division(requests, rules, fixed, overrides) if len(fixed) < len(requests) else None


def movable(requests: Sequence[GroupRequest], rules: Rules, *, overrides: Overrides) -> Movable:
    """The groups that autoscale, with what fixed groups and static shares leave them."""
    found = division(requests, rules, overrides=overrides)
    if found is None:
        return Movable((), 0, {})
    names = _autoscaled(requests)
    slots, capacity = found.left_by([share for share in found.shares if share.name not in names])
    return Movable(tuple(share for share in found.shares if share.name in names), slots, capacity)


def _division(
    requests: Sequence[GroupRequest], rules: Rules, fixed: Mapping[str, int], overrides: Overrides
) -> Division:
    """The static shares of what the ``fixed`` groups (replicas by name) leave, and what a cluster has of the budget."""
    taken = {one.name: fixed[one.name] * one.budget_slots for one in requests if one.name in fixed}
    taken |= _taken_by_moved(requests, overrides)
    shares = tuple(_share(one) for one in requests if one.name not in fixed)
    capacity = _capacity_left(rules.capacity, requests, fixed)
    slots = _slots_left(rules.budget, taken, shares)
    if not shares:
        return Division((), Allocation(slots, {}, 0, {}), capacity)
    try:
        return Division(shares, balance(slots, shares, tail=rules.tail, capacity=capacity), capacity)
    except Refused as error:
        if rules.budget is None or not taken or sum(share.min for share in shares) <= slots:
            raise
        whole = f"spec.concurrency {rules.budget} less {sum(taken.values())} of fixed groups"
        raise Refused(f"{error.message}; {slots} is {whole}", hint=error.hint) from None


def _fixed_replicas(requests: Sequence[GroupRequest], overrides: Overrides) -> dict[str, int]:
    """Replicas of the groups that are not divided: fixed in the manifest, or held by an override."""
    fixed = {}
    for request in requests:
        group = request.group
        if (moved := overrides.moved.get(request.name)) is not None:
            fixed[request.name] = -(-moved.here // request.slots_per_replica)
        elif request.name in overrides.replicas:
            fixed[request.name] = overrides.replicas[request.name]
        elif group.share is None and group.autoscale is None:
            fixed[request.name] = 1 if group.replicas is None else group.replicas
    return fixed


def _taken_by_moved(requests: Sequence[GroupRequest], overrides: Overrides) -> dict[str, int]:
    """What groups that moved take here, which may be less than whole replicas; and what the cluster has of each."""
    counts = {one.name for one in requests if one.budget_slots}
    here = {name: moved.here for name, moved in overrides.moved.items() if name in counts}
    return here | {f"{name} in the cluster": moved.there for name, moved in overrides.moved.items() if moved.there}


def _autoscaled(requests: Sequence[GroupRequest]) -> set[str]:
    return {request.name for request in requests if request.group.autoscale is not None}


def _capacity_left(
    capacity: Mapping[str, int], requests: Sequence[GroupRequest], fixed: Mapping[str, int]
) -> dict[str, int]:
    """What fixed groups leave of the other budgets. One that they alone overdraw is refused with the whole plan."""
    left = dict(capacity)
    for request in requests:
        slots = request.slots_per_replica
        for name in capacity:
            left[name] -= fixed.get(request.name, 0) * request.prices.used(name, slots, slots_per_replica=slots)
    return {name: there for name, there in left.items() if there >= 0}


def _share(request: GroupRequest) -> Share:
    """Its part, as asked for. Where there is no smaller replica, or none could become one, slots come whole."""
    said = request.group.autoscale or request.group.share or SaidShare()
    unit = lcm(said.unit, request.slots_per_replica) if request.whole else said.unit
    return Share(
        request.name, said.weight, said.min, said.max, said.tier, unit, request.slots_per_replica, request.prices
    )


def _slots_left(budget: int | None, taken: Mapping[str, int], shares: Sequence[Share]) -> int:
    """What fixed groups leave to the others. Without a budget each of them may have its max."""
    if budget is None:
        endless = [share.name for share in shares if share.max is None]
        if endless:
            raise Refused(
                f"{listed(map(repr, endless))}: a share of spec.concurrency, and the manifest has none",
                hint="set spec.concurrency, or give each of these groups a max",
            )
        return sum(share.max or 0 for share in shares)
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
class _Slots:
    count: int
    reason: str


def _static(found: Division) -> dict[str, _Slots]:
    slots, reasons = found.allocation.slots, found.allocation.reasons
    return {share.name: _Slots(slots[share.name], reasons[share.name]) for share in found.shares}


def _decided(found: Division, requests: Sequence[GroupRequest], overrides: Overrides) -> dict[str, _Slots]:
    """Groups the controller decided about, within their bounds and what the others leave of the budget.

    The manifest may have changed since: a decision about a group that does not autoscale any more has no effect.
    """
    names = _autoscaled(requests) & overrides.slots.keys()
    slots, capacity = found.left_by([share for share in found.shares if share.name not in names])
    ceilings = [_capped(share, overrides.slots[share.name]) for share in found.shares if share.name in names]
    decided = balance(slots, ceilings, capacity=capacity).slots if ceilings else {}
    static, why = found.allocation.slots, overrides.slot_reasons
    return {
        name: _Slots(count, f"{why.get(name, 'moved by the controller')}; static share {static[name]}")
        for name, count in decided.items()
    }


def _capped(share: Share, decision: int) -> Share:
    """The share with the decision, in whole units, as its ceiling."""
    whole = -(-max(share.min, decision) // share.unit) * share.unit
    ceiling = (UNBOUNDED if share.max is None else share.max) // share.unit * share.unit
    return replace(share, max=min(whole, ceiling))


def _leftover(found: Division, rules: Rules) -> tuple[str, ...]:
    """Why some of the budget is not used."""
    allocation = found.allocation
    if not allocation.left or rules.budget is None:
        return ()
    rest = counted(allocation.left, "slot")
    if allocation.next_in_line is None:
        used_up = f", or stopped by {listed(sorted(set(allocation.stopped.values())))}" if allocation.stopped else ""
        return (f"{rest} of spec.concurrency not used: every group is at its max{used_up}",)
    down, up = exact_budgets(allocation.budget, found.shares, capacity=found.capacity)
    base = rules.budget - allocation.budget
    return (
        f"{rest} of spec.concurrency not used: the next unit of {allocation.next_in_line!r} does not fit;"
        f" {base + down} or {base + up} would leave nothing over",
    )


def _fixed(request: GroupRequest, count: int, overrides: Overrides) -> Sized:
    if (moved := overrides.moved.get(request.name)) is not None:
        return Sized(shape(moved.here, request.slots_per_replica), moved.why)
    what = f"{counted(count, 'replica')} x {counted(request.budget_slots, 'slot')}"
    if request.name not in overrides.replicas:
        return Sized((request.slots_per_replica,) * count, f"{what}, fixed in the manifest")
    why = overrides.reasons.get(request.name)
    return Sized((request.slots_per_replica,) * count, f"{what}, held by scale --live" + (f": {why}" if why else ""))


def _flexible(request: GroupRequest, slots: _Slots) -> Sized:
    return Sized(shape(slots.count, request.slots_per_replica), slots.reason)


def _paused(request: GroupRequest, sized: Sized, overrides: Overrides) -> Sized:
    if not request.group.paused and request.name not in overrides.paused:
        return sized
    kept = counted(sum(sized.shape) if request.budget_slots else 0, "slot")
    return Sized((), f"paused; keeps its {kept} of the budget" if request.budget_slots else "paused", paused=True)
