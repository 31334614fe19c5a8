"""Jobs that go back to their queues: not started, of queues that are left, or running when the worker must go."""

from __future__ import annotations

import time
from collections.abc import Container

from fleet.worker.loop.completion import Completion
from fleet.worker.loop.fetching import Fetching
from fleet.worker.loop.inflight import InFlight
from fleet.worker.loop.look_ahead import LookAhead
from fleet.worker.loop.settlement import Settlement
from fleet.worker.loop.submission import Submission
from fleet.worker.task.listeners import RateGate


class HandingBack:
    """Each method gives back a part of what is in hand."""

    def __init__(
        self,
        inflight: InFlight,
        settlement: Settlement,
        *,
        completion: Completion,
        fetching: Fetching,
        rate_gate: RateGate,
        look_ahead: LookAhead,
        submission: Submission,
    ) -> None:
        self._inflight = inflight
        self._settlement = settlement
        self._completion = completion
        self._fetching = fetching
        self._rate_gate = rate_gate
        self._look_ahead = look_ahead
        self._submission = submission

    def unstarted(self) -> None:
        """Give back what has not started."""
        self._submission.take_from_slots()
        jobs = self._inflight.take_unstarted()
        self._rate_gate.forget_waiting()
        self._settlement.give_back(jobs)
        self._fetching.ask_again()

    def taken_ahead(self) -> None:
        """Give back what was taken ahead: another worker may have a free slot for it. Nobody began to work on it, so a
        task that looks whether it was delivered before must not be told so."""
        if self._fetching.prefetch is not None:
            return
        self._submission.take_from_slots()
        if jobs := self._inflight.take_ahead():
            self._settlement.give_back(jobs, unmarked=True)
            self._fetching.ask_again()

    def what_found_no_slot(self, now: float) -> None:
        """Give back what was taken ahead and has waited for too long (``now``: monotonic)."""
        until = self._fetching.keeps_ahead_until
        if until is not None and now >= until and self._inflight.inline_job is None:
            self._look_ahead.stop()
            self.taken_ahead()

    def behind_long_task(self) -> None:
        """Where the task in the main thread is a long one: give back what was taken ahead, acknowledge what is done."""
        job = self._inflight.inline_job
        if job is not None and time.time() - job.started_at > self._look_ahead.seconds:
            self._look_ahead.stop()
            self.taken_ahead()
            self._completion.settle_kept(self._inflight)
            self._settlement.flush()

    def of_other_queues(self, names: Container[str]) -> None:
        """Give back what has not started and came from none of these queues."""
        self._submission.take_from_slots()
        self._settlement.give_back(self._inflight.take_from_other_queues(names))

    def running(self) -> None:
        """Give back what runs; what the pool reports about it later is ignored."""
        left = [job for job in self._inflight.running if not job.settled]
        for job in left:
            job.settled = True
        self._settlement.give_back(left)
        self._inflight.running.clear()

    def unreported(self) -> None:
        """Ends that no slot had room to record: the replica that gets the message records them; where the message is
        acknowledged already, they are recorded here."""
        jobs = self._inflight.unreported
        while jobs and not self._completion.records_ends:  # they waited for a slot only to be traced
            self._completion.end_here(jobs.popleft())
        for job in jobs:
            if job.acked and job.ending is not None:
                self._completion.record_end(job)
            elif job.acked and job.unstored is not None:
                self._completion.store_here(job)
        self._settlement.give_back([job for job in jobs if not job.acked])
        jobs.clear()
