"""Pauses for a task that asks again and again to be put back into its queue: each time a longer one.

Counted by the worker itself, which keeps the message during the pause: the broker could not say how often it came.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from fleet.broker.backoff import Backoff

PAUSES = Backoff(initial_seconds=0.1, max_seconds=30.0, jitter=0.0)
FORGET_SECONDS = 300.0
REMEMBERED = 1024


class Requeues:
    """Task id -> how often it was put back here, and when that was last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def pause_seconds(self, task_id: str) -> float:
        """It is to be put back once more: how long to keep it before that. The first time costs nothing."""
        now = self._clock()
        count, last_at = self._known.pop(task_id, (0, now))
        if now - last_at > FORGET_SECONDS:
            count = 0
        self._known[task_id] = (count + 1, now)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return PAUSES.seconds(count - 1) if count else 0.0
