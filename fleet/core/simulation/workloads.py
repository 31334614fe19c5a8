"""Tasks that come to a simulated fleet: five kinds of load, or the arrivals of a file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log, pi, sin
from typing import Protocol

from fleet.core.simulation.engine import Arrival
from fleet.errors import UsageError

HOUR_SECONDS = 3600.0
BURST_SECONDS = 60.0


class Chance(Protocol):
    """A source of random numbers, as :class:`random.Random` is one."""

    def random(self) -> float: ...

    def gauss(self, mu: float, sigma: float) -> float: ...

    def expovariate(self, lambd: float) -> float: ...


Draw = Callable[[Chance], float]


@dataclass(frozen=True, slots=True)
class BaseLoad:
    """The ordinary load of one group: tasks a second, how long one takes, and how much that varies (sigma by mean)."""

    name: str
    rate: float
    task_seconds: float
    variation: float = 1.0
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Flow:
    """How tasks come to one group over time. ``peak``: the highest rate; ``draw``: how long a task takes."""

    rate: Callable[[float], float]
    peak: float
    draw: Draw


def arrivals(flow: Flow, chance: Chance, *, until: float) -> Iterator[Arrival]:
    """A Poisson process whose rate changes: drawn at the peak, and thinned."""
    now = 0.0
    while flow.peak > 0:
        now += chance.expovariate(flow.peak)
        if now >= until:
            return
        if chance.random() * flow.peak <= flow.rate(now):
            yield now, flow.draw(chance)


def lognormal(mean: float, variation: float) -> Draw:
    """Times that are never negative, and sometimes long."""
    square = log(1.0 + variation * variation)
    middle, sigma = log(mean) - square / 2, square**0.5
    return lambda chance: exp(chance.gauss(middle, sigma))


def two_humps(mean: float) -> Draw:
    """Five of six tasks are short, the sixth takes twenty-five times as long."""
    short, long = lognormal(mean / 5, 0.5), lognormal(mean * 5, 0.5)
    return lambda chance: short(chance) if chance.random() < 5 / 6 else long(chance)


def _flat(base: BaseLoad, times: float = 1.0) -> Flow:
    rate = base.rate * times
    return Flow(lambda _now: rate, rate, lognormal(base.task_seconds, base.variation))


def steady(base_loads: Sequence[BaseLoad], *, budget: int, duration: float) -> dict[str, Flow]:
    """The ordinary load, all the time."""
    del budget, duration
    return {base.name: _flat(base) for base in base_loads}


def diurnal(base_loads: Sequence[BaseLoad], *, budget: int, duration: float) -> dict[str, Flow]:
    """Each group swings by nine tenths, twice in the run; the peaks lie apart."""
    del budget
    flows = {}
    for number, base in enumerate(base_loads):
        middle, shift = base.rate * 1.15, number / len(base_loads)

        def rate(now: float, middle: float = middle, shift: float = shift) -> float:
            return middle * (1 + 0.9 * sin(2 * pi * (2 * now / duration + shift)))

        flows[base.name] = replace(_flat(base), rate=rate, peak=middle * 1.9)
    return flows


_BURSTS = (
    *((0, 600), (3, 900), (2, 1200), (1, 1500), (0, 1800), (2, 1800)),
    *((4, 2100), (3, 2400), (0, 2700), (2, 3000), (1, 3000)),
)
"""(number of the group, second of an hour)."""


def spike(base_loads: Sequence[BaseLoad], *, budget: int, duration: float) -> dict[str, Flow]:
    """Half the ordinary load, with bursts of six times as much for a minute; sometimes two together."""
    del budget
    scale = duration / HOUR_SECONDS
    length = BURST_SECONDS * min(1.0, max(1 / 3, scale))
    flows = {}
    for number, base in enumerate(base_loads):
        starts = [second * scale for group, second in _BURSTS if group % len(base_loads) == number]
        flows[base.name] = _at_times(base, 0.5, [(start, start + length, 3.0) for start in starts])
    return flows


def starvation(base_loads: Sequence[BaseLoad], *, budget: int, duration: float) -> dict[str, Flow]:
    """The heaviest group asks for a quarter more than the whole budget, for two thirds of the run."""
    flows = {base.name: _flat(base, 0.8) for base in base_loads}
    noisy = noisy_one(base_loads)
    flood = 1.25 * budget / (noisy.task_seconds * noisy.rate)
    flows[noisy.name] = _at_times(noisy, 0.8, [(duration / 6, duration * 5 / 6, flood)])
    return flows


def noisy_one(base_loads: Sequence[BaseLoad]) -> BaseLoad:
    """The group that floods in ``starvation``: the one with the largest weight."""
    return min(base_loads, key=lambda base: (-base.weight, base.name))


def mixed(base_loads: Sequence[BaseLoad], *, budget: int, duration: float) -> dict[str, Flow]:
    """Long, very uneven tasks in waves that want most of the budget, and bursts of the quickest ones in between."""
    scale = duration / HOUR_SECONDS
    by_time = sorted(base_loads, key=lambda base: (-base.task_seconds, base.name))
    flows = {base.name: _flat(base, 0.6) for base in base_loads}
    slow = replace(by_time[0], variation=2.0)
    flood = 0.75 * budget / (slow.task_seconds * slow.rate)
    flows[slow.name] = _at_times(slow, 0.5, [(0, 300 * scale, flood)], period=1200 * scale)
    for base, start, length, times in zip(by_time[:0:-1], (200, 350), (60, 120), (3.0, 4.0), strict=False):
        window = (start * scale, (start + length) * scale, times)
        flows[base.name] = _at_times(base, 0.55, [window], period=1200 * scale)
    if len(by_time) > 3:
        uneven = by_time[1]
        flows[uneven.name] = replace(flows[uneven.name], draw=two_humps(uneven.task_seconds))
    return flows


def _at_times(
    base: BaseLoad, otherwise: float, windows: Sequence[tuple[float, float, float]], *, period: float = 0.0
) -> Flow:
    """So many times the ordinary rate in each window (start, end, times), else another."""

    def rate(now: float) -> float:
        moment = now % period if period else now
        times = (times for start, end, times in windows if start <= moment < end)
        return base.rate * next(times, otherwise)

    peak = base.rate * max(otherwise, *(times for _, _, times in windows)) if windows else base.rate * otherwise
    return replace(_flat(base), rate=rate, peak=peak)


class Workload(Protocol):
    """From the ordinary loads of all groups to what comes."""

    def __call__(self, base_loads: Sequence[BaseLoad], *, budget: int, duration: float) -> dict[str, Flow]: ...


WORKLOADS: Mapping[str, Workload] = {
    "steady": steady,
    "diurnal": diurnal,
    "spike": spike,
    "starvation": starvation,
    "mixed": mixed,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file of arrivals. ``runtime_seconds`` None: not said."""

    at: float
    queue: str
    runtime_seconds: float | None
    number: int


_COLUMNS = ("time", "queue", "runtime")


def read_arrivals(text: str, *, source: str) -> list[Line]:
    """``time,queue[,runtime]`` with a head line, times in seconds. Raises UsageError with the line that is wrong."""
    rows = [(number, row) for number, row in enumerate(csv.reader(text.splitlines()), 1) if row]
    head = tuple(cell.strip().lower() for cell in rows[0][1]) if rows else ()
    if head not in (_COLUMNS, _COLUMNS[:2]):
        raise UsageError(f"{source}:1: the first line must be time,queue or time,queue,runtime", hint=_LIKE)
    lines = [_line(row, len(head), f"{source}:{number}", number) for number, row in rows[1:]]
    if not lines:
        raise UsageError(f"{source}: no arrivals after the first line", hint=_LIKE)
    return sorted(lines, key=lambda line: line.at)


_LIKE = "like `time,queue,runtime`, then one task a line: `12.5,thumbs,0.8`"


def _line(row: Sequence[str], columns: int, place: str, number: int) -> Line:
    cells = [cell.strip() for cell in row]
    if len(cells) != columns:
        raise UsageError(f"{place}: {len(cells)} values, and the first line has {columns}", hint=_LIKE)
    if not cells[1]:
        raise UsageError(f"{place}: no queue", hint=_LIKE)
    runtime = _number(cells[2], "runtime", place) if columns == 3 and cells[2] else None
    return Line(_number(cells[0], "time", place), cells[1], runtime, number)


def _number(text: str, what: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UsageError(f"{place}: {what} {text!r} is no number of seconds", hint=_LIKE)
    return value
