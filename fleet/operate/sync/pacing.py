"""When to look again: an interval that varies a little, and growing pauses after failures."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.core.backoff import backoff_seconds


@dataclass(frozen=True, slots=True)
class Pacing:
    """How often a loop looks. ``jitter``: the part by which each pause varies, so that many fleets spread out."""

    interval_seconds: float
    jitter: float
    first_retry_seconds: float
    longest_retry_seconds: float


def pause_seconds(pacing: Pacing, *, failures: int, chance: float) -> float:
    """The pause before the next look after so many failures in a row. ``chance``: drawn evenly from 0 to 1."""
    if failures <= 0:
        base = pacing.interval_seconds
    else:
        first = pacing.first_retry_seconds
        longest = max(pacing.longest_retry_seconds, first)
        base = backoff_seconds(failures - 1, initial_seconds=first, max_seconds=longest)
    return base * (1.0 + pacing.jitter * (2.0 * chance - 1.0))


HEALS_IN_A_ROW = 3
HEAL_WINDOW_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Heals:
    """When the same repair was made of late: two who change a fleet in turns must not do so for ever."""

    what: str = ""
    times: tuple[float, ...] = ()

    def may(self, what: str, now: float) -> bool:
        """Whether this repair may be made again. Another one always may."""
        recent = [at for at in self.times if now - at < HEAL_WINDOW_SECONDS]
        return what != self.what or len(recent) < HEALS_IN_A_ROW

    def made(self, what: str, now: float) -> Heals:
        """With this repair noted."""
        times = self.times if what == self.what else ()
        return Heals(what, (*(at for at in times if now - at < HEAL_WINDOW_SECONDS), now))
