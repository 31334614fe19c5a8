"""Whether a fleet has worked off everything: no task waits in its queues, none is held or run by its workers."""

from __future__ import annotations

import os

from fleet.broker.backlog.sampler import Sampler
from fleet.core.autoscale.sample import Backlog
from fleet.core.desired import Desired
from fleet.core.observed import Observed
from fleet.errors import FleetError
from fleet.operate.controller.backlog import BacklogReader
from fleet.operate.controller.revision_in_force import RevisionInForce
from fleet.operate.local_fleet import LocalFleet

LOOKS_IN_A_ROW = 3
"""A task on its way from the broker to a worker is for a moment with neither."""


class Finished:
    """Looks at one fleet again and again. Tasks whose date is still to come are not waited for."""

    def __init__(self, fleet: LocalFleet) -> None:
        self._fleet = fleet
        self._reader: BacklogReader | None = None
        self._revision = 0
        self._idle = 0

    def look(self) -> bool:
        """Whether nothing was left at this look and at those just before it. What cannot be asked is not done."""
        try:
            is_idle = self._is_idle()
        except FleetError:
            is_idle = False
        self._idle = self._idle + 1 if is_idle else 0
        return self._idle >= LOOKS_IN_A_ROW

    def close(self) -> None:
        """Let go of connections."""
        if self._reader is not None:
            self._reader.close()

    def _is_idle(self) -> bool:
        applied = self._fleet.applied()
        if applied is None:
            return False
        backlog = self._backlog_reader(applied.revision).read(applied.desired, workers(applied.desired))
        return nothing_left(applied.desired, backlog, self._fleet.backend.observe())

    def _backlog_reader(self, number: int) -> BacklogReader:
        if self._reader is None or self._revision != number:
            self.close()
            revision = RevisionInForce(self._fleet.history.get(number), environ=os.environ)
            name = self._fleet.name
            self._reader = BacklogReader(revision, lambda url, options: Sampler(url, fleet=name, options=options))
            self._revision = number
        return self._reader


def workers(desired: Desired) -> list[str]:
    """The groups that take tasks."""
    return [name for name, group in desired.groups.items() if group.spec.kind == "worker" and not group.system]


def nothing_left(desired: Desired, backlog: Backlog, observed: Observed) -> bool:
    """Whether every queue is known to be empty, and every worker is known to hold nothing."""
    if backlog.problem or any(queue.waiting != 0 for queue in backlog.queues.values()):
        return False
    if any((backlog.held or {}).values()):
        return False
    groups = set(workers(desired))
    replicas = [one for one in observed.replicas.values() if one.group in groups]
    return all(one.counts and not one.busy and not one.reserved for one in replicas)
