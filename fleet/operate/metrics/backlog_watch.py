"""Asks the broker of one fleet what waits, beside the scrapes: a scrape never waits for a broker."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from fleet.broker.backlog.sampler import Sampler
from fleet.core.autoscale.sample import Backlog
from fleet.core.desired import broker_of
from fleet.errors import FleetError
from fleet.operate.controller.backlog import BacklogReader, Source
from fleet.operate.controller.revision_in_force import RevisionInForce
from fleet.operate.local_fleet import LocalFleet

LOOK_SECONDS = 5.0


class BacklogWatch:
    """One thread for one fleet. ``last``: what it learned last, None before that or where no group takes tasks.

    The fleet is this thread's alone.
    """

    def __init__(self, fleet: LocalFleet, *, every_seconds: float = LOOK_SECONDS) -> None:
        self._fleet = fleet
        self._every_seconds = every_seconds
        self._revision = 0
        self._reader: BacklogReader | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"backlog-{fleet.name}", daemon=True)
        self.last: Backlog | None = None

    def start(self) -> None:
        """Look now and every few seconds."""
        self._thread.start()

    def close(self) -> None:
        """Stop; a look that has begun may take its time to end."""
        self._over.set()

    def look(self) -> Backlog | None:
        """Ask once. A broker that does not answer is no error."""
        try:
            return self._asked()
        except FleetError as error:
            return Backlog({}, None, error.message)

    def _run(self) -> None:
        while not self._over.is_set():
            self.last = self.look()
            self._over.wait(self._every_seconds)
        self._disconnect()

    def _asked(self) -> Backlog | None:
        applied = self._fleet.applied()
        if applied is None or applied.down or broker_of(applied.desired) is None:
            self._disconnect()
            return None
        groups = [name for name, group in applied.desired.groups.items() if group.spec.queues and not group.system]
        if self._reader is None or self._revision != applied.revision:
            self._disconnect()
            revision = RevisionInForce(self._fleet.history.get(applied.revision), environ=os.environ)
            self._reader, self._revision = BacklogReader(revision, self._sampler), applied.revision
        return self._reader.read(applied.desired, groups)

    def _sampler(self, url: str, options: Mapping[str, Any]) -> Source:
        return Sampler(url, fleet=self._fleet.name, options=options)

    def _disconnect(self) -> None:
        if self._reader is not None:
            self._reader.close()
        self._reader = None
