"""Rate limits of tasks in this worker: a task over its rate waits here, and keeps its turn.

Each limited task has a moment at which its next run may begin. A run over the rate reserves a moment of its own, one
interval after the one before, so that waiting tasks start in order and none of them is asked twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fleet.worker.task.job import Job, Key

MOST_WAITING = 20
"""Most tasks that wait here for their turn. Then nothing is fetched: other workers may have room for the rest."""

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def per_second(rate: object) -> float | None:
    """Celery's way to write a rate: ``10/s``, ``100/m``, ``5/h``, or a number per second; None for no limit.

    Raises ValueError for anything else.
    """
    if rate is None or rate == "":
        return None
    if isinstance(rate, str):
        number, _, unit = rate.partition("/")
        if (unit or "s") not in _SECONDS:
            raise ValueError(f"{rate!r} is no rate: write 10/s, 100/m or 5/h")
        found = _number(number, rate) / _SECONDS[unit or "s"]
    else:
        found = _number(rate, rate)
    return found or None


def _number(text: object, rate: object) -> float:
    try:
        found = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        found = math.nan
    if not 0 <= found < math.inf:
        raise ValueError(f"{rate!r} is no rate: write 10/s, 100/m or 5/h")
    return found


@dataclass(slots=True)
class _Bucket:
    """One limited task. next_at: when its next run may begin.  turns: which of its runs wait, and until when."""

    interval_seconds: float
    next_at: float = 0.0
    turns: dict[Key, float] = field(default_factory=dict)


class RateLimits:
    """The gate of a worker some of whose tasks have a rate."""

    def __init__(self, rates: Mapping[str, float] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets = {name: _Bucket(1.0 / rate) for name, rate in (rates or {}).items()}

    def __len__(self) -> int:
        return len(self._buckets)

    def limit(self, task_name: str, rate: float | None) -> None:
        """``rate``: starts a second from now on; None: no limit."""
        if rate is None:
            self._buckets.pop(task_name, None)
        else:
            self._buckets[task_name] = _Bucket(1.0 / rate)

    @property
    def full(self) -> bool:
        """Whether so many tasks wait for their turn that no more should be fetched."""
        if not self._buckets or self._waiting() < MOST_WAITING:
            return False
        self._drop_passed()
        return self._waiting() >= MOST_WAITING

    def _waiting(self) -> int:
        return sum(len(bucket.turns) for bucket in self._buckets.values())

    def _drop_passed(self) -> None:
        """Remove turns that were not taken: their tasks were revoked or have expired."""
        passed = self._clock() - 1.0
        for bucket in self._buckets.values():
            bucket.turns = {key: turn for key, turn in bucket.turns.items() if turn > passed}

    def pause_seconds(self, job: Job) -> float:
        """How long this task must still wait; 0.0: it may start, and is counted."""
        bucket = self._buckets.get(job.call.name)
        if bucket is None:
            return 0.0
        now = self._clock()
        turn = bucket.turns.get(job.key)
        if turn is None:
            turn = max(now, bucket.next_at)
            bucket.next_at = turn + bucket.interval_seconds
        if turn > now:
            bucket.turns[job.key] = turn
            return turn - now
        bucket.turns.pop(job.key, None)
        return 0.0

    def is_limited(self, task_name: str) -> bool:
        """Whether it has a rate."""
        return task_name in self._buckets

    def forget_waiting(self) -> None:
        """Free the turns of all that waited: they were given back."""
        now = self._clock()
        for bucket in self._buckets.values():
            ahead = sum(1 for turn in bucket.turns.values() if turn > now)
            bucket.next_at -= ahead * bucket.interval_seconds
            bucket.turns.clear()
