"""Which of the jobs in hand may start now, and what the broker and listeners are told first."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Container, Sequence
from typing import Any

from fleet.worker import execution
from fleet.worker.apps.base import Application
from fleet.worker.lifecycle import Lifecycle
from fleet.worker.loop.completion import Completion
from fleet.worker.loop.connection import Connection
from fleet.worker.loop.handing_back import HandingBack
from fleet.worker.loop.inflight import InFlight
from fleet.worker.loop.look_ahead import LookAhead
from fleet.worker.loop.revoked import is_revoked
from fleet.worker.loop.settlement import Settlement
from fleet.worker.loop.submission import Submission
from fleet.worker.task.job import Job
from fleet.worker.task.listeners import RateGate, TaskEvent, TaskListener, tell
from fleet.worker.tracing import slot as traced
from pools.base import BasePool

log = logging.getLogger("fleet.worker")

REPORT_LIMIT_SECONDS = 60.0

INLINE_SECONDS = 0.02
"""Tasks in the main thread follow each other for so long at most before the loop looks at everything else."""


class Starting:
    """Fills free slots. ``totals``: starts so far, by task.

    after_inline: called after each task in the main thread.  on_start: called for each job that starts.
    traced: slots make spans of what they run.
    """

    def __init__(
        self,
        application: Application,
        pool: BasePool,
        *,
        submission: Submission,
        life: Lifecycle,
        inflight: InFlight,
        connection: Connection,
        settlement: Settlement,
        completion: Completion,
        rate_gate: RateGate,
        look_ahead: LookAhead,
        handing_back: HandingBack,
        revoked: Container[str],
        listeners: Sequence[TaskListener],
    ) -> None:
        self._application = application
        self._pool = pool
        self._submission = submission
        self._life = life
        self._inflight = inflight
        self._connection = connection
        self._settlement = settlement
        self._completion = completion
        self._rate_gate = rate_gate
        self._look_ahead = look_ahead
        self._handing_back = handing_back
        self._revoked = revoked
        self._listeners = listeners
        self._warned_limits: set[str] = set()
        self.totals: Counter[str] = Counter()
        self.after_inline: Callable[[], object] = _nothing
        self.on_start: Callable[[Job], object] = _ignore
        self.traced = False
        submission.on_begun = self.note_start

    def start(self) -> bool:
        """Start what can start; whether anything did. Ends that wait to be recorded come first."""
        started = False
        unreported, waiting = self._inflight.unreported, self._inflight.waiting
        while unreported and self._room > 0:
            self._record_end(unreported.popleft())
            started = True
        if self._submission.is_inline:
            started |= self._run_inline()
        else:
            while waiting and self._life.takes_work and self._room > 0:
                started |= self._start_batch()
        self._completion.settle_kept(self._inflight)
        if waiting and not unreported and self._life.takes_work:
            started |= self._fill_slots_behind()
        return started

    def _run_inline(self) -> bool:
        """Run one after another in the main thread, for ``INLINE_SECONDS`` at most; whether any ran."""
        started, until = False, time.monotonic() + INLINE_SECONDS
        while self._inflight.waiting and self._life.takes_work and self._room > 0:
            started |= self._start_inline()
            self.after_inline()
            if time.monotonic() > until:
                break
        self._submission.look_after_quick()
        return started

    def _fill_slots_behind(self) -> bool:
        """Let quick jobs wait in slots behind quick ones, so that no slot waits for this process; whether any did."""
        waiting, filled = self._inflight.waiting, False
        room = min(self._pool.room_for_quick, self._look_ahead.most - len(self._inflight.in_slots))
        while waiting and room > 0 and self._may_wait_in_slot(waiting[0]):
            job = waiting.popleft()
            if self._may_start_or_bury(job):
                target, arguments = self._target(job)
                soft, hard = self._limits(job)
                self._submission.put_behind(job, target, arguments, soft=soft, hard=hard)
                room -= 1
                filled = True
        return filled

    def _may_wait_in_slot(self, job: Job) -> bool:
        """Not where something must be done, or looked at, at the moment when it starts."""
        name = job.call.name
        return (
            self._look_ahead.may_wait_in_slot(name)
            and job.policy.late
            and not job.expires_at
            and not self._rate_gate.is_limited(name)
        )

    @property
    def _room(self) -> int:
        """Free slots whose last task is settled: what is done and not settled comes again when this process dies."""
        return min(self._pool.free_slots, self._pool.limit - len(self._inflight.running))

    def _record_end(self, job: Job) -> None:
        if job.unstored is not None:
            stores, result = execution.store_result, (job.unstored.unstored,)
            self._submission.submit(job, stores, result, soft=None, hard=REPORT_LIMIT_SECONDS)
            return
        target: Any = execution.record_end
        arguments: tuple[Any, ...] = (job.call, job.ending, job.detail, job.limit_seconds)
        if self.traced:
            target, arguments = traced.record_end, (*arguments, job.fetched, job.started_at)
        self._submission.submit(job, target, arguments, soft=None, hard=REPORT_LIMIT_SECONDS)

    def _start_batch(self) -> bool:
        """Start as many as there are free slots; whether any did."""
        room, waiting = self._room, self._inflight.waiting
        batch: list[Job] = []
        while waiting and len(batch) < room:
            job = waiting.popleft()
            if self._may_start_or_bury(job):
                batch.append(job)
        self._tell_broker(batch)
        for job in batch:
            self._start(job)
        return bool(batch)

    def _start_inline(self) -> bool:
        """Run the next one in the main thread; whether it may run."""
        job = self._inflight.waiting.popleft()
        if not self._may_start_or_bury(job):
            return False
        self._tell_broker((job,))
        if not self._look_ahead.is_quick(job.call.name):
            self._submission.look_after_quick()
            self._completion.settle_kept(self._inflight)
            if self._inflight.waiting:
                self._handing_back.taken_ahead()
        self._start(job)
        return True

    def _tell_broker(self, batch: Sequence[Job]) -> None:
        """Early acknowledgements reach the broker before anything starts: what starts after that and dies must not come
        again. So do those that would die with this process: what is done is not repeated for what starts now."""
        is_early = False
        for job in batch:
            if not job.policy.late:
                self._settlement.ack(job)
                is_early = True
        if is_early or self._settlement.dies_with_us:
            self._settlement.flush()
            # Before anything forks: descriptors of a dead connection must not be watched any more.
            self._connection.notice_loss()

    def _may_start_or_bury(self, job: Job) -> bool:
        try:
            return self._may_start(job)
        except Exception as error:
            log.exception("Task %s[%s] cannot be started", job.call.name, job.call.id)
            self._completion.end_unstartable(job, error)
            return False

    def _may_start(self, job: Job) -> bool:
        if is_revoked(job, self._revoked):
            job.ending, job.detail = "revoked", "revoked"
            self._completion.end_unreported(job)
            return False
        if job.expires_at and time.time() > job.expires_at:  # while it waited here for a slot
            job.ending, job.detail = "expired", f"expired {time.time() - job.expires_at:.1f} s ago"
            log.warning("Task %s[%s] does not run: %s", job.call.name, job.call.id, job.detail)
            self._completion.end_unreported(job)
            return False
        pause = self._rate_gate.pause_seconds(job)
        if pause > 0:
            self._look_ahead.stop()
            self._inflight.delay(job, until=time.time() + pause)
        return pause <= 0

    def _start(self, job: Job) -> None:
        soft, hard = self._limits(job)
        self.note_start(job)
        target, arguments = self._target(job)
        self._submission.submit(job, target, arguments, soft=soft, hard=hard)

    def note_start(self, job: Job) -> None:
        """It starts: count it, and tell those who want to know."""
        self.totals[job.call.name] += 1
        self.on_start(job)
        if self._listeners:
            tell(self._listeners, TaskEvent.STARTED, job)

    def _target(self, job: Job) -> tuple[Any, tuple[Any, ...]]:
        """What the slot calls, and with what."""
        awaited = self._pool.traits.async_tasks and self._application.is_async(job.call.name)
        if self.traced:
            return (traced.perform_async if awaited else traced.perform), (job.call, job.fetched)
        return (execution.perform_async if awaited else execution.perform), (job.call,)

    def _limits(self, job: Job) -> tuple[float | None, float | None]:
        soft, hard = job.policy.soft_time_limit_seconds, job.policy.time_limit_seconds
        traits = self._pool.traits
        if (soft is not None and not traits.soft_limit) or (hard is not None and not traits.hard_limit):
            # Only for a pool class of the user: for our own kinds such a manifest is refused.
            if job.call.name not in self._warned_limits:
                self._warned_limits.add(job.call.name)
                log.warning("the %s pool cannot keep all time limits; %s runs without", self._pool.name, job.call.name)
            soft = soft if traits.soft_limit else None
            hard = hard if traits.hard_limit else None
        return soft, hard


def _nothing() -> None:
    pass


def _ignore(_job: Job) -> None:
    pass
