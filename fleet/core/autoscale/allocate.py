"""One budget among claims, filled in layers: floors, needs, wants, and last what only hysteresis would keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from fleet.core.autoscale.claim import Claim, Context
from fleet.core.autoscale.parameters import ScaledGroup
from fleet.core.balance.divide import balance
from fleet.core.balance.shares import Share

Slots = dict[str, int]


@dataclass(frozen=True, slots=True)
class Budget:
    """Slots to divide, and the other resources that there are."""

    slots: int
    capacity: Mapping[str, int]

    def fair(self, groups: Sequence[ScaledGroup]) -> Mapping[str, int]:
        """Group -> slots: the static shares."""
        return _fair(self.slots, tuple(group.share for group in groups), tuple(sorted(self.capacity.items())))

    def filled(self, claims: Sequence[Claim], floors: Mapping[str, int], ceilings: Mapping[str, int]) -> Slots:
        """Group -> slots, filled by weight from the floors towards the ceilings."""
        tops = {one.name: max(floors[one.name], ceilings[one.name]) for one in claims}
        if not self.capacity and sum(tops.values()) <= self.slots:
            return tops
        shares = [replace(one.group.share, min=floors[one.name], max=tops[one.name]) for one in claims]
        return dict(balance(self.slots, shares, tail="fill", capacity=self.capacity).slots)


@lru_cache(maxsize=64)
def _fair(slots: int, shares: tuple[Share, ...], capacity: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    return balance(slots, shares, tail="fill", capacity=dict(capacity)).slots


def divided(claims: Sequence[Claim], budget: Budget, context: Context, *, is_squeezed: bool) -> tuple[Slots, set[str]]:
    """Slots per group, and the groups whose held slots were called back. ``is_squeezed``: needs come before wants."""
    floors = _floors(claims, budget)
    needs = {one.name: one.levels.need for one in claims}
    wants = {one.name: one.levels.want for one in claims}
    holds = {one.name: one.levels.hold for one in claims}

    def filled(wants: Slots) -> Slots:
        return _layered(claims, budget, floors, (needs, wants, holds) if is_squeezed else (wants, holds))

    gets = filled(wants)
    recalled, spared = _recalled(claims, gets, wants, context)
    if spared:
        gets = filled(wants | spared)
    gets = _with_loans_limited(claims, gets, floors, context.parameters.loan_within_seconds)
    return _with_surplus_kept(claims, gets, budget) if context.parameters.surplus == "keep" else gets, recalled


def _floors(claims: Sequence[Claim], budget: Budget) -> Slots:
    """What no other group may take: only the minimums, where groups without metrics hold more than there is."""
    floors = {one.name: one.levels.floor for one in claims}
    used = {name: sum(one.group.share.used(name, one.levels.floor) for one in claims) for name in budget.capacity}
    fits = sum(floors.values()) <= budget.slots and all(used[name] <= there for name, there in budget.capacity.items())
    return floors if fits else {one.name: one.group.floor for one in claims}


def _layered(claims: Sequence[Claim], budget: Budget, floors: Slots, layers: Sequence[Slots]) -> Slots:
    slots = floors
    for ceilings in layers:
        slots = budget.filled(claims, slots, ceilings)
    return slots


def _recalled(claims: Sequence[Claim], gets: Slots, wants: Slots, context: Context) -> tuple[set[str], Slots]:
    """Where a group goes short, slots that others only hold are called back: from which, and which keep how many.

    What a group holds beyond its own share goes at once. Within its share it is called at most once per its patience,
    since starting those slots again is dear; or at once when another group is short of its own share.
    """
    if all(gets[one.name] >= wants[one.name] for one in claims):
        return set(), {}
    is_owed = any(gets[one.name] < min(wants[one.name], one.fair) for one in claims)
    recalled: set[str] = set()
    spared: Slots = {}
    for one in claims:
        own = max(wants[one.name], min(one.levels.hold, one.fair))
        if own == wants[one.name] or gets[one.name] >= own:
            continue
        if is_owed or _may_be_recalled(one, context):
            recalled.add(one.name)
        else:
            spared[one.name] = own
    return recalled, spared


def _may_be_recalled(one: Claim, context: Context) -> bool:
    last = one.memory.recalled_at
    return last is None or context.now - last >= context.parameters.patience_seconds(one.group)


def _with_loans_limited(claims: Sequence[Claim], gets: Slots, floors: Slots, within_seconds: float | None) -> Slots:
    """A group goes beyond its share only by what it can give back in time; None: by any number.

    Of n slots with tasks of S seconds n * R / S come free within R seconds, so a loan L comes back in time where
    L <= (share + L) * R / S.
    """
    if within_seconds is None:
        return gets
    limited = dict(gets)
    for one in claims:
        task_seconds = one.load.task_seconds if one.load else 0.0
        if gets[one.name] > one.fair and task_seconds > within_seconds:
            unit = one.group.share.unit
            loan = int(one.fair * within_seconds / (task_seconds - within_seconds)) // unit * unit
            limited[one.name] = min(gets[one.name], max(floors[one.name], one.fair + loan))
    return limited


def _with_surplus_kept(claims: Sequence[Claim], gets: Slots, budget: Budget) -> Slots:
    """What no group needs stays where it is, the dearest to start first; what is nowhere yet goes by weight.

    A group that has gone to zero, which it must have been allowed to, gets none of it.
    """
    tops = {one.name: one.top if one.levels.hold else gets[one.name] for one in claims}
    for start_seconds in sorted({one.group.start_seconds for one in claims}, reverse=True):
        dear = [one for one in claims if one.group.start_seconds == start_seconds]
        kept = {one.name: _whole(one, min(one.has, tops[one.name])) for one in dear}
        gets = budget.filled(claims, gets, {**gets, **kept})
    return budget.filled(claims, gets, tops)


def _whole(one: Claim, slots: int) -> int:
    return slots // one.group.share.unit * one.group.share.unit
