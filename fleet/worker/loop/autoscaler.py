"""Slots that follow the work within bounds: what ``celery control autoscale`` asks of one worker.

It concerns this worker only, for operators who use `celery control`; the next apply, which knows the fleet, ends it.
"""

from __future__ import annotations

from dataclasses import dataclass

IDLE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most slots."""

    least: int
    most: int

    def clamp(self, slots: int) -> int:
        """The nearest number within."""
        return max(self.least, min(slots, self.most))


class Autoscaler:
    """Grows when no slot is free and a message waits; shrinks when slots were not needed for a while."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._peak = 0
        self._since: float | None = None

    def wanted(self, now: float, *, slots: int, busy: int, waiting: int) -> int:
        """How many slots there should be now; at most twice as many. Call it about once a second."""
        if self._since is None:
            self._since = now
        self._peak = max(self._peak, busy)
        if busy >= slots and waiting > 0:
            self._begin_again(now)
            return self.bounds.clamp(slots + min(waiting, slots))
        if now - self._since >= IDLE_SECONDS:
            peak = self._peak
            self._begin_again(now)
            return self.bounds.clamp(min(slots, max(1, peak)))
        return self.bounds.clamp(slots)

    def _begin_again(self, now: float) -> None:
        self._since, self._peak = now, 0
