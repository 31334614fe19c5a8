"""When something is put right, and when that is given up.

The first time at once (a parked replica has just crashed many times: after a pause). Each time more within ten minutes
after a longer pause, and after three times not again, until it is well or a person has put it right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from fleet.core.healing.kinds import STOPS_FIRST, Ailment, Kind, Mode
from fleet.core.observed import Observed

WINDOW_SECONDS = 600.0
MOST_HEALS = 3
PAUSE_SECONDS = 15.0
PARKED_PAUSE_SECONDS = 30.0


class Verdict(StrEnum):
    """heal: now.  wait: later.  given up: a person is needed.  warn: only said."""

    HEAL = "heal"
    WAIT = "wait"
    GIVEN_UP = "given up"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Judged:
    """One ailment. heals: how often it was put right within the window.  due: Unix seconds, for ``wait``.  fresh: it is
    the first look with this verdict."""

    ailment: Ailment
    verdict: Verdict
    heals: int = 0
    due: float = 0.0
    fresh: bool = True


@dataclass(frozen=True, slots=True)
class HealMemory:
    """What is remembered from one look to the next, by the key of an ailment.

    heals: when it was put right, within the window.  since: when it was first seen.  given_up, warned: told already.
    under_way: replica -> class, for one that was stopped in order to start again.  ending: groups in which an override
    has ended, and that are not yet as they are without it.
    """

    heals: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    since: Mapping[str, float] = field(default_factory=dict)
    given_up: frozenset[str] = frozenset()
    warned: frozenset[str] = frozenset()
    under_way: Mapping[str, str] = field(default_factory=dict)
    ending: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; ``decoded`` reads it back to an equal value."""
        document = asdict(self)
        return {key: sorted(value) if isinstance(value, frozenset) else value for key, value in document.items()}


NOTHING_HEALED = HealMemory()


def judge(
    found: Iterable[Ailment], memory: HealMemory, modes: Mapping[Kind, Mode], *, now: float
) -> tuple[Judged, ...]:
    """What is done about each of these now, classes that are off left out. ``modes``: by class."""
    return tuple(_judged(one, memory, modes[one.kind], now) for one in found if modes[one.kind] is not Mode.OFF)


def _judged(ailment: Ailment, memory: HealMemory, mode: Mode, now: float) -> Judged:
    key = ailment.key
    heals = recent(memory.heals.get(key, ()), now=now)
    if mode is Mode.WARN:
        return Judged(ailment, Verdict.WARN, len(heals), fresh=key not in memory.warned)
    if ailment.kind is Kind.OVERRIDES or ailment.goes_on:
        return Judged(ailment, Verdict.HEAL, len(heals))
    if key in memory.given_up or len(heals) >= MOST_HEALS:
        return Judged(ailment, Verdict.GIVEN_UP, len(heals), fresh=key not in memory.given_up)
    due = max(memory.since.get(key, now), heals[-1] if heals else 0.0) + pause_seconds(ailment.kind, len(heals))
    return Judged(ailment, Verdict.WAIT if due > now else Verdict.HEAL, len(heals), due)


def pause_seconds(kind: Kind, heals: int) -> float:
    """Before it is put right once more; it grows with each time."""
    if kind is Kind.PARKED:
        return PARKED_PAUSE_SECONDS * (1 << heals)
    return PAUSE_SECONDS * (1 << heals) if heals else 0.0


def recent(moments: Sequence[float], *, now: float) -> tuple[float, ...]:
    """Those within the window; a clock that was set back forgets none for ever."""
    return tuple(moment for moment in moments if now - WINDOW_SECONDS < moment <= now)


def remembered(
    memory: HealMemory,
    judged: Sequence[Judged],
    begun: Collection[str],
    *,
    observed: Observed,
    ending: frozenset[str],
    now: float,
) -> HealMemory:
    """After a look. ``begun``: keys of what was put right.  ending: see :class:`HealMemory`."""
    by_key = {one.ailment.key: one for one in judged}
    ailing = [one.ailment for one in judged if one.ailment.key in begun]
    heals = {key: times for key, moments in memory.heals.items() if (times := recent(moments, now=now))}
    for one in ailing:
        if not one.goes_on:
            heals[one.key] = (*heals.get(one.key, ()), now)
    return HealMemory(
        heals=heals,
        since={key: min(memory.since.get(key, now), now) for key in by_key},
        given_up=frozenset(key for key, one in by_key.items() if one.verdict is Verdict.GIVEN_UP),
        warned=frozenset(key for key, one in by_key.items() if one.verdict is Verdict.WARN),
        under_way=_under_way(memory, ailing, observed),
        ending=ending,
    )


def _under_way(memory: HealMemory, ailing: Iterable[Ailment], observed: Observed) -> dict[str, str]:
    """Those that were told to stop and have not come back."""
    seen = observed.replicas
    found = {name: kind for name, kind in memory.under_way.items() if name in seen and not seen[name].is_ready}
    for one in ailing:
        if one.goes_on:
            found.pop(one.step.replica, None)
        elif one.step.action in STOPS_FIRST and one.step.replica in seen and seen[one.step.replica].running:
            found[one.step.replica] = str(one.kind)
    return found


@dataclass(frozen=True, slots=True)
class Heals:
    """What a look found wrong, and what it did about it. ``note``: what stood in the way, or ''."""

    judged: tuple[Judged, ...] = ()
    note: str = ""

    def to_json(self) -> list[dict[str, Any]]:
        """A row for each."""
        return [
            {
                "replica": one.ailment.step.replica,
                "class": str(one.ailment.kind),
                "step": str(one.ailment.step.action),
                "verdict": str(one.verdict),
                "reason": one.ailment.step.reason,
                "heals": one.heals,
                "due": round(one.due, 3) if one.verdict is Verdict.WAIT else None,
            }
            for one in self.judged
        ]
