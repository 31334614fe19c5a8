"""The parts of a worker's loop, put together: only this module knows which part needs which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from fleet.broker.channels.base import Channel
from fleet.replica.crash_history import read_history
from fleet.replica.record import Record
from fleet.worker.apps.base import Application
from fleet.worker.lifecycle import Lifecycle
from fleet.worker.loop.admission import Admission
from fleet.worker.loop.completion import Completion
from fleet.worker.loop.connection import Connection
from fleet.worker.loop.fetching import Fetching
from fleet.worker.loop.forced_exit import ForcedExit
from fleet.worker.loop.handing_back import HandingBack
from fleet.worker.loop.inflight import InFlight
from fleet.worker.loop.live_settings import LiveSettings
from fleet.worker.loop.look_ahead import LookAhead
from fleet.worker.loop.rate_limits import RateLimits
from fleet.worker.loop.receiving import Receiving
from fleet.worker.loop.redelivery import Redelivery
from fleet.worker.loop.reporting import Reporting
from fleet.worker.loop.revoked import Revoked, is_revoked
from fleet.worker.loop.settlement import Settlement
from fleet.worker.loop.starting import Starting
from fleet.worker.loop.submission import Submission
from fleet.worker.loop.unstored import Unstored
from fleet.worker.options import WorkerOptions
from fleet.worker.task.job import Job
from fleet.worker.task.listeners import TaskListener
from fleet.worker.tracing import slot as traced
from fleet.worker.tracing.slot import SlotTracing
from pools.base import BasePool
from pools.loop import EventLoop


class LoopParts:
    """Each part is made when it is first used, after the parts that it needs."""

    def __init__(
        self,
        options: WorkerOptions,
        application: Application,
        pool: BasePool,
        channel: Channel,
        *,
        record: Record,
        loop: EventLoop,
        on_stuck: Callable[[str], None],
    ) -> None:
        self.options = options
        self.application = application
        self.pool = pool
        self.channel = channel
        self.record = record
        self.life = Lifecycle()
        self.rate_limits = RateLimits()
        self.listeners: list[TaskListener] = []
        self.inflight = InFlight(record)
        self.revoked = Revoked(options.record_path and options.record_path.with_suffix(".revoked"))
        self.revoked.learn()
        self.settlement = Settlement(channel, replica=options.replica)
        self.redelivery = Redelivery(channel)
        self.unstored = Unstored(application, channel)
        self.admission = Admission(application, options.spec.task, deaths=_deaths(options))
        self.connection = Connection(channel, loop, self.settlement)
        self.look_ahead = LookAhead(options.spec.task)
        pool.quick_seconds = self.look_ahead.quick_seconds
        self.submission = Submission(pool, self.inflight, look_ahead=self.look_ahead, lock=channel.lock)
        self.revoked.on_added = self._recall_revoked
        self._on_stuck = on_stuck

    def _recall_revoked(self) -> None:
        """What waits in slots is looked at once more before it starts."""
        if any(is_revoked(job, self.revoked) for job in self.inflight.in_slots):
            self.submission.take_from_slots()

    def trace(self, how: SlotTracing) -> None:
        """Let slots make spans. The loop only notes when it asks for messages."""
        self.fetching.traced = self.starting.traced = self.completion.traced = True
        if not how.own_processes:
            self.completion.on_end_here = _span_of_end
            self.forced_exit.on_exit.append(traced.flush)

    @cached_property
    def fetching(self) -> Fetching:
        """When to ask for messages."""
        return Fetching(
            self.channel,
            self.connection,
            pool=self.pool,
            life=self.life,
            inflight=self.inflight,
            settlement=self.settlement,
            record=self.record,
            rate_gate=self.rate_limits,
            look_ahead=self.look_ahead,
            prefetch=self.options.spec.task.prefetch,
        )

    @cached_property
    def completion(self) -> Completion:
        """What becomes of a job that is over."""
        return Completion(
            self.application,
            self.settlement,
            self.redelivery,
            self.unstored,
            record=self.record,
            policy_of_manifest=self.options.spec.task,
            unreported=self.inflight.unreported,
            keep=lambda job, until: self.inflight.delay(job, until=until),
            on_stuck=self._on_stuck,
            listeners=self.listeners,
        )

    @cached_property
    def receiving(self) -> Receiving:
        """What becomes of a message that has come."""
        return Receiving(
            self.application,
            self.admission,
            channel=self.channel,
            connection=self.connection,
            inflight=self.inflight,
            settlement=self.settlement,
            completion=self.completion,
            revoked=self.revoked,
            listeners=self.listeners,
        )

    @cached_property
    def starting(self) -> Starting:
        """Which job may start."""
        return Starting(
            self.application,
            self.pool,
            submission=self.submission,
            life=self.life,
            inflight=self.inflight,
            connection=self.connection,
            settlement=self.settlement,
            completion=self.completion,
            rate_gate=self.rate_limits,
            look_ahead=self.look_ahead,
            handing_back=self.handing_back,
            revoked=self.revoked,
            listeners=self.listeners,
        )

    @cached_property
    def handing_back(self) -> HandingBack:
        """What goes back to its queue."""
        return HandingBack(
            self.inflight,
            self.settlement,
            completion=self.completion,
            fetching=self.fetching,
            rate_gate=self.rate_limits,
            look_ahead=self.look_ahead,
            submission=self.submission,
        )

    @cached_property
    def reporting(self) -> Reporting:
        """What the record says."""
        return Reporting(
            self.record,
            life=self.life,
            channel=self.channel,
            connection=self.connection,
            fetching=self.fetching,
            inflight=self.inflight,
        )

    @cached_property
    def settings(self) -> LiveSettings:
        """What may change while the worker runs."""
        return LiveSettings(
            self.options.spec,
            pool=self.pool,
            channel=self.channel,
            connection=self.connection,
            life=self.life,
            record=self.record,
            inflight=self.inflight,
            fetching=self.fetching,
            handing_back=self.handing_back,
            admission=self.admission,
            completion=self.completion,
            rate_limits=self.rate_limits,
            look_ahead=self.look_ahead,
        )

    @cached_property
    def forced_exit(self) -> ForcedExit:
        """How to leave in the middle of a task."""
        return ForcedExit(
            self.options.replica,
            channel=self.channel,
            record=self.record,
            inflight=self.inflight,
            settlement=self.settlement,
            completion=self.completion,
            handing_back=self.handing_back,
        )


def _span_of_end(job: Job) -> None:
    assert job.ending is not None
    traced.span_of_end(job.call, job.ending, job.detail, job.fetched, job.started_at)


def _deaths(options: WorkerOptions) -> Mapping[str, int]:
    return read_history(options.history_path).deaths if options.history_path is not None else {}
