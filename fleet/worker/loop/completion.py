"""Acknowledges tasks that ended, also when the connection was lost in between."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from fleet.core.spec import TaskPolicy as ManifestPolicy
from fleet.replica.record import Record
from fleet.worker.apps.base import Application
from fleet.worker.loop import postmortem
from fleet.worker.loop.inflight import InFlight
from fleet.worker.loop.redelivery import Redelivery
from fleet.worker.loop.requeues import Requeues
from fleet.worker.loop.settlement import Settlement
from fleet.worker.loop.submission import NotStarted
from fleet.worker.loop.unstored import Unstored
from fleet.worker.task.call import Outcome
from fleet.worker.task.job import Job
from fleet.worker.task.listeners import TaskListener, end_of, tell
from pools.errors import HardTimeLimit, SlotLost, Terminated
from pools.handle import Handle

log = logging.getLogger("fleet.worker")


class Completion:
    """Settles jobs. ``unreported`` gets those whose end a slot must record first, because results are stored.

    counted: an end was counted since this was last set to False.  keep(job, until): do not put this one back before
    that time (Unix seconds).  on_end: called for every end, before anybody else is told.
    traced: a slot also makes spans of the ends that it records, and so gets all of them.  on_end_here: called when one
    is recorded in this process instead.  before_settling: called when tasks have ended, before any of them is settled.
    """

    def __init__(
        self,
        application: Application,
        settlement: Settlement,
        redelivery: Redelivery,
        unstored: Unstored,
        *,
        record: Record,
        policy_of_manifest: ManifestPolicy,
        unreported: deque[Job],
        keep: Callable[[Job, float], object],
        on_stuck: Callable[[str], None],
        listeners: Sequence[TaskListener],
    ) -> None:
        self._application = application
        self._unstored = unstored
        self._settlement = settlement
        self._redelivery = redelivery
        self._record = record
        self._policy_of_manifest = policy_of_manifest
        self._unreported = unreported
        self._keep = keep
        self._on_stuck = on_stuck
        self._listeners = listeners
        self._requeues = Requeues()
        self.counted = False
        self.on_end: Callable[[Job, Outcome], object] = _nothing
        self.on_end_here: Callable[[Job], object] = _no_span
        self.traced = False
        self.before_settling: Callable[[], object] = _no_listener

    def adopt(self, policy_of_manifest: ManifestPolicy) -> None:
        """Follow this policy from now on."""
        self._policy_of_manifest = policy_of_manifest

    # -- ends

    def settle_all(self, done: deque[tuple[Job, Handle]], inflight: InFlight) -> bool:
        """Settle what the pool has finished, and what was kept; whether there was anything."""
        if not done:
            self.settle_kept(inflight)
            return False
        self.before_settling()
        if self._unstored.store is None:
            while done:
                self._settle_one(*done.popleft(), inflight)
            return True
        while done:
            ended = [*self._unstored.take(), *[done.popleft() for _ in range(len(done))]]
            self._unstored.store_all(ended)  # meanwhile more may end
            self._settle_each(ended, inflight)
        return True

    def settle_or_keep(self, done: deque[tuple[Job, Handle]], inflight: InFlight) -> None:
        """As ``settle_all``, but ends that wait for their results alone may be kept until ``settle_kept``."""
        ended = [done.popleft() for _ in range(len(done))]
        others = self._unstored.keep(ended)
        for job, _ in ended:
            inflight.end(job)
        self._unstored.store_all(others)
        self._settle_each(others, inflight)

    def settle_kept(self, inflight: InFlight) -> None:
        """Settle those."""
        if kept := self._unstored.take():
            self._unstored.store_all(kept)
            self._settle_each(kept, inflight)

    def _settle_each(self, ended: Sequence[tuple[Job, Handle]], inflight: InFlight) -> None:
        for job, handle in ended:
            self._settle_one(job, handle, inflight)
        self._unstored.on_settled(ended)

    def _settle_one(self, job: Job, handle: Handle, inflight: InFlight) -> None:
        inflight.end(job)
        if not job.settled:
            self.settle_or_bury(job, handle)

    def settle(self, job: Job, handle: Handle) -> None:
        """Settle a job that the pool has finished."""
        error = handle.error
        if job.ending is not None:
            if error is not None:
                log.error("the end of task %s[%s] could not be recorded: %s", job.call.name, job.call.id, error)
            self._conclude_by_ending(job)
        elif job.unstored is not None:
            self._settle_unstored(job, job.unstored, handle)
        elif error is None:
            self.conclude(job, handle.value)
        elif isinstance(error, Terminated) and not job.revoked:
            self._settlement.give_back([job])
        elif isinstance(error, SlotLost | NotStarted) and self._may_crash_again(job):
            log.error("Task %s[%s] runs again: %s", job.call.name, job.call.id, error)
            if self._redelivery.is_ours(job):
                self._settlement.after_crash(job, attempts=job.delivery.attempts + 1)
        else:
            job.story = postmortem.story(error, handle.pid)
            job.limit_seconds = handle.timeout_seconds
            self._end_by(job, error, abandoned=handle.abandoned)

    def _settle_unstored(self, job: Job, outcome: Outcome, handle: Handle) -> None:
        """It has ended with this outcome, and its result could not be stored; or a slot has now stored it."""
        if handle.value is outcome:
            self._unreported.append(job)
            return
        job.unstored = None
        if handle.error is None:
            self.conclude(job, outcome)
        else:
            self._end_by(job, handle.error, abandoned=handle.abandoned)

    def store_here(self, job: Job) -> None:
        """Store its result here and now: the process is about to exit. Errors are logged."""
        assert job.unstored is not None
        assert job.unstored.unstored is not None
        try:
            self._application.store_result(job.unstored.unstored)
        except Exception:
            log.exception("the result of task %s[%s] could not be stored", job.call.name, job.call.id)

    def end_unreported(self, job: Job) -> None:
        """End a task that cannot report its end itself (``job.ending``); a slot records it where results are stored."""
        if self.records_ends or self.traced:
            self._unreported.appendleft(job)
        else:
            self._conclude_by_ending(job)

    def end_unstartable(self, job: Job, error: Exception) -> None:
        """Something went wrong between taking the message and starting its task: this message is buried."""
        job.ending, job.detail = "unstartable", f"it cannot be started: {type(error).__name__}: {error}"
        self.end_unreported(job)

    def settle_or_bury(self, job: Job, handle: Handle) -> None:
        """As ``settle``; where that fails over something in the message, the message is buried."""
        try:
            self.settle(job, handle)
        except Exception as error:
            log.exception("the end of task %s[%s] cannot be settled", job.call.name, job.call.id)
            if not job.settled:
                self.conclude(job, Outcome("dead", error=f"its end cannot be settled: {type(error).__name__}: {error}"))

    @property
    def records_ends(self) -> bool:
        """Whether the app stores results, so that a slot must record the ends that tasks could not tell."""
        return self._application.records_ends

    def end_here(self, job: Job) -> None:
        """The same, recorded here at once: the process is about to exit."""
        self.record_end(job)
        self._conclude_by_ending(job)

    def record_end(self, job: Job) -> None:
        """Store ``job.ending`` as the result, here and now. Errors are logged."""
        assert job.ending is not None
        self.on_end_here(job)
        try:
            self._application.record_end(job.call, job.ending, job.detail, limit_seconds=job.limit_seconds)
        except Exception:
            log.exception("the end of task %s[%s] could not be recorded", job.call.name, job.call.id)

    def conclude(self, job: Job, outcome: Outcome) -> None:
        """A task is over: count it, call listeners, and acknowledge, now or when the message comes again."""
        job.settled = True
        self._count(outcome)
        self.on_end(job, outcome)
        self._tell_listeners(job, outcome)
        if outcome.state == "requeue":
            self._put_back(job)
        elif self._redelivery.note_end(job, outcome):
            self._tell_broker(job, outcome)

    def _put_back(self, job: Job) -> None:
        pause = 0.0 if job.acked else self._requeues.pause_seconds(job.call.id)
        if pause > 0:
            self._keep(job, time.time() + pause)
        else:
            self._settlement.give_back([job])

    def _conclude_by_ending(self, job: Job) -> None:
        assert job.ending is not None
        self.conclude(job, self._application.after_end(job.call, job.ending, job.detail))

    def _may_crash_again(self, job: Job) -> bool:
        if not job.policy.again_after_crash:
            return False
        return not job.acked and job.delivery.attempts + 1 < self._policy_of_manifest.max_attempts

    def _end_by(self, job: Job, error: BaseException, *, abandoned: bool) -> None:
        job.detail = str(error)
        if isinstance(error, HardTimeLimit):
            job.ending = "timeout"
        elif isinstance(error, Terminated):
            job.ending = "terminated"
        elif isinstance(error, SlotLost):
            job.ending = "lost"
        elif isinstance(error, NotStarted):
            job.ending = "unstartable"
        else:
            job.ending, job.detail = "raised", f"{type(error).__name__}: {error}"
        log.error("Task %s[%s] ended: %s", job.call.name, job.call.id, job.detail)
        if abandoned:
            self._on_stuck(f"{job.call.name} cannot be ended and still holds its slot")
        self.end_unreported(job)

    def _count(self, outcome: Outcome) -> None:
        self.counted = True
        if outcome.state == "retry":
            self._record.retried += 1
        elif outcome.state != "requeue":
            self._record.processed += 1
            if outcome.state in ("failure", "dead"):
                self._record.failed += 1

    def _tell_listeners(self, job: Job, outcome: Outcome) -> None:
        if not self._listeners or (event := end_of(job, outcome)) is None:
            return
        tell(self._listeners, event, job, outcome)

    def _tell_broker(self, job: Job, outcome: Outcome) -> None:
        state = outcome.state
        if state == "retry" and outcome.after_seconds is not None:
            self._settlement.again(job, after_seconds=outcome.after_seconds)
        elif state == "dead" or (state == "failure" and job.policy.dead_on_failure and not job.acked):
            where = self._policy_of_manifest.dead_letters
            self._settlement.bury(job, error=outcome.error, traceback=outcome.traceback, dead_letters=where)
        else:
            self._settlement.ack(job)

    # -- broken connections

    @property
    def connection_number(self) -> int:
        """How many connections there were before this one."""
        return self._redelivery.connection_number

    def told_before(self, job: Job) -> bool:
        """Whether this message comes again after its task was over; then it is acknowledged again."""
        outcome = self._redelivery.pop_doubtful(job)
        if outcome is None:
            return False
        log.info("Task %s[%s] is over already; only its acknowledgement was lost", job.call.name, job.call.id)
        self._tell_broker(job, outcome)
        if self._settlement.lost is not None:  # lost once more: it may come again
            self._redelivery.doubt(job, outcome)
        return True

    def on_connection_restored(self) -> None:
        """Send what is owed. What is no longer ours is acknowledged when it comes again."""
        self._redelivery.on_restored(self._settlement.replay())


def _nothing(_job: Job, _outcome: Outcome) -> None:
    pass


def _no_listener() -> None:
    pass


def _no_span(_job: Job) -> None:
    pass
