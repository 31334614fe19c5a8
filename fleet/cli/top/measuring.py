"""What top works out from one look to the next: rates, processors and waits, with a short history. PURE."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet.core.status import Status
from fleet.replica.task_counters import Histogram

KEPT = 120
"""Looks that sparklines can show."""
_LEAST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen at one moment. now: monotonic seconds.  waits: of all tasks of a group since the first."""

    status: Status
    now: float
    waits: Mapping[str, Histogram] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Picture:
    """A sight with what differs from the one before; empty after the first.

    rates: tasks per second, by group and replica.  cpu: percent of one processor, by replica.
    done: tasks per second of each look, oldest first, by group; '' for the fleet.  waits: seconds that tasks which
    started then had waited on average, None where none started, in the same way.
    """

    status: Status
    rates: Mapping[str, float] = field(default_factory=dict)
    cpu: Mapping[str, float] = field(default_factory=dict)
    done: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    waits: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


class Measuring:
    """Remembers the last sight and the history."""

    def __init__(self) -> None:
        self._last: Sight | None = None
        self._done: dict[str, deque[float]] = {}
        self._waits: dict[str, deque[float | None]] = {}

    def take(self, sight: Sight) -> Picture:
        """The picture after one more look."""
        last, self._last = self._last, sight
        if last is None:
            return Picture(sight.status)
        seconds = max(_LEAST_SECONDS, sight.now - last.now)
        before, after = _processed(last.status), _processed(sight.status)
        rates = {name: max(0, count - before.get(name, count)) / seconds for name, count in after.items()}
        for group in sight.status.groups.values():
            # Replica by replica: one that was restarted counts from 0 again.
            rates[group.name] = sum(rates[worker.name] for worker in group.workers)
        spent, total = _cpu(last.status), _cpu(sight.status)
        cpu = {name: max(0.0, value - spent.get(name, value)) / seconds * 100 for name, value in total.items()}
        self._remember(sight, last, rates)
        return Picture(
            sight.status,
            rates,
            cpu,
            {name: tuple(values) for name, values in self._done.items()},
            {name: tuple(values) for name, values in self._waits.items()},
        )

    def _remember(self, sight: Sight, last: Sight, rates: Mapping[str, float]) -> None:
        groups = sight.status.groups
        fresh = {name: _since(sight.waits.get(name), last.waits.get(name)) for name in groups}
        done = {name: rates[name] for name in groups}
        sums = [sum(pair[0] for pair in fresh.values()), sum(pair[1] for pair in fresh.values())]
        waits = {name: seconds / count if count else None for name, (count, seconds) in fresh.items()}
        for name, rate in {**done, "": sum(done.values())}.items():
            self._done.setdefault(name, deque(maxlen=KEPT)).append(rate)
        for name, wait in {**waits, "": sums[1] / sums[0] if sums[0] else None}.items():
            self._waits.setdefault(name, deque(maxlen=KEPT)).append(wait)


def _since(now: Histogram | None, before: Histogram | None) -> tuple[float, float]:
    """How many waits came since, and their sum in seconds."""
    if now is None or before is None or now.count < before.count:
        return 0, 0.0
    return now.count - before.count, max(0.0, now.sum_seconds - before.sum_seconds)


def _processed(status: Status) -> dict[str, int]:
    return {worker.name: worker.processed for group in status.groups.values() for worker in group.workers}


def _cpu(status: Status) -> dict[str, float]:
    return {worker.name: worker.cpu_seconds for group in status.groups.values() for worker in group.workers}
