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

from fleet.core.autoscale.allocate import Budget, divided
from fleet.core.autoscale.claim import Claim, Context, GroupMemory, claim
from fleet.core.autoscale.parameters import Parameters, ScaledGroup
from fleet.core.autoscale.sample import Sample
from fleet.core.text.format import duration

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
    """Slots per group. ``order``: which group is served first while slots are still being freed, the most deprived one.

    is_squeezed: a group has been short for a little while, so needs come before wants.
    """

    at: float
    verdicts: Mapping[str, Verdict]
    order: tuple[str, ...]
    memory: Memory
    is_squeezed: bool = False

    @property
    def slots(self) -> dict[str, int]:
        """Group -> slots."""
        return {name: verdict.gets for name, verdict in self.verdicts.items()}

    @property
    def moves(self) -> dict[str, str]:
        """Group -> reason, for those whose number changes."""
        return {name: one.reason for name, one in self.verdicts.items() if one.gets != one.has}


def decide(
    memory: Memory,
    samples: Mapping[str, Sample],
    groups: Sequence[ScaledGroup],
    *,
    budget: int,
    now: float,
    parameters: Parameters | None = None,
    capacity: Mapping[str, int] = _NO_CAPACITY,
) -> Decision:
    """Divide ``budget`` among the groups, each of which must have a sample. Raises Refused where floors do not fit."""
    parameters = parameters or Parameters()
    if memory.at is not None and not 0 <= now - memory.at <= _MEMORY_SECONDS:
        memory = EMPTY  # too old to tell anything; or the clock was set back, and it is in the future
    began_at = now if memory.began_at is None else memory.began_at
    context = Context(now, parameters, is_starting=now - began_at < parameters.window_seconds)
    whole = Budget(budget, capacity)
    claims = _claims(memory, samples, groups, whole, context)
    is_squeezed = any(_is_short_lately(one, context) for one in claims)
    gets, recalled = divided(claims, whole, context, is_squeezed=is_squeezed)
    verdicts = {one.name: _verdict(one, gets[one.name], parameters) for one in claims}
    order = sorted(claims, key=lambda one: (one.group.share.tier, one.has / float(one.group.share.weight), one.name))
    kept = {one.name: _remembered(one, context, was_recalled=one.name in recalled) for one in claims}
    return Decision(now, verdicts, tuple(one.name for one in order), Memory(began_at, now, kept), is_squeezed)


def affordable(
    decision: Decision, samples: Mapping[str, Sample], groups: Sequence[ScaledGroup], *, budget: int
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


def _claims(
    memory: Memory,
    samples: Mapping[str, Sample],
    groups: Sequence[ScaledGroup],
    whole: Budget,
    context: Context,
) -> list[Claim]:
    """The claim of every group, by name."""
    fair = whole.fair(groups)
    claims = []
    for group in sorted(groups, key=lambda group: group.name):
        sample = samples[group.name]
        past = memory.groups.get(group.name) or _first_memory(group, sample, context)
        top = _top(group, fair[group.name], whole.slots)
        claims.append(claim(group, sample, past, context, fair=fair[group.name], top=top))
    return claims


def _first_memory(group: ScaledGroup, sample: Sample, context: Context) -> GroupMemory:
    """Nothing is known: a group that runs may just have worked; one that is at zero went there for a reason."""
    return GroupMemory(worked_at=context.now if sample.has else context.now - group.idle_after_seconds)


def _top(group: ScaledGroup, fair: int, budget: int) -> int:
    """The most it could get, in whole units; without loans that is its static share."""
    most = budget if group.loans else min(budget, max(fair, group.floor))
    return group.ceiling(most)


def _is_short_lately(one: Claim, context: Context) -> bool:
    """A shortage that lasts is overload, not a burst: then no group is squeezed for it any longer."""
    since = one.short_since(context.now)
    return since is not None and context.now - since < context.parameters.squeeze_seconds


def _remembered(one: Claim, context: Context, *, was_recalled: bool) -> GroupMemory:
    """A shortage ends when the group has been content for a while: one that is met every other look is still one."""
    now, memory = context.now, one.memory
    recalled_at = now if was_recalled else memory.recalled_at
    if (since := one.short_since(now)) is not None:
        return replace(memory, recalled_at=recalled_at, short_since=since, content_since=None)
    content_since = now if memory.content_since is None else memory.content_since
    is_over = now - content_since >= context.parameters.burst_seconds
    short_since = None if is_over else memory.short_since
    return replace(memory, recalled_at=recalled_at, short_since=short_since, content_since=content_since)


def _verdict(one: Claim, gets: int, parameters: Parameters) -> Verdict:
    reason = one.why + _difference(one, gets, parameters)
    return Verdict(one.has, one.levels.need, one.wanted, one.levels.hold, one.fair, gets, reason, one.is_burst)


def _difference(one: Claim, gets: int, parameters: Parameters) -> str:
    """Why it does not simply get what it wants."""
    wanted = min(one.wanted, one.levels.hold)
    if gets < wanted:
        limited = gets >= one.fair and not one.group.loans
        return f"; {wanted - gets} short: {'no loans' if limited else 'the budget is full'}"
    if gets > one.wanted and parameters.surplus == "keep":
        return f"; has {gets - one.wanted} more that no group needs"
    if gets > one.wanted:
        patience = duration(parameters.patience_seconds(one.group))
        return f"; keeps {gets - one.wanted} more for up to {patience}, or until another group needs them"
    if gets == one.has < one.wanted:
        return "; the change is within tolerance, or too recent"
    return ""
