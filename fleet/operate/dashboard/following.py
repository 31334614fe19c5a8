"""Follows one fleet: its records at every look, all else when something changed or some seconds have passed."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.core.status import summarise
from fleet.errors import FleetError
from fleet.operate.controller.memory_file import last_look
from fleet.operate.dashboard import rows
from fleet.operate.dashboard.hour import Hour
from fleet.operate.dashboard.rows import Row, Rows
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.metrics.backlog_watch import BacklogWatch
from fleet.replica import record as records
from fleet.replica.record import RecordView

WHOLE_SECONDS = 15.0
"""So old may be what only supervisord and /proc know, when nothing says that it changed."""
DECISION_SECONDS = 60.0


@dataclass(slots=True)
class Picture:
    """A fleet as pages have it."""

    head: Row
    groups: Rows = field(default_factory=dict)
    replicas: Rows = field(default_factory=dict)
    queues: Row = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """All of it."""
        return {"head": self.head, "groups": self.groups, "replicas": self.replicas, "queues": self.queues}


class FleetFollower:
    """One fleet. Used by one thread; ``picture`` is replaced as a whole, so that others may read it."""

    def __init__(self, fleet: LocalFleet, watch: BacklogWatch | None = None) -> None:
        """watch: asks the broker what waits; begun at the first look that somebody follows."""
        self._fleet = fleet
        self._watch = watch
        self._is_watching = False
        self._whole_at = 0.0
        self._stamps: tuple[object, ...] = ()
        self._decided_stamp: tuple[object, ...] = ()
        self._marks: dict[str, tuple[object, ...]] = {}
        self._paths: dict[str, Path] = {}
        self._alive: frozenset[int] = frozenset()
        self.hour = Hour()
        self.picture = Picture(rows.problem_head(fleet.name, ""))

    def close(self) -> None:
        """Stop asking the broker."""
        if self._watch is not None:
            self._watch.close()

    def look(self, *, followed: bool) -> dict[str, Any]:
        """Read, keep, and say what is other than before: what a page that has the last picture needs."""
        before = self.picture
        if followed and self._watch is not None and not self._is_watching:
            self._watch.start()
            self._is_watching = True
        try:
            self.picture = self._read(before)
        except FleetError as error:
            self._whole_at = 0.0
            self.picture = Picture(rows.problem_head(self._fleet.name, error.message))
        self.hour.add(self._fleet.now(), rows.slots_now(self.picture.groups, self.picture.replicas))
        return _difference(before, self.picture)

    def _read(self, before: Picture) -> Picture:
        if time.monotonic() - self._whole_at >= WHOLE_SECONDS or self._stamps_now() != self._stamps:
            return self._whole()
        if not all(map(_lives, self._alive)):
            return self._whole()
        read = {name: records.read(path) for name, path in self._paths.items()}
        if any(rows.mark(record) != self._marks[name] for name, record in read.items()):
            return self._whole()
        return self._filled(before.head, before.groups, before.replicas, read, has_run=before.head["up"])

    def _whole(self) -> Picture:
        """Look at all there is."""
        fleet = self._fleet
        self._stamps, self._whole_at = self._stamps_now(), time.monotonic()
        applied = fleet.applied()
        desired = None if applied is None or applied.down else applied.desired
        observed = fleet.backend.observe(shares=True)
        status = summarise(desired, observed, revision=applied.revision if applied else 0)
        budget = desired.budgets.slots if desired is not None else None
        head = rows.head(status, budget=budget, good=applied.good if applied is not None else 0)
        found = rows.replica_rows(status, now=fleet.now())
        self._paths = {name: fleet.places.record_file(name) for name, row in found.items() if row["pid"] is not None}
        read = {name: records.read(path) for name, path in self._paths.items()}
        self._marks = {name: rows.mark(record) for name, record in read.items()}
        self._alive = frozenset(row["pid"] for row in found.values() if row["pid"] is not None and _lives(row["pid"]))
        self._decided_stamp = ()
        return self._filled(head, rows.group_rows(status, desired), found, read, has_run=desired is not None)

    def _filled(
        self, head: Row, groups: Rows, found: Rows, read: Mapping[str, RecordView | None], *, has_run: bool
    ) -> Picture:
        controller = self._fleet.places.controller
        if (stamp := _stamps(controller)) != self._decided_stamp:
            self._decided_stamp = stamp
            head, groups = rows.decided(head, groups, self._decided() if has_run else None)
        filled = {name: rows.with_record(row, read.get(name)) for name, row in found.items()}
        backlog = self._watch.last if self._watch is not None else None
        return Picture(rows.sums(head, groups, filled), groups, filled, rows.queue_rows(backlog, groups))

    def _decided(self) -> dict[str, Any] | None:
        """What the controller decided last; None for a decision that is old, because it does not run."""
        look = last_look(self._fleet.places.controller)
        return look if look is not None and self._fleet.now() - float(look["at"]) < DECISION_SECONDS else None

    def _stamps_now(self) -> tuple[object, ...]:
        """Files that are written when a fleet changes."""
        places = self._fleet.places
        return _stamps(places.applied, places.audit, places.overrides, places.socket, places.conf_d)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another account
        return True
    return True


def _stamps(*paths: Path) -> tuple[object, ...]:
    """Of each file that is there what changes when it is written."""
    found: list[object] = []
    for path in paths:
        with suppress(OSError):
            facts = path.stat()
            found.append((path.name, facts.st_ino, facts.st_mtime_ns))
    return tuple(found)


def _difference(before: Picture, after: Picture) -> dict[str, Any]:
    """The parts that changed, and of groups and replicas the rows that did."""
    found: dict[str, Any] = {}
    if before.head != after.head:
        found["head"] = after.head
    if before.queues != after.queues:
        found["queues"] = after.queues
    for name, old, new in (
        ("groups", before.groups, after.groups),
        ("replicas", before.replicas, after.replicas),
    ):
        fresh, gone = rows.changed(old, new)
        if fresh:
            found[name] = fresh
        if gone:
            found[f"{name}Gone"] = gone
    return found
