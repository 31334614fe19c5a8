"""One budget among bids, in layers: floors, needs, wants, and last what only hysteresis would keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from fleet.core.balance import balance
from fleet.core.bid import Bid, Moment
from fleet.core.scaling import Scaled
from fleet.core.shares import Share

Slots = dict[str, int]


@dataclass(frozen=True, slots=True)
class Pot:
    """What there is to divide: slots, and other resources they have prices in."""

    budget: int
    capacity: Mapping[str, int]

    def fair(self, groups: Sequence[Scaled]) -> Mapping[str, int]:
        """The static shares."""
        return _fair(self.budget, tuple(group.share for group in groups), tuple(sorted(self.capacity.items())))

    def filled(self, bids: Sequence[Bid], floors: Mapping[str, int], ceilings: Mapping[str, int]) -> Slots:
        """By weight from the floors towards the ceilings."""
        tops = {one.name: max(floors[one.name], ceilings[one.name]) for one in bids}
        if not self.capacity and sum(tops.values()) <= self.budget:
            return tops
        shares = [replace(one.group.share, min=floors[one.name], max=tops[one.name]) for one in bids]
        return dict(balance(self.budget, shares, tail="fill", capacity=self.capacity).slots)


@lru_cache(maxsize=64)
def _fair(budget: int, shares: tuple[Share, ...], capacity: tuple[tuple[str, int], ...]) -> Mapping[str, int]:
    return balance(budget, shares, tail="fill", capacity=dict(capacity)).slots


def divided(bids: Sequence[Bid], pot: Pot, moment: Moment, *, is_squeezed: bool) -> tuple[Slots, set[str]]:
    """Slots per group, and the groups whose held slots were called back."""
    floors = _floors(bids, pot)
    keeps = {one.name: max(floors[one.name], min(one.keep, one.cap)) for one in bids}
    needs = {one.name: max(floors[one.name], one.need) for one in bids} if is_squeezed else dict(keeps)
    caps = {one.name: one.cap for one in bids}
    gets = _layered(bids, pot, floors, (needs, keeps, caps))
    recalled, protected = _recalled(bids, gets, keeps, moment)
    if protected:
        keeps |= protected
        needs |= {} if is_squeezed else protected
        gets = _layered(bids, pot, floors, (needs, keeps, caps))
    if moment.tuning.loan_within_seconds is not None:
        gets = _with_loans_limited(bids, gets, floors, moment.tuning.loan_within_seconds)
    if moment.tuning.surplus == "keep":
        gets = _with_surplus_kept(bids, gets, pot)
    return gets, recalled


def _floors(bids: Sequence[Bid], pot: Pot) -> Slots:
    """What nobody may take. Where groups without metrics hold more than there is, only their minimums count."""
    floors = {one.name: one.floor for one in bids}
    used = {name: sum(one.group.share.used(name, one.floor) for one in bids) for name in pot.capacity}
    fits = sum(floors.values()) <= pot.budget and all(used[name] <= there for name, there in pot.capacity.items())
    return floors if fits else {one.name: one.group.floor for one in bids}


def _layered(bids: Sequence[Bid], pot: Pot, floors: Slots, layers: Sequence[Slots]) -> Slots:
    slots = floors
    for ceilings in layers:
        slots = pot.filled(bids, slots, ceilings)
    return slots


def _recalled(bids: Sequence[Bid], gets: Slots, keeps: Slots, moment: Moment) -> tuple[set[str], Slots]:
    """Somebody goes short, so slots that others only hold are called back: from whom, and who is spared with how many.

    What a group holds beyond its own share goes at once. Within its share it is called at most once per its patience,
    since starting those slots again is dear; or at once when somebody is short of their own share.
    """
    if all(gets[one.name] >= keeps[one.name] for one in bids):
        return set(), {}
    is_owed = any(gets[one.name] < min(keeps[one.name], one.fair) for one in bids)
    recalled: set[str] = set()
    spared: Slots = {}
    for one in bids:
        own = max(keeps[one.name], min(one.cap, one.fair))
        if own == keeps[one.name] or gets[one.name] >= own:
            continue
        if is_owed or _may_be_recalled(one, moment):
            recalled.add(one.name)
        else:
            spared[one.name] = own
    return recalled, spared


def _may_be_recalled(one: Bid, moment: Moment) -> bool:
    last = one.memory.recalled_at
    return last is None or moment.now - last >= moment.tuning.patience_seconds(one.group)


def _with_loans_limited(bids: Sequence[Bid], gets: Slots, floors: Slots, within_seconds: float) -> Slots:
    """A group goes beyond its share only by what it can give back in time.

    Of n slots with tasks of S seconds n * R / S come free within R seconds, so a loan L comes back in time where
    L <= (share + L) * R / S.
    """
    limited = dict(gets)
    for one in bids:
        task_seconds = one.pace.task_seconds if one.pace else 0.0
        if gets[one.name] > one.fair and task_seconds > within_seconds:
            unit = one.group.share.unit
            loan = int(one.fair * within_seconds / (task_seconds - within_seconds)) // unit * unit
            limited[one.name] = min(gets[one.name], max(floors[one.name], one.fair + loan))
    return limited


def _with_surplus_kept(bids: Sequence[Bid], gets: Slots, pot: Pot) -> Slots:
    """What nobody needs stays where it is, the dearest to start first; what is nowhere yet goes by weight.

    A group that has gone to zero, which it must have been allowed to, gets none of it.
    """
    tops = {one.name: one.top if one.cap else gets[one.name] for one in bids}
    for start_seconds in sorted({one.group.start_seconds for one in bids}, reverse=True):
        dear = [one for one in bids if one.group.start_seconds == start_seconds]
        gets = pot.filled(bids, gets, {**gets, **{one.name: _whole(one, min(one.has, tops[one.name])) for one in dear}})
    return pot.filled(bids, gets, tops)


def _whole(one: Bid, slots: int) -> int:
    return slots // one.group.share.unit * one.group.share.unit
