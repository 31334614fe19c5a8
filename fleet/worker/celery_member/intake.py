"""Whether Celery's consumer takes messages: it stops while an operator holds the replica, and nothing else ends.

From the moment the byte in the record is set, a message that still arrives goes back to its queue, also while a solo
task keeps the loop from cancelling its consumers. All calls to the broker are made in the loop of the consumer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.worker import state as celery_state

from fleet.replica.record import Record
from fleet.worker.celery_member.jobs import Guard, Job

log = logging.getLogger("fleet.worker")

_LOOK_SECONDS = 0.5


class Intake:
    """The intake of one consumer of Celery's, over all its connections.

    consumes: the consumer has told the broker what it takes, once at least.  up: it has a connection that does.
    closed: the broker was told to send nothing.  off: nobody looks at the record any more.  on_again: called when it
    has a connection once more.
    """

    def __init__(
        self,
        record: Record,
        *,
        unstarted: Callable[[], list[Job]],
        guard: Guard,
        on_again: Callable[[], object],
    ) -> None:
        self.consumes = False
        self.up = False
        self.closed = False
        self.off = False
        self._record = record
        self._unstarted = unstarted
        self._on_again = on_again
        self._round = 0
        self._on_start, self._on_stop = guard(self._start), guard(self._stop)
        self._on_tick, self._on_look = guard(self._tick), guard(self._look)
        self._on_ready = guard(self._ready)

    @property
    def held(self) -> bool:
        """It takes nothing: an operator wants it so, or it has not noticed yet that this is over."""
        return self._is_held() or self.closed

    def _is_held(self) -> bool:
        return self._record.hold and not self.off

    def attach(self, consumer: Any) -> None:
        """Once, before the consumer has its first connection."""
        create_task_handler, on_ready = consumer.create_task_handler, consumer.on_ready

        def create(*args: Any, **named: Any) -> Any:
            handle = create_task_handler(*args, **named)

            def on_message(message: Any) -> Any:
                if not self._is_held():
                    return handle(message)
                consumer.call_soon(self._on_look, consumer)
                return message.requeue()

            return on_message

        def ready() -> Any:
            self._on_ready(consumer)
            return on_ready()

        consumer.create_task_handler, consumer.on_ready = create, ready

    def start(self, consumer: Any) -> None:
        """A connection is there, and the loop is about to consume."""
        self._on_start(consumer)

    def stop(self) -> None:
        """The connection is lost, or the worker goes."""
        self._on_stop()

    def _start(self, consumer: Any) -> None:
        self.closed = False
        tasks = consumer.task_consumer
        consume = tasks.consume

        def consume_unless_held(*args: Any, **named: Any) -> Any:
            self.closed = self._is_held()
            return None if self.closed else consume(*args, **named)

        tasks.consume = consume_unless_held
        self._round += 1
        self._on_tick(consumer, self._round)

    def _stop(self) -> None:
        self.up = False
        self._round += 1

    def _ready(self, consumer: Any) -> None:  # noqa: ARG002
        if self.consumes:
            self._on_again()
        self.consumes = self.up = True

    def _tick(self, consumer: Any, number: int) -> None:
        """By the timer, which may run beside the loop. A chain of its own for each connection."""
        if number != self._round:
            return
        consumer.call_soon(self._on_look, consumer)
        consumer.timer.call_after(_LOOK_SECONDS, self._on_tick, (consumer, number))

    def _look(self, consumer: Any) -> None:
        """In the loop: do as the record says."""
        if consumer.task_consumer is None or not self.up:
            return
        try:
            self._follow(consumer, hold=self._is_held())
        except (*consumer.connection_errors, *consumer.channel_errors) as error:
            log.warning("the broker does not answer: %s", error)  # the loop will notice, and connect again
        else:
            if not self.closed:
                self._record.consumed_at = time.time()

    def _follow(self, consumer: Any, *, hold: bool) -> None:
        tasks = consumer.task_consumer
        if hold and not self.closed:
            tasks.cancel()
            self.closed = True
            self._hand_back(consumer)
            log.info("held: takes no tasks")
        elif self.closed and not hold:
            if tasks.auto_declare:
                tasks.declare()  # a queue of this consumer alone may have gone with its last consumer
            tasks.consume()
            log.info("released: takes tasks again")

    def _hand_back(self, consumer: Any) -> None:
        """Messages that were taken and have not started go back to their queue."""
        given = [*self._off_the_semaphore(consumer), *self._out_of_the_executor()]
        for request in given:
            request.reject(requeue=True)
            celery_state.task_ready(request)
        if given:
            log.info("%d messages that had not started go back", len(given))

    def _off_the_semaphore(self, consumer: Any) -> list[Any]:
        """prefork: those that wait for a child."""
        line = getattr(getattr(consumer.controller, "semaphore", None), "_waiting", None)
        if line is None:
            return []
        waiting = celery_state.reserved_requests - celery_state.active_requests
        found = []
        for entry in list(line):
            _, arguments, *_ = entry
            if arguments and _is_in(arguments[0], waiting):
                line.remove(entry)
                found.append(arguments[0])
        return found

    def _out_of_the_executor(self) -> list[Any]:
        """threads: those that wait for a thread."""
        return [
            job.request
            for job in self._unstarted()
            if job.request is not None and (future := getattr(job.result, "f", None)) is not None and future.cancel()
        ]


def _is_in(one: Any, requests: Any) -> bool:
    try:
        return one in requests
    except TypeError:
        return False
