"""What may change while the worker runs: slots, queues, limits, log level. For the loop, control and new manifests."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fleet.broker.channels.base import Channel, ChannelLost
from fleet.core.spec import QueueSpec, WorkerSpec, live_digest, resizes
from fleet.core.spec import TaskPolicy as ManifestPolicy
from fleet.replica.record import Record
from fleet.worker import logging_setup
from fleet.worker.lifecycle import Lifecycle
from fleet.worker.loop.admission import Admission
from fleet.worker.loop.autoscaler import Autoscaler, Bounds
from fleet.worker.loop.completion import Completion
from fleet.worker.loop.connection import Connection
from fleet.worker.loop.fetching import Fetching
from fleet.worker.loop.handing_back import HandingBack
from fleet.worker.loop.inflight import InFlight
from fleet.worker.loop.look_ahead import LookAhead
from fleet.worker.loop.rate_limits import RateLimits, per_second
from pools.base import BasePool

log = logging.getLogger("fleet.worker")


class LiveSettings:
    """Changes one running worker. Every call is idempotent; the caller holds the channel's lock.

    ``spec`` is what the worker follows now, and the record publishes its digest: what was changed by hand is no longer
    what the manifest says, and the next plan shows it.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        *,
        pool: BasePool,
        channel: Channel,
        connection: Connection,
        life: Lifecycle,
        record: Record,
        inflight: InFlight,
        fetching: Fetching,
        handing_back: HandingBack,
        admission: Admission,
        completion: Completion,
        rate_limits: RateLimits,
        look_ahead: LookAhead,
    ) -> None:
        self.spec = spec
        self.autoscaler: Autoscaler | None = None
        self._pool = pool
        self._channel = channel
        self._connection = connection
        self._life = life
        self._record = record
        self._inflight = inflight
        self._fetching = fetching
        self._handing_back = handing_back
        self._admission = admission
        self._completion = completion
        self._rate_limits = rate_limits
        self._look_ahead = look_ahead
        self._rates: dict[str, str] = {}
        self._rates_of_app: dict[str, object] = {}
        record.live = live_digest(spec)

    @property
    def queues(self) -> tuple[QueueSpec, ...]:
        """The consumed queues."""
        return self.spec.queues

    def queue_names(self) -> Sequence[str]:
        """The consumed queues, those of a higher priority first."""
        return [queue.name for queue in sorted(self.queues, key=lambda queue: -queue.priority)]

    def adopt(self, spec: WorkerSpec) -> None:
        """Follow this spec, in all that can change in place. Raises PoolError where the pool cannot."""
        self.set_policy(spec.task)
        self.set_log_level(spec.log_level)
        self.set_queues(spec.queues)
        self.autoscale(None)
        if resizes(spec):
            self.set_slots(spec.pool.concurrency)
        self._go_by(restart=spec.restart, ready_after_seconds=spec.ready_after_seconds)

    def set_slots(self, count: int) -> None:
        """Change the number of slots. Raises PoolError where the pool cannot."""
        pool = self._pool
        if count > pool.limit:
            pool.grow(count - pool.limit)
        elif count < pool.limit:
            pool.shrink(pool.limit - count)
        else:
            return
        self._inflight.resize(pool.limit)
        self._fetching.ask_again()
        self._go_by(pool=replace(self.spec.pool, concurrency=pool.limit))
        log.info("%d slots", count)

    def set_queues(self, queues: Sequence[QueueSpec]) -> None:
        """Consume these queues and no others. What was fetched from others and has not started goes back."""
        wanted = tuple(queues)
        if wanted == self.queues:
            return
        self._go_by(queues=wanted)
        self._handing_back.of_other_queues({queue.name for queue in wanted})
        self._connection.unwatch()  # descriptors are about to change, and the kernel may use their numbers again
        try:
            self._channel.consume(wanted)  # without a connection too: the next one is told
        except ChannelLost as error:
            self._connection.lose(error)
        self._fetching.ask_again()
        log.info("consuming %s", ", ".join(queue.name for queue in wanted) or "no queue")

    def set_policy(self, policy_of_manifest: ManifestPolicy) -> None:
        """The manifest's delivery and limits, for tasks that start from now on."""
        self._set_rates(dict(policy_of_manifest.rate_limits))
        if policy_of_manifest != self.spec.task:
            self._admission.adopt(policy_of_manifest)
            self._completion.adopt(policy_of_manifest)
            self._fetching.prefetch = policy_of_manifest.prefetch
            self._look_ahead.adopt(policy_of_manifest)
            self._pool.quick_seconds = self._look_ahead.quick_seconds
            self._go_by(task=policy_of_manifest)

    def _set_rates(self, rates: dict[str, str]) -> None:
        """Set only rates that the manifest changes: a rate set by hand holds until then."""
        for name in sorted(rates.keys() | self._rates.keys()):
            if rates.get(name) != self._rates.get(name):
                self.set_rate_limit(name, rates.get(name, self._rates_of_app.get(name)))
        self._rates = rates

    def set_time_limits(self, task_name: str, *, soft_seconds: float | None, hard_seconds: float | None) -> None:
        """Limits of one task, over what the app and the manifest say; a message's own still win."""
        self._admission.limit(task_name, soft_seconds, hard_seconds)

    def set_rate_limit(self, task_name: str, rate: object) -> None:
        """How often one task may start, like ``10/m``; None: as often as there are slots. ValueError for no rate."""
        self._rate_limits.limit(task_name, per_second(rate))
        self._inflight.forget_pauses()
        self._fetching.ask_again()

    def set_rate_limits(self, written: Mapping[str, object]) -> None:
        """The rates that an app sets, by task, as people write them. One that cannot be read is logged and ignored."""
        for task_name, text in written.items():
            try:
                self.set_rate_limit(task_name, text)
            except ValueError as error:
                log.warning("the rate limit of %s is ignored: %s", task_name, error)
            else:
                self._rates_of_app[task_name] = text

    def autoscale(self, bounds: Bounds | None) -> None:
        """Let the slots follow the work between these bounds; None: stop that."""
        self.autoscaler = Autoscaler(bounds) if bounds is not None else None
        self._go_by()
        if bounds is not None:
            self.set_slots(bounds.clamp(self._pool.limit))

    def follow_work(self, now: float) -> None:
        """Once a second: set the slots that the autoscaler wants, if there is one."""
        scaler = self.autoscaler
        if scaler is None or not self._life.takes_work:
            return
        slots, busy = self._pool.limit, self._pool.busy_slots
        waiting = self._waiting() if busy >= slots else 0
        self.set_slots(scaler.wanted(now, slots=slots, busy=busy, waiting=waiting))

    def _waiting(self) -> int:
        """How many messages wait for a slot. Where the broker cannot tell, one more is assumed."""
        waiting = self._inflight.waiting
        if waiting or not self._connection.up:
            return len(waiting)
        try:
            backlog = self._channel.backlog()
        except ChannelLost:
            return 0  # the loop notices by itself
        return 1 if backlog is None else backlog

    def set_log_level(self, level: str) -> None:
        """Set the log level; ``level``: DEBUG to CRITICAL."""
        logging_setup.set_level(level)
        if level != self.spec.log_level:
            self._go_by(log_level=level)
            log.info("log level %s", level)

    def _go_by(self, **changes: Any) -> None:
        self.spec = replace(self.spec, **changes)
        # While slots follow the work, a plan shows a difference, and the next apply ends it.
        self._record.live = live_digest(self.spec) if self.autoscaler is None else "autoscale"
        self._record.beat()
