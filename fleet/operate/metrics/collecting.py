"""Reads fleets and sources for a scrape: records, counters, supervisord, the controller's file, the audit."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.core.desired import Desired
from fleet.core.status import summarise
from fleet.errors import FleetError
from fleet.operate.controller.memory_file import last_look
from fleet.operate.local_fleet import LocalFleet, known_fleets
from fleet.operate.metrics.backlog_watch import BacklogWatch
from fleet.operate.metrics.reading import EventCounts, FleetReading, SourceReading
from fleet.operate.metrics.samples import Sample, by_group, samples
from fleet.operate.sync.overview import document
from fleet.operate.sync.state import known_sources
from fleet.replica.log_rotation import dropped_bytes
from fleet.replica.task_counters import CountersReader, CountersView
from fleet.state.audit import Audit, Position
from fleet.state.paths import Places

if TYPE_CHECKING:
    from fleet.settings import Settings

FRESH_SECONDS = 0.5
"""Two scrapes within so long get the same answer: whoever asks in a loop costs no more than that."""


class Collector:
    """Reads one fleet, or all fleets of this home folder and their sources; may be asked by many threads."""

    def __init__(self, settings: Settings, *, fleet: LocalFleet | None = None, watch_queues: bool = True) -> None:
        """fleet: this one alone.  watch_queues: ask brokers what waits, beside the scrapes, until ``close``."""
        self._settings = settings
        self._only = fleet
        self._watch_queues = watch_queues
        self._fleets: dict[str, FleetCollector] = {}
        self._lock = threading.Lock()
        self._last: tuple[float, list[Sample]] | None = None

    def collect(self) -> Sequence[Sample]:
        """All samples of now."""
        with self._lock:
            if self._last is None or time.monotonic() - self._last[0] > FRESH_SECONDS:
                found = list(samples(self._readings(), self._source_readings()))
                self._last = (time.monotonic(), found)
            return self._last[1]

    def close(self) -> None:
        """Stop asking brokers."""
        for fleet in self._fleets.values():
            fleet.close()

    def _readings(self) -> list[FleetReading]:
        names = [self._only.name] if self._only is not None else known_fleets(self._settings.home)
        for gone in self._fleets.keys() - set(names):
            self._fleets.pop(gone).close()
        return [self._reading(name) for name in names]

    def _reading(self, name: str) -> FleetReading:
        try:
            if name not in self._fleets:
                fleet = self._only or LocalFleet(name, settings=self._settings)
                watch = BacklogWatch(LocalFleet(name, settings=self._settings)) if self._watch_queues else None
                self._fleets[name] = FleetCollector(fleet, watch)
            return self._fleets[name].read()
        except FleetError as error:
            return FleetReading(name, problem=error.message)

    def _source_readings(self) -> list[SourceReading]:
        return [] if self._only is not None else [_source(name) for name in known_sources(self._settings.home)]


class FleetCollector:
    """Reads one fleet again and again; between two readings it remembers how far it has read the audit."""

    def __init__(self, fleet: LocalFleet, watch: BacklogWatch | None = None) -> None:
        self._fleet = fleet
        self._watch = watch
        self._audit = AuditCounts(fleet.audit)
        self._counters = FleetCounters(fleet.places)
        self._chosen: dict[str, tuple[str, ...]] = {}
        if watch is not None:
            watch.start()

    def close(self) -> None:
        """Stop asking the broker."""
        if self._watch is not None:
            self._watch.close()

    def read(self) -> FleetReading:
        """What is known now. Raises FleetError where the fleet cannot be read."""
        fleet, began = self._fleet, time.monotonic()
        applied = self._fleet.applied()
        desired = None if applied is None or applied.down else applied.desired
        observed = fleet.backend.observe()
        status = summarise(desired, observed, revision=applied.revision if applied else 0)
        counters = self._counters.read(status.groups.keys())
        tasks = by_group(((name, one.tasks) for name, one in sorted(counters.items())), self._chosen)
        self._chosen = {group: tuple(names) for group, names in tasks.items()}
        return FleetReading(
            fleet=fleet.name,
            now=fleet.now(),
            status=status,
            observed=observed,
            budget=_budget(desired),
            good=applied.good if applied is not None else 0,
            tasks=tasks,
            counters=counters,
            dropped=dropped_bytes(fleet.places.log),
            backlog=self._watch.last if self._watch is not None else None,
            look=last_look(fleet.places.controller) if desired is not None else None,
            events=self._audit.read(),
            seconds=time.monotonic() - began,
        )


class FleetCounters:
    """Reads the counters by task of one fleet's replicas again and again."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._reader = CountersReader()

    def read(self, groups: Collection[str]) -> dict[str, CountersView]:
        """By replica, of these groups alone; of replicas that are gone too, so that no sum of a group decreases."""
        places = self._places
        folders = (places.records, *map(places.account_records, places.account_uids()))
        paths = [folder / name for folder in folders for name in _counter_files(folder, groups)]
        return {path.stem: view for path, view in self._reader.read(paths).items()}


def _counter_files(folder: Path, groups: Collection[str]) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            replica = name.removesuffix(".tasks")
            group, _, index = replica.rpartition(".")
            if replica != name and index.isdigit() and group in groups:
                yield name


def _budget(desired: Desired | None) -> int | None:
    return desired.budgets.slots if desired is not None else None


def _source(name: str) -> SourceReading:
    from fleet.operate.sync.opening import opened

    try:
        definition, places = opened(name)
        return SourceReading(name, document(definition.source, places, now=time.time()))
    except FleetError:
        return SourceReading(name, None)


class AuditCounts:
    """Counts the entries of an audit, each once."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._position: Position | None = None
        self._events: Counter[str] = Counter()
        self._heals: Counter[tuple[str, str]] = Counter()
        self._changes: Counter[tuple[str, str]] = Counter()
        self._moves: Counter[str] = Counter()

    def read(self) -> EventCounts:
        """The counts so far. Raises Damaged."""
        self._position = self._audit.give_after(self._position, self._count)
        return EventCounts(dict(self._events), dict(self._heals), dict(self._changes), dict(self._moves))

    def _count(self, entry: dict[str, Any]) -> None:
        event = str(entry.get("event", ""))
        self._events[event] += 1
        subject, _, what = event.partition(".")
        if subject == "heal" and "class" in entry:
            self._heals[str(entry["class"]), what] += 1
        elif what == "ended" and "outcome" in entry:
            self._changes[subject, str(entry["outcome"])] += 1
        elif event == "balance.moved" and isinstance(entry.get("moves"), dict):
            self._moves.update(map(str, entry["moves"]))


Collect = Callable[[], Sequence[Sample]]
