"""Maintenance windows: a cron expression that opens them, how long they stay open, a time zone. No clock is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
LONGEST_SECONDS = 31 * 86_400.0
_SEARCHED_DAYS = 366 * 5


@dataclass(frozen=True, slots=True)
class Cron:
    """The moments a cron expression names, in local time."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool = False

    def falls_on(self, day: date) -> bool:
        """Whether it opens on that day. As cron has it, one of day and weekday is enough where both are given."""
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and ((in_month or in_week) if self.either_day else (in_month and in_week))


@dataclass(frozen=True, slots=True)
class Opening:
    """One window: when it opens, how long it stays open, and where the clock stands."""

    name: str
    cron: Cron
    seconds: float
    zone: tzinfo


def parse_cron(text: str) -> Cron:
    """Five fields: numbers, ``*``, lists, ranges, steps, names of months and weekdays. Raises ValueError."""
    words = text.split()
    if len(words) != len(FIELDS):
        raise ValueError(f"a cron expression has five fields, this has {len(words)}; minute hour day month weekday")
    names = {"month": _MONTHS, "weekday": _WEEKDAYS}
    sets = [
        _numbers(word, name, low, high, names.get(name, ()))
        for word, (name, low, high) in zip(words, FIELDS, strict=True)
    ]
    weekdays = frozenset(number % 7 for number in sets[4])
    either = not words[2].startswith("*") and not words[4].startswith("*")
    return Cron(sets[0], sets[1], sets[2], sets[3], weekdays, either)


def _numbers(word: str, name: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        span, slash, step = part.partition("/")
        if slash and not (step.isdecimal() and int(step) > 0):
            raise ValueError(f"not a step in the {name}: {part!r}; write it like */5")
        first, dash, last = span.partition("-")
        if span == "*":
            start, end = low, high
        else:
            start = _number(first, name, low, high, names)
            end = _number(last, name, low, high, names) if dash else (high if slash else start)
        if end < start:
            raise ValueError(f"the {name} {part!r} ends before it begins; write it as a list of two ranges")
        found.update(range(start, end + 1, int(step) if slash else 1))
    return frozenset(found)


def _number(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return names.index(text.lower()) + (1 if name == "month" else 0)
    if not (text.isdecimal() and len(text) <= 2 and low <= int(text) <= high):
        raise ValueError(f"not a {name}: {text!r}; it goes from {low} to {high}")
    return int(text)


def open_until(windows: Iterable[Opening], now: float) -> float | None:
    """When the windows that are open now close, None where none is open. Unix seconds."""
    ends = [begin + one.seconds for one in windows for begin in _begins(one, now - one.seconds, now)]
    open_ends = [end for end in ends if end > now]
    return max(open_ends, default=None)


def next_opening(windows: Iterable[Opening], now: float) -> float | None:
    """When the next window opens after now, None where none does within five years."""
    found = []
    for one in windows:
        days = _days(one, now, now + _SEARCHED_DAYS * 86_400.0)
        begin = next((moment for day in days for moment in _moments(one, day) if moment > now), None)
        found += [] if begin is None else [begin]
    return min(found, default=None)


def _begins(one: Opening, after: float, until: float) -> Iterator[float]:
    for day in _days(one, after, until):
        yield from (moment for moment in _moments(one, day) if after < moment <= until)


def _days(one: Opening, first: float, last: float) -> Iterator[date]:
    """The days on which it opens, a day more on either side: a clock change may move a moment over midnight."""
    day = datetime.fromtimestamp(first, one.zone).date() - timedelta(days=1)
    end = datetime.fromtimestamp(last, one.zone).date() + timedelta(days=1)
    while day <= end:
        if one.cron.falls_on(day):
            yield day
        day += timedelta(days=1)


def _moments(one: Opening, day: date) -> Iterator[float]:
    """The moments of a day, in order. A local time that is skipped comes an hour later; one that comes twice, once."""
    found = set()
    for hour in one.cron.hours:
        for minute in one.cron.minutes:
            local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=one.zone)
            found.add(local.astimezone(UTC).timestamp())
    yield from sorted(found)
