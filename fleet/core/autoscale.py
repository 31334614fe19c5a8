"""Slots per group over time: samples and what is remembered of earlier ones -> a decision with a reason per group.

One rule shares one budget. Each group states a need (what meets its target) and a want (what meets it with room);
hysteresis says what it may keep. The budget is filled by weight in layers: floors, needs, wants, and last what only
hysteresis would keep. Everything is a function of its arguments: the same samples give the same decision, and a
controller that starts with an empty memory is merely careful for a minute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.core.bid import Bid, GroupMemory, Moment, bid
from fleet.core.layers import Pot, divided
from fleet.core.samples import Sample
from fleet.core.scaling import Scaled, Tuning
from fleet.core.wording import duration

_NO_CAPACITY: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class Memory:
    """What one decision leaves for the next. It may be lost: then nothing shrinks for a minute."""

    began_at: float | None = None
    at: float | None = None
    groups: Mapping[str, GroupMemory] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; ``decoded`` reads it back to an equal value."""
        groups = {name: one.to_json() for name, one in sorted(self.groups.items())}
        return {"beganAt": self.began_at, "at": self.at, "groups": groups}


EMPTY = Memory()
_MEMORY_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """One group of a decision: the row of ``explain --live``.

    has: slots now.  need, wants: what meets the target, and with room.  keeps: as hysteresis has it.
    share: its static share.  gets: the decision.
    """

    has: int
    need: int
    wants: int
    keeps: int
    share: int
    gets: int
    reason: str
    is_burst: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Slots per group. ``order``: who is served first while slots are still being freed; the most deprived one.

    is_squeezed: somebody has been short for a little while, so needs come before wants.
    """

    at: float
    verdicts: Mapping[str, Verdict]
    order: tuple[str, ...]
    memory: Memory
    is_squeezed: bool = False

    @property
    def slots(self) -> dict[str, int]:
        """What each group gets."""
        return {name: verdict.gets for name, verdict in self.verdicts.items()}

    @property
    def moves(self) -> dict[str, str]:
        """Groups whose number changes, with the reason."""
        return {name: one.reason for name, one in self.verdicts.items() if one.gets != one.has}


def decide(
    memory: Memory,
    samples: Mapping[str, Sample],
    groups: Sequence[Scaled],
    *,
    budget: int,
    now: float,
    tuning: Tuning | None = None,
    capacity: Mapping[str, int] = _NO_CAPACITY,
) -> Decision:
    """Divide ``budget`` among the groups, each of which must have a sample. Raises Refused where floors do not fit."""
    tuning = tuning or Tuning()
    if memory.at is not None and not 0 <= now - memory.at <= _MEMORY_SECONDS:
        memory = EMPTY  # too old to tell anything; or the clock was set back, and it is in the future
    began_at = now if memory.began_at is None else memory.began_at
    moment = Moment(now, tuning, is_starting=now - began_at < tuning.window_seconds)
    pot = Pot(budget, capacity)
    bids = _bids(memory, samples, groups, pot, moment)
    is_squeezed = any(_is_short_lately(one, moment) for one in bids)
    gets, recalled = divided(bids, pot, moment, is_squeezed=is_squeezed)
    verdicts = {one.name: _verdict(one, gets[one.name], tuning) for one in bids}
    order = sorted(bids, key=lambda one: (one.group.share.tier, one.has / float(one.group.share.weight), one.name))
    kept = {one.name: _remembered(one, moment, was_recalled=one.name in recalled) for one in bids}
    return Decision(now, verdicts, tuple(one.name for one in order), Memory(began_at, now, kept), is_squeezed)


def affordable(
    decision: Decision, samples: Mapping[str, Sample], groups: Sequence[Scaled], *, budget: int
) -> dict[str, int]:
    """What to ask for at once, so that ready, starting and draining slots never pass the budget.

    Less takes effect now. More waits until slots are free, the most deprived group first; slots given up now count
    at the next look, when they are seen to be gone.
    """
    asked = {name: min(samples[name].has, gets) for name, gets in decision.slots.items()}
    free = budget - sum(sample.has + sample.draining for sample in samples.values())
    units = {group.name: group.share.unit for group in groups}
    for name in decision.order:
        more = max(0, min(free, decision.slots[name] - asked[name])) // units[name] * units[name]
        asked[name] += more
        free -= more
    return asked


def _bids(
    memory: Memory,
    samples: Mapping[str, Sample],
    groups: Sequence[Scaled],
    pot: Pot,
    moment: Moment,
) -> list[Bid]:
    """Every group's bid, by name."""
    fair = pot.fair(groups)
    bids = []
    for group in sorted(groups, key=lambda group: group.name):
        sample = samples[group.name]
        past = memory.groups.get(group.name) or _first_memory(group, sample, moment)
        top = _top(group, fair[group.name], pot.budget)
        bids.append(bid(group, sample, past, moment, fair=fair[group.name], top=top))
    return bids


def _first_memory(group: Scaled, sample: Sample, moment: Moment) -> GroupMemory:
    """Nothing is known: a group that runs may just have worked; one that is at zero went there for a reason."""
    return GroupMemory(worked_at=moment.now if sample.has else moment.now - group.idle_after_seconds)


def _top(group: Scaled, fair: int, budget: int) -> int:
    """The most it could get, in whole units; without loans that is its static share."""
    most = min(budget if group.share.max is None else group.share.max, budget)
    if not group.loans:
        most = min(most, max(fair, group.floor))
    return most // group.share.unit * group.share.unit


def _is_short_lately(one: Bid, moment: Moment) -> bool:
    """A shortage that lasts is overload, not a burst: then nobody is squeezed for it any longer."""
    since = one.short_since(moment.now)
    return since is not None and moment.now - since < moment.tuning.squeeze_seconds


def _remembered(one: Bid, moment: Moment, *, was_recalled: bool) -> GroupMemory:
    """A shortage ends when the group has been content for a while: one that is met every other look is still one."""
    now, memory = moment.now, one.memory
    recalled_at = now if was_recalled else memory.recalled_at
    if (since := one.short_since(now)) is not None:
        return replace(memory, recalled_at=recalled_at, short_since=since, content_since=None)
    content_since = now if memory.content_since is None else memory.content_since
    is_over = now - content_since >= moment.tuning.burst_seconds
    short_since = None if is_over else memory.short_since
    return replace(memory, recalled_at=recalled_at, short_since=short_since, content_since=content_since)


def _verdict(one: Bid, gets: int, tuning: Tuning) -> Verdict:
    reason = one.why + _difference(one, gets, tuning)
    return Verdict(one.has, one.need, one.want, one.cap, one.fair, gets, reason, one.is_burst)


def _difference(one: Bid, gets: int, tuning: Tuning) -> str:
    """Why it does not simply get what it wants."""
    wanted = min(one.want, one.cap)
    if gets < wanted:
        limited = gets >= one.fair and not one.group.loans
        return f"; {wanted - gets} short: {'no loans' if limited else 'the budget is full'}"
    if gets > one.want and tuning.surplus == "keep":
        return f"; has {gets - one.want} more, which nobody needs"
    if gets > one.want:
        patience = duration(tuning.patience_seconds(one.group))
        return f"; keeps {gets - one.want} more for up to {patience}, or until somebody needs them"
    if gets == one.has < one.want:
        return "; the change is within tolerance, or too young"
    return ""
