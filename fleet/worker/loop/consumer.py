"""The loop that feeds the pool: fetch what free slots can take, start it, settle its end.

One loop serves every pool. It runs in the main thread and holds ``channel.lock``, except while a solo task runs inline:
then the housekeeping thread may take the lock and does the loop's housekeeping (``attend``) until the task is over.

This module runs the loop and the lifecycle of the worker. Each step of a task's way has a class of its own; ``parts``
puts them together.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable

from fleet.broker.channels.base import TEND_SECONDS, Channel, ChannelLost
from fleet.replica.notice import LOOK
from fleet.replica.record import Record
from fleet.worker import sd_notify, stack_dump
from fleet.worker.apps.base import Application
from fleet.worker.lifecycle import EXIT_DONE, EXIT_FAILED, EXIT_REPLACE, Action, Event, State
from fleet.worker.loop.parts import LoopParts
from fleet.worker.loop.pauses import Pauses
from fleet.worker.options import WorkerOptions
from fleet.worker.os_signals import STACKS, SignalBox
from pools.base import BasePool
from pools.loop import EventLoop

log = logging.getLogger("fleet.worker")

EverySecond = Callable[[float], object]
"""Called once a second, at rest less often, with ``time.monotonic()``; the channel's lock is held."""


class Consumer:
    """Feeds one pool from one channel until it is told to stop. failure: why it gave itself up, if it did."""

    def __init__(
        self,
        options: WorkerOptions,
        application: Application,
        pool: BasePool,
        channel: Channel,
        *,
        record: Record,
        box: SignalBox,
        loop: EventLoop,
    ) -> None:
        self.parts = parts = LoopParts(
            options, application, pool, channel, record=record, loop=loop, on_stuck=self.replace_soon
        )
        self.exit_code, self.failure = EXIT_DONE, ""
        self.every_second: list[EverySecond] = [parts.settings.follow_work]
        self._life = parts.life
        self._application = application
        self._pool = pool
        self._record = record
        self._connection = parts.connection
        self._inflight = parts.inflight
        self.waiting = parts.inflight.waiting
        self._fetching = parts.fetching
        self._receiving = parts.receiving
        self._starting = parts.starting
        self._starting.after_inline = self._after_inline
        self._done = parts.submission.done
        self._completion = parts.completion
        self._settlement = parts.settlement
        self._handing_back = parts.handing_back
        self._reporting = parts.reporting
        self._box = box
        self._loop = loop
        self.pauses = Pauses(parts, self._done)
        self._lock = channel.lock
        self._tick_at = 0.0
        self.deadline: float | None = None
        self.stop_asked_at: Callable[[], float | None] = lambda: None
        self._announced = False
        self._connection.on_lost += [self._tick_soon, parts.redelivery.on_lost, self._handing_back.unstarted]

    # -- the loop

    def run(self) -> int:
        """Feed the pool until the worker is to stop; the exit code of the process."""
        with self._lock:
            self._loop.add_reader(self._box.fileno(), self.handle_signals)
            if self._record.hold:
                self.on_event(Event.HOLD)
            while not self._life.stopped:
                self.turn()
        return self.exit_code

    def turn(self) -> None:
        """Once around. The caller holds the lock."""
        now = time.monotonic()
        if now >= self._tick_at or (self.pauses.rests and self._connection.rest_is_over()):
            self.tick(now)
        if self._life.state is State.STARTING and self._connection.up and self._pool.free_slots > 0:
            self.on_event(Event.CONNECTED)  # not earlier: a worker whose slots cannot start is not ready
        ended = len(self._done)
        moved = self._settle_done()
        self._connection.notice_loss()
        if self._connection.up:
            self._handing_back.what_found_no_slot(now)
            moved |= self._feed(now)
        self._connection.notice_loss()
        if self._life.leaving and self._is_empty():
            self.on_event(Event.EMPTY)
        if not moved:
            self._before_waiting()
        self.pauses.gather(ended)
        self._loop.run_once(0.0 if moved else self.pauses.until_due(self._tick_at))

    def _feed(self, now: float) -> bool:
        """Start what can start and fetch what free slots can take; whether anything moved."""
        self._receiving.place_due()
        moved = self._starting.start()
        try:
            deliveries = self._fetching.fetch_due(now)
        except ChannelLost as error:
            self._connection.lose(error)
            return False
        if not deliveries:
            return moved
        if self._tick_at - now > TEND_SECONDS:  # it was at rest: let the lease be renewed while the task runs
            self._tick_at = now
        if not self._receiving.receive(deliveries):
            return False
        self._starting.start()
        return True

    def _settle_done(self) -> bool:
        """Settle what the pool has finished; whether there was anything."""
        return self._completion.settle_all(self._done, self._inflight)

    def _after_inline(self) -> None:
        """Settle the task that ran here. Its result may wait a moment where others follow at once."""
        parts = self.parts
        if self.waiting and self._life.takes_work and parts.unstored.may_keep(parts.look_ahead.seconds):
            self._completion.settle_or_keep(self._done, self._inflight)
        else:
            self._settle_done()

    def _is_empty(self) -> bool:
        """Whether nothing runs and nothing is owed. Until its deadline a drain waits for a connection to send that."""
        owed = self.deadline is not None and self._settlement.debts > 0
        return not (self._inflight.running or self._done or self._inflight.unreported or owed)

    def _before_waiting(self) -> None:
        if self._reporting.count_waiting() or self._completion.counted:
            self._completion.counted = False
            self._record.beat()
        self._settlement.flush()
        self._connection.watch()

    # -- housekeeping: by the loop, and by the housekeeping thread while a solo task runs

    @property
    def is_inside_task(self) -> bool:
        """Whether the main thread is in a task now."""
        return self._inflight.inline_job is not None

    def attend(self) -> bool:
        """From the housekeeping thread: do what the loop cannot do now; False when it needs no help."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            if not self.is_inside_task:
                return False
            self.handle_signals()
            now = time.monotonic()
            if now >= self._tick_at:
                self.tick(now)
            self._handing_back.behind_long_task()
            self._connection.notice_loss()
            return True
        finally:
            self._lock.release()

    def handle_signals(self) -> None:
        """Handle the signals that have come."""
        for signum in self._box.take():
            if signum == STACKS:
                stack_dump.write(self._pool, self._inflight.running.keys())
                continue
            if signum == LOOK:
                self._tick_soon()
                continue
            log.info("%s received", signal.Signals(signum).name)
            self.on_event(Event.QUIT if signum == signal.SIGQUIT else Event.TERM)

    def tick(self, now: float) -> None:
        """Once a second, at rest less often: lease, record, operator's hold, deadline, connection."""
        self._tick_at = planned_at = now + self.pauses.until_tick(now)
        self.handle_signals()  # before anything is fetched, where a task kept the loop from running
        if self._connection.up:
            self._connection.tend()
        elif now >= self._connection.try_at:
            self._connect()
        if self._record.hold != (self._life.state is State.HELD):
            self.on_event(Event.HOLD if self._record.hold else Event.RESUME)
        if self.deadline is not None and now >= self.deadline:
            self.deadline = None
            log.warning("the drain timeout of %g s is over", self.parts.options.spec.drain_timeout_seconds)
            self.on_event(Event.DEADLINE)
        for call in self.every_second:
            try:
                call(now)
            except Exception:
                log.exception("something that the worker does every second failed")
        self._publish()
        if self._tick_at == planned_at:  # what was due now is not due any more
            self._tick_at = now + self.pauses.until_tick(now)

    def _tick_soon(self) -> None:
        self._tick_at = 0.0

    def _connect(self) -> None:
        if not self._connection.connect():
            self._tick_at = min(self._tick_at, self._connection.try_at)
            return
        self._fetching.ask_again()
        self._completion.on_connection_restored()
        self._connection.notice_loss()
        self._tick_soon()  # the record is to tell of the first fetch, also by a worker at rest

    def _publish(self) -> None:
        self._reporting.publish(deadline=self.deadline)

    # -- life

    def on_event(self, event: Event) -> None:
        """Move the lifecycle, and do what it asks for."""
        before = self._life.state
        action = self._life.on_event(event)
        if self._life.state is before:
            return
        log.info("%s -> %s", before.value, self._life.state.value)
        self._publish()
        _ACTIONS[action](self)
        self._publish()

    def replace_soon(self, why: str) -> None:
        """Drain, and let the supervisor start another process."""
        log.error("%s; this process drains and is replaced", why)
        self.exit_code = EXIT_REPLACE
        if not self._life.leaving:
            self.on_event(Event.TERM)

    def give_up(self, why: str) -> None:
        """No slot can start: leave as a process that could not start, and let the restart policy decide."""
        if self.failure:
            return
        log.error("no slot can start, this process gives up: %s", why)
        self.failure, self.exit_code = why, EXIT_FAILED
        if not self._life.leaving:
            self.on_event(Event.TERM)

    def _announce(self) -> None:
        self._fetching.ask_again()
        sd_notify.tell("READY=1", "STATUS=consuming")
        if not self._announced:
            self._announced = True
            self.parts.revoked.learn()  # once more: it hears commands only now, and another may have asked for it
            queues = ", ".join(self.parts.settings.queue_names()) or "no queue"
            log.info("ready: %s pool with %d slots on %s", self._pool.name, self._pool.limit, queues)
            self._application.announce("ready")

    def _hand_back(self) -> None:
        self._handing_back.unstarted()

    def _drain(self) -> None:
        self._handing_back.unstarted()
        self.deadline = (self.stop_asked_at() or time.monotonic()) + self.parts.options.spec.drain_timeout_seconds
        self._tick_soon()
        sd_notify.tell("STOPPING=1")
        self._application.announce("stopping")
        if running := len(self._inflight.running):
            log.info("%d running: they may finish", running)

    def _cut(self) -> None:
        """End what runs, so that it goes back to its queue at once."""
        self._handing_back.unstarted()
        self.deadline = None
        self._application.announce("cutting")
        if running := len(self._inflight.running):
            log.warning("cold stop: %d running tasks go back to their queues", running)
        if self.is_inside_task:
            self.parts.forced_exit.give_up_process(EXIT_DONE)
        if self._pool.traits.terminate and not self.parts.submission.is_inline:
            self._pool.terminate()  # each handle comes back as Terminated, and its message is given back
            self._settle_done()
        self._handing_back.running()
        self._handing_back.unreported()


_ACTIONS: dict[Action, Callable[[Consumer], None]] = {
    Action.NOTHING: lambda _: None,
    Action.ANNOUNCE: Consumer._announce,
    Action.HAND_BACK: Consumer._hand_back,
    Action.DRAIN: Consumer._drain,
    Action.CUT: Consumer._cut,
    Action.LEAVE: lambda consumer: consumer._settlement.flush(),
}
