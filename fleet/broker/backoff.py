"""Growing pauses between attempts, spread a little so that many workers do not come back at the same moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from fleet.core.backoff import backoff_seconds


@dataclass(frozen=True, slots=True)
class Backoff:
    """``initial * 2^n`` seconds, at most ``max``. With ``jitter`` 0.5 a pause is between half and all of that."""

    initial_seconds: float = 1.0
    max_seconds: float = 30.0
    jitter: float = 0.5

    def seconds(self, attempts: int, rng: Callable[[], float] = random.random) -> float:
        """The pause after this many attempts that failed before (0 for the first)."""
        whole = backoff_seconds(attempts, initial_seconds=self.initial_seconds, max_seconds=self.max_seconds)
        return whole * (1.0 - self.jitter * rng())
