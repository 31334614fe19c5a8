"""What becomes of a message when its task is over: acknowledged, sent again, given back, or put with the dead letters.

Nothing here raises for a lost connection. What could not be sent is kept, in order, and sent after the next connection;
the task itself is done and is not repeated because of the lost connection.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fleet.broker.channels.base import Channel, ChannelLost
from fleet.broker.delivery import Delivery
from fleet.broker.envelope import ATTEMPTS_HEADER
from fleet.broker.message import Built
from fleet.broker.queues import DEAD_SUFFIX
from fleet.core.spec import DeadLetters
from fleet.worker.task.job import Job

log = logging.getLogger("fleet.worker")

_MOST_TEXT = 4096
_MOST_HEADERS = 60_000
Debt = Callable[[], object]


class Settlement:
    """Acknowledgements and copies to the broker. ``lost``: the error that ended the connection, until ``replay``."""

    def __init__(self, channel: Channel, *, replica: str) -> None:
        self._channel = channel
        self._replica = replica
        self._owed: deque[tuple[Job, Debt, bool]] = deque()
        self.lost: ChannelLost | None = None
        self.unflushed = False

    @property
    def debts(self) -> int:
        """How many calls are still to be sent to the broker."""
        return len(self._owed)

    def ack(self, job: Job) -> None:
        """Acknowledge its message."""
        if job.acked:
            return
        job.acked = self.unflushed = True
        if self.lost is None:
            try:
                self._channel.ack((job.delivery,))
                return
            except ChannelLost as error:
                self.lost = error
        self._owed.append((job, lambda: self._channel.ack((job.delivery,)), True))

    def give_back(self, jobs: Sequence[Job], *, unmarked: bool = False) -> None:
        """Give messages back to the heads of their queues, in order; ``unmarked``: if possible not as redelivered."""
        fresh = [job for job in jobs if not job.acked]
        for job in fresh:
            job.acked = True
        give_back = partial(self._channel.give_back, unmarked=unmarked)
        if fresh and self.lost is None and self._attempt(lambda: give_back([job.delivery for job in fresh])):
            return
        for job in reversed(fresh):  # each goes to the head, so the first one last
            self._owed.append((job, partial(give_back, (job.delivery,)), True))

    def again(self, job: Job, *, after_seconds: float) -> None:
        """Send a task that raised again, after a pause."""
        assert job.message is not None
        due = datetime.fromtimestamp(time.time() + after_seconds, UTC) if after_seconds > 0 else None
        self._send(job, job.delivery.queue, job.message.again(retries=job.key[1] + 1, eta=due))

    def after_crash(self, job: Job, *, attempts: int) -> None:
        """Send the same run again: the process that ran it died. The copy says how often that has happened."""
        self._send(job, job.delivery.queue, _copy(job.delivery, {ATTEMPTS_HEADER: attempts, "redelivered": True}))

    def bury(self, job: Job, *, error: str, traceback: str = "", dead_letters: DeadLetters | None = None) -> None:
        """To ``<queue>.dead``, with what happened in its headers. It stays there until somebody looks.

        dead_letters: ``broker`` refuses the message, so that it goes where the broker says; None does so where the app
        declares the queue with a dead-letter exchange of its own.  ``none``: done with it.
        """
        if dead_letters == "none":
            self.ack(job)
            return
        by_default = dead_letters is None and self._channel.keeps_rejected(job.delivery.queue)
        if (dead_letters == "broker" or by_default) and not job.acked:
            job.acked = True
            debt = partial(self._channel.reject, (job.delivery,))
            if self.lost is not None or not self._attempt(debt):
                self._owed.append((job, debt, True))
            return
        story = {
            "x-fleet-error": error,
            "x-fleet-traceback": traceback,
            "x-fleet-queue": job.delivery.queue,
            "x-fleet-retries": job.key[1],
            ATTEMPTS_HEADER: job.delivery.attempts,
            "x-fleet-died-at": datetime.now(UTC).isoformat(),
            "x-fleet-replica": self._replica,
            **(job.story or {}),
        }
        self._send(job, job.delivery.queue + DEAD_SUFFIX, _copy(job.delivery, story))

    @property
    def dies_with_us(self) -> bool:
        """Whether something is buffered of which the broker would not learn if this process were killed now."""
        return self.unflushed and not self._channel.keeps_acks

    def flush(self) -> None:
        """Send what the channel buffers."""
        if self.unflushed and self.lost is None:
            self.unflushed = False
            self._attempt(self._channel.flush)

    def on_fetched(self) -> None:
        """A fetch has taken the buffered acknowledgements with it."""
        self.unflushed = False

    def replay(self) -> list[Job]:
        """After a new connection: send what is owed; returns the jobs whose messages are no longer ours.

        Those are delivered again, here or elsewhere. Stops when this connection is lost too; then call it again.
        """
        self.lost = None
        gone = []
        while self._owed and self.lost is None:
            job, debt, needs_holding = self._owed[0]
            if needs_holding and not self._channel.holds(job.delivery):
                gone.append(job)
                self._owed.popleft()
            elif self._attempt(debt):
                self._owed.popleft()
        return gone

    def _send(self, job: Job, queue: str, built: Built) -> None:
        acks = () if job.acked else (job.delivery,)
        job.acked = True
        debt = partial(self._publish, queue, built, acks)
        if self.lost is not None or not self._attempt(debt):
            self._owed.append((job, debt, bool(acks)))

    def _publish(self, queue: str, built: Built, acks: Sequence[Delivery]) -> None:
        """Send it. What cannot be written as it is goes to the dead letters, with its headers as text."""
        try:
            self._publish_as_is(queue, built, acks)
        except ChannelLost:
            raise
        except Exception as error:
            dead = queue if queue.endswith(DEAD_SUFFIX) else queue + DEAD_SUFFIX
            log.exception(
                "a message for queue %s cannot be written; it goes to %s with its headers as text", queue, dead
            )
            self._publish_as_is(dead, _plain(built, error), acks)

    def _publish_as_is(self, queue: str, built: Built, acks: Sequence[Delivery]) -> None:
        self._channel.publish(
            queue,
            built.body,
            headers=built.headers,
            properties=built.properties,
            content_type=built.content_type,
            content_encoding=built.content_encoding,
            acks=acks,
        )

    def _attempt(self, debt: Debt) -> bool:
        try:
            debt()
        except ChannelLost as error:
            self.lost = error
            return False
        return True


def _plain(built: Built, error: Exception) -> Built:
    """The same body, and of its headers what every broker can carry: so much short text, and whole numbers."""
    body = built.body.encode(errors="replace") if isinstance(built.body, str) else built.body
    headers: dict[str, Any] = {"x-fleet-error": f"{type(error).__name__}: {_text(error, _MOST_TEXT)}"}
    room = _MOST_HEADERS
    for name, value in sorted(built.headers.items(), key=lambda item: not str(item[0]).startswith("x-fleet-")):
        short = _value(value)
        room -= len(str(short)) + 200
        if room > 0:
            headers.setdefault(_text(name, 200), short)
    return Built(body, headers, {}, _text(built.content_type, 200), _text(built.content_encoding, 200))


def _value(value: object) -> object:
    if value is None or isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63):
        return value
    return _text(value, _MOST_TEXT)


def _text(value: object, most: int) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text.encode(errors="replace").decode()[:most]


def _copy(delivery: Delivery, more: Mapping[str, Any]) -> Built:
    """The message as it came, in its own protocol, with more headers."""
    headers = {**delivery.headers, **more}
    properties = dict(delivery.properties)
    return Built(delivery.body, headers, properties, delivery.content_type, delivery.content_encoding)
