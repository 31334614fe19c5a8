"""The jobs in this worker's hands: those that wait, those that run, and the places they take in the record."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Container, Iterator

from fleet.replica.record import Record
from fleet.worker.task.job import Job

MOST_DELAYED = 10_000
"""Messages with a date that wait in this process, where the broker cannot keep them. Beyond that nothing is fetched."""


class InFlight:
    """waiting: may start when a slot is free.  running: in a slot, until their end is settled.

    in_slots: with the pool, and to begin in a slot behind another task; not started.
    unreported: over without having run; a slot must record their ends, because results are stored.
    inline_job: the one that runs in the main thread itself.
    """

    def __init__(self, record: Record) -> None:
        self.waiting: deque[Job] = deque()
        self.running: dict[Job, None] = {}
        self.in_slots: dict[Job, None] = {}
        self.unreported: deque[Job] = deque()
        self.inline_job: Job | None = None
        self._delayed: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._record = record
        self._free_places = list(range(record.slots - 1, -1, -1))
        self._placeless: dict[Job, float | None] = {}

    def jobs(self) -> Iterator[Job]:
        """Everything in hand, running first. A copy: another thread may look."""
        return iter([*self.running, *self.in_slots, *self.waiting, *(entry[2] for entry in list(self._delayed))])

    @property
    def count(self) -> int:
        """How many are in hand, those whose ends are still to be recorded included."""
        return self.waiting_count + len(self.running) + len(self.unreported) + len(self._delayed)

    @property
    def waiting_count(self) -> int:
        """How many wait for nothing but a slot."""
        return len(self.waiting) + len(self.in_slots)

    # -- waiting for a moment

    @property
    def delayed_count(self) -> int:
        """How many wait for their date or their rate."""
        return len(self._delayed)

    @property
    def next_due_at(self) -> float | None:
        """When the first of those may go on, Unix time; None where none waits."""
        return self._delayed[0][0] if self._delayed else None

    def delay(self, job: Job, *, until: float) -> None:
        """Keep it until then (Unix time)."""
        job.delayed = True
        heapq.heappush(self._delayed, (until, next(self._order), job))

    def pop_due(self) -> Job | None:
        """The next one whose moment has come."""
        if self._delayed and self._delayed[0][0] <= time.time():
            return heapq.heappop(self._delayed)[2]
        return None

    def forget_pauses(self) -> None:
        """Rates have changed: what waits for one is due at its own date again."""
        self._delayed = [(job.due, order, job) for _, order, job in self._delayed]
        heapq.heapify(self._delayed)

    # -- taken out of hand, to be given back

    def take_ahead(self) -> list[Job]:
        """Those that wait for a slot and for nothing else since they came, in order."""
        found = [job for job in self.waiting if not job.delayed]
        kept = [job for job in self.waiting if job.delayed]
        self.waiting.clear()
        self.waiting.extend(kept)
        return found

    def take_unstarted(self) -> list[Job]:
        """All that wait, in order."""
        found = [*self.waiting, *(entry[2] for entry in sorted(self._delayed))]
        self.waiting.clear()
        self._delayed.clear()
        return found

    def take_from_other_queues(self, names: Container[str]) -> list[Job]:
        """Those that wait and came from none of these queues, in order."""
        unstarted = list(self.waiting)
        others = [job for job in unstarted if job.delivery.queue not in names]
        others += [entry[2] for entry in sorted(self._delayed) if entry[2].delivery.queue not in names]
        self.waiting.clear()
        self.waiting.extend(job for job in unstarted if job.delivery.queue in names)
        self._delayed = [entry for entry in self._delayed if entry[2].delivery.queue in names]
        heapq.heapify(self._delayed)
        return others

    # -- running

    def begin(self, job: Job, *, limit_seconds: float | None) -> None:
        """It starts now, or has started in the slot where it waited."""
        self.in_slots.pop(job, None)
        self.running[job] = None
        job.started_at = time.time()
        if not self._free_places:  # what ran before it in its slot is not settled yet
            self._placeless[job] = limit_seconds
            return
        job.slot = self._free_places.pop()
        self.publish(job, limit_seconds=limit_seconds)

    def publish(self, job: Job, *, limit_seconds: float | None) -> None:
        """Write what is known of a running job into the record."""
        if job.slot >= 0:
            pid = job.handle.pid if job.handle is not None else 0
            until = job.started_at + limit_seconds if limit_seconds else 0.0
            self._record.begin(job.slot, task_id=job.call.id, task_name=job.call.name, until=until, pid=pid)

    def end(self, job: Job) -> None:
        """Note that it runs no more; its place is free."""
        self.running.pop(job, None)
        self.in_slots.pop(job, None)
        if job.slot < 0:
            if job in self._placeless:
                del self._placeless[job]
                self._record.count_busy(job.runtime_seconds())
            return
        place, job.slot = job.slot, -1
        self._record.end(place)
        if self._placeless:
            following = next(iter(self._placeless))
            following.slot = place
            self.publish(following, limit_seconds=self._placeless.pop(following))
        else:
            self._free_places.append(place)

    def same_run(self, job: Job) -> Job | None:
        """The running job whose message has come again as this one."""
        return next((known for known in self.running if known.key == job.key and not known.settled), None)

    def resize(self, slots: int) -> None:
        """Note that the number of slots changed."""
        before = self._record.capacity
        self._record.resize(slots)
        self._free_places += range(self._record.capacity - 1, before - 1, -1)
