"""How a task's end becomes a word to the broker, also when the line to it was broken in between."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from fleet.core.desired import TaskPolicy as ManifestPolicy
from fleet.worker import postmortem
from fleet.worker.application import Application
from fleet.worker.call import Outcome
from fleet.worker.delivery import Channel
from fleet.worker.job import Job, Key
from fleet.worker.record import Record
from fleet.worker.settlement import Settlement
from fleet.worker.witness import TaskListener, end_of
from pools.errors import HardTimeLimit, SlotLost, Terminated
from pools.handle import Handle

log = logging.getLogger("fleet.worker")

REMEMBERED = 512
"""Ends of tasks remembered for messages that a broken line brings again."""

ALREADY_TOLD = Outcome("ignored")
"""For a message that comes again although the broker was told: only the acknowledgement is repeated."""


class Completion:
    """Settles jobs. ``unreported`` gets those whose end a slot must record first: somebody waits for the result."""

    def __init__(
        self,
        application: Application,
        settlement: Settlement,
        channel: Channel,
        *,
        record: Record,
        policy_of_manifest: ManifestPolicy,
        unreported: deque[Job],
        on_stuck: Callable[[str], None],
        listeners: Sequence[TaskListener] = (),
    ) -> None:
        self._application = application
        self._settlement = settlement
        self._channel = channel
        self._record = record
        self._wishes = policy_of_manifest
        self._unreported = unreported
        self._on_stuck = on_stuck
        self._listeners = listeners
        self._recent: OrderedDict[Key, Outcome] = OrderedDict()
        self._doubtful: OrderedDict[Key, Outcome] = OrderedDict()
        self.line = 0
        self.counted = False

    def adopt(self, policy_of_manifest: ManifestPolicy) -> None:
        """Another policy from now on."""
        self._wishes = policy_of_manifest

    # -- from the pool

    def settle(self, job: Job, handle: Handle) -> None:
        """The pool is done with a job."""
        error = handle.error
        if job.ending is not None:
            if error is not None:
                log.error("the end of task %s[%s] could not be recorded: %s", job.call.name, job.call.id, error)
            self.conclude(job, self._application.after_end(job.call, job.ending, job.detail))
        elif error is None:
            self.conclude(job, handle.value)
        elif isinstance(error, Terminated) and not job.revoked:
            self._settlement.give_back([job])
        elif isinstance(error, SlotLost) and self._may_crash_again(job):
            log.error("Task %s[%s] runs again: %s", job.call.name, job.call.id, error)
            if self._is_ours(job):
                self._settlement.after_crash(job, attempts=job.delivery.attempts + 1)
        else:
            job.story = postmortem.story(error, handle.pid)
            self._end_by(job, error, abandoned=handle.abandoned)

    def end_unreported(self, job: Job) -> None:
        """A task that cannot tell its end itself (``job.ending``): recorded in a slot where somebody waits for it."""
        assert job.ending is not None
        if self._application.records_ends:
            self._unreported.appendleft(job)
        else:
            self.conclude(job, self._application.after_end(job.call, job.ending, job.detail))

    def conclude(self, job: Job, outcome: Outcome) -> None:
        """Count it, remember it, and tell the broker."""
        job.settled = True
        self._count(outcome)
        if self._listeners and (event := end_of(job, outcome)) is not None:
            for listener in self._listeners:
                listener.on_event(event, job, outcome)
        if outcome.state == "requeue":
            self._settlement.give_back([job])
            return
        _remember(self._recent, job.key, outcome)
        if not self._is_ours(job):
            _remember(self._doubtful, job.key, outcome)
            return
        if job.line != self.line:
            _remember(self._doubtful, job.key, ALREADY_TOLD)
        self._tell_broker(job, outcome)

    def _may_crash_again(self, job: Job) -> bool:
        return not job.acked and job.delivery.attempts + 1 < self._wishes.max_attempts

    def _end_by(self, job: Job, error: BaseException, *, abandoned: bool) -> None:
        job.detail = str(error)
        if isinstance(error, HardTimeLimit):
            job.ending = "timeout"
        elif isinstance(error, Terminated):
            job.ending = "terminated"
        elif isinstance(error, SlotLost):
            job.ending = "lost"
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

    def _tell_broker(self, job: Job, outcome: Outcome) -> None:
        state = outcome.state
        if state == "retry" and outcome.after_seconds is not None:
            self._settlement.again(job, after_seconds=outcome.after_seconds)
        elif state == "dead" or (state == "failure" and job.policy.dead_on_failure and not job.acked):
            self._settlement.bury(job, error=outcome.error, traceback=outcome.traceback)
        else:
            self._settlement.ack(job)

    # -- broken lines

    def _is_ours(self, job: Job) -> bool:
        """Whether the broker waits for our word. After a broken line it may have given the message away again."""
        return job.acked or job.line == self.line or self._channel.holds(job.delivery)

    def told_before(self, job: Job) -> bool:
        """Whether this message comes again after its task was over; then the broker is told once more."""
        outcome = self._doubtful.pop(job.key, None)
        if outcome is None:
            return False
        log.info("Task %s[%s] is over already; only its acknowledgement was lost", job.call.name, job.call.id)
        self._tell_broker(job, outcome)
        if self._settlement.lost is not None:  # lost once more: it may come again
            _remember(self._doubtful, job.key, outcome)
        return True

    def connection_lost(self) -> None:
        """The last words may not have reached the broker. What is known to be unreported stays so."""
        self._doubt_recent()

    def connection_restored(self) -> None:
        """Tell what is owed. What is no longer ours is told when it comes again."""
        self.line += 1
        for job in self._settlement.replay():
            outcome = self._recent.get(job.key)
            if job.settled and outcome is not None:
                _remember(self._doubtful, job.key, outcome)
        self._doubt_recent()  # what ended while the line was down, its message acknowledged just before

    def _doubt_recent(self) -> None:
        for key in self._recent:
            if key not in self._doubtful:
                _remember(self._doubtful, key, ALREADY_TOLD)


def _remember(ends: OrderedDict[Key, Outcome], key: Key, outcome: Outcome) -> None:
    ends[key] = outcome
    if len(ends) > REMEMBERED:
        ends.popitem(last=False)
