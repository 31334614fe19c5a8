"""How fast the tasks of a group come and how long they take, from counters alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

from fleet.core.autoscale.parameters import Parameters, ScaledGroup
from fleet.core.autoscale.sample import Sample

_SPARSE_EVERY_SECONDS = 10.0
_SPARSE_KEPT_SECONDS = 600.0
_TASKS_OF_PRIOR = 3.0
_TASKS_OF_RUNTIME = 20


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of a group at a moment. Arrivals need no counter of their own: they are done, running or waiting."""

    at: float
    arrivals: int
    completions: int
    busy_seconds: float

    def is_before(self, later: Reading) -> bool:
        """Whether no counter went back in between."""
        return (
            self.at <= later.at
            and self.arrivals <= later.arrivals
            and self.completions <= later.completions
            and self.busy_seconds <= later.busy_seconds
        )

    @classmethod
    def of(cls, sample: Sample, now: float) -> Reading:
        """The counters of a sample from which nothing is missing."""
        queue, done = sample.queue or 0, sample.completions or 0
        return cls(now, done + sample.busy + queue, done, sample.busy_seconds or 0.0)


@dataclass(frozen=True, slots=True)
class CounterHistory:
    """Earlier readings: every one of the last minute, one in ten seconds of the last ten minutes."""

    recent: tuple[Reading, ...] = ()
    sparse: tuple[Reading, ...] = ()

    def then(self, reading: Reading, *, window_seconds: float, blur: int = 0) -> CounterHistory:
        """With one more. Counters that went back (their source restarted) make everything before worthless.

        blur: so many tasks may have been seen twice, in the queue and a moment later in a slot; and what was done since
        the last reading, too. Arrivals that went back by no more than that have not.
        """
        reading = self._unblurred(reading, blur)
        if self.recent and not self.recent[-1].is_before(reading):
            return CounterHistory((reading,), (reading,))
        recent = _since(reading.at - window_seconds, (*self.recent, reading))
        if self.sparse and reading.at - self.sparse[-1].at < _SPARSE_EVERY_SECONDS:
            return CounterHistory(recent, self.sparse)
        return CounterHistory(recent, _since(reading.at - _SPARSE_KEPT_SECONDS, (*self.sparse, reading)))

    def _unblurred(self, reading: Reading, blur: int) -> Reading:
        if not self.recent:
            return reading
        last = self.recent[-1]
        back = last.arrivals - reading.arrivals
        return (
            replace(reading, arrivals=last.arrivals)
            if 0 < back <= blur + reading.completions - last.completions
            else reading
        )

    @property
    def just_came(self) -> bool:
        """Whether something arrived since the reading before."""
        return len(self.recent) > 1 and self.recent[-1].arrivals > self.recent[-2].arrivals

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; ``decoded`` reads it back to an equal value."""
        return {name: [_row(one) for one in getattr(self, name)] for name in ("recent", "sparse")}


def _row(reading: Reading) -> list[float]:
    return [reading.at, reading.arrivals, reading.completions, reading.busy_seconds]


def _since(start: float, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
    """All from ``start`` on, and the last one before, so that they span the whole time."""
    first = 0
    while first + 2 < len(readings) and readings[first + 1].at <= start:
        first += 1
    return readings[first:]


@dataclass(frozen=True, slots=True)
class Load:
    """How fast tasks come, how long one takes, and whether more come than chance explains."""

    rate: float
    task_seconds: float
    is_burst: bool = False

    @property
    def busy_slots(self) -> float:
        """Slots that are busy on average."""
        return self.rate * self.task_seconds

    def __str__(self) -> str:
        return f"{self.rate:.2f} tasks/s x {self.task_seconds:.2f} s"


def load_of(history: CounterHistory, group: ScaledGroup, parameters: Parameters) -> Load:
    """The load at the last reading."""
    calm = _calm_rate(history, parameters)
    rate = max(calm, _burst_rate(history, calm, parameters))
    return Load(rate, _task_seconds(history, group, parameters), is_burst=rate > calm)


def estimated_age_seconds(history: CounterHistory, queue: int) -> float | None:
    """How long the oldest of ``queue`` waiting tasks has waited, if they are taken in the order in which they came.

    It came when all tasks but these had arrived: that moment lies between two readings. None before the history begins.
    """
    readings = (
        (*(one for one in history.sparse if one.at < history.recent[0].at), *history.recent) if history.recent else ()
    )
    if not queue or not readings:
        return None
    now, arrived = readings[-1], readings[-1].arrivals - queue
    for earlier, later in zip(reversed(readings[:-1]), reversed(readings[1:]), strict=True):
        if earlier.arrivals <= arrived:
            part = (arrived - earlier.arrivals) / max(1, later.arrivals - earlier.arrivals)
            return now.at - (earlier.at + part * (later.at - earlier.at))
    return None


def _calm_rate(history: CounterHistory, parameters: Parameters) -> float:
    """Arrivals per second over the last minute, or over longer where so few tell little and nothing has changed."""
    now, first = history.recent[-1], history.recent[0]
    seconds = now.at - first.at
    if seconds <= 0:
        return 0.0
    count = now.arrivals - first.arrivals
    if count >= parameters.window_arrivals:
        return count / seconds
    enough = (old for old in reversed(history.sparse) if now.arrivals - old.arrivals >= parameters.window_arrivals)
    old = next(enough, history.sparse[0])
    if now.at - old.at <= seconds:
        return count / seconds
    wide = (now.arrivals - old.arrivals) / (now.at - old.at)
    expected = wide * seconds
    has_shifted = abs(count - expected) > parameters.shift_sigma * sqrt(expected + 1.0)
    return count / seconds if has_shifted else wide


def _burst_rate(history: CounterHistory, calm: float, parameters: Parameters) -> float:
    """The rate of the last tick or the last seconds where it is beyond chance; else 0.

    Beyond chance is counted in standard deviations, so that it fits 0.3 and 300 tasks a second alike.
    """
    now, rates = history.recent[-1], [0.0]
    slack = parameters.tick_seconds / 4  # looks are never quite as far apart as they should be
    for window in (parameters.tick_seconds, parameters.burst_seconds):
        old = next(one for one in history.recent if one.at >= now.at - window - slack)
        seconds, count = now.at - old.at, now.arrivals - old.arrivals
        expected = calm * seconds
        if seconds > 0 and count > expected + parameters.burst_sigma * sqrt(expected + 1.0):
            rates.append(count / seconds)
    return max(rates)


def _task_seconds(history: CounterHistory, group: ScaledGroup, parameters: Parameters) -> float:
    """Busy time per completion, tasks still running included. The expected time weighs as much as three tasks."""
    now = history.recent[-1]
    told = (
        old
        for old in reversed(history.sparse)
        if now.at - old.at >= parameters.runtime_window_seconds
        and now.completions - old.completions >= _TASKS_OF_RUNTIME
    )
    old = next(told, history.sparse[0])
    prior = group.expected_runtime_seconds * _TASKS_OF_PRIOR
    return (prior + now.busy_seconds - old.busy_seconds) / (_TASKS_OF_PRIOR + now.completions - old.completions)
