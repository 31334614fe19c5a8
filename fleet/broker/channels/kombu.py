"""The kombu channel: every transport but Redis and RabbitMQ, by kombu's own means; asked for messages, and polled.

It promises what the transport does and no more. ``filesystem`` and ``sqlalchemy`` take a message out of its queue when
it is fetched. A worker that gives it back or stops puts it back; a worker that is killed loses what it held, and late
acknowledgement does not help there. (SQLAlchemy's row stays in its table, marked invisible.) ``memory`` is within
one process: no other process can send to the worker. Transports that cannot put a message at the head of a queue put
what is given back at the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import kombu
from kombu.transport import virtual

from fleet.broker import decompression  # noqa: F401 - bounds what kombu decompresses
from fleet.broker.channels.base import TEND_SECONDS, NoEnds
from fleet.broker.channels.kombu_base import Connected, by_priority, speaks
from fleet.broker.delivery import Delivery
from fleet.broker.envelope import attempts_in
from fleet.broker.queues import entity, refuse_fanout, sendable
from fleet.core.spec import QueueSpec

log = logging.getLogger("fleet.worker")

POLL_SECONDS = 0.2
_RESTORE_SECONDS = 10.0
_LOSES = "a message leaves its queue when it is fetched: a worker that is killed loses what it held, late acks or not"
_CAVEATS = {
    "filesystem": f"the filesystem transport is for development: {_LOSES}",
    "sqlalchemy": f"the SQLAlchemy transport is for development: {_LOSES}",
    "memory": "the memory transport is within this process: nobody else can send it a task",
}
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
"""What kombu raises for a message of others that it has taken and cannot read; it is out of its queue then."""


class KombuChannel(Connected):
    """One replica's way to its queues through kombu."""

    def __init__(
        self,
        url: str,
        *,
        queues: Sequence[QueueSpec],
        options: Mapping[str, Any] | None = None,
        entities: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(url, queues=queues, options=options, entities=entities)
        refuse_fanout((spec.name for spec in queues), self._entities)
        self.poll_seconds: float | None = POLL_SECONDS
        self.keeps_acks = True  # nothing is buffered
        self._channel: Any = None
        self._life = 0
        self.ends = NoEnds()
        self._held: dict[str, Any] = {}
        self._restore_at = 0.0

    @property
    def rest_seconds(self) -> float:
        """Most transports say nothing when a message has come."""
        return TEND_SECONDS

    @speaks
    def open(self) -> None:
        """Connect and declare the queues."""
        self._hang_up()
        self._life += 1
        connection = self._connect(self._options)
        if self._life == 1 and (caveat := _CAVEATS.get(connection.transport.driver_name)):
            log.warning("%s", caveat)
        self._channel = connection.channel()
        self._declare_all()

    @speaks
    def consume(self, queues: Sequence[QueueSpec]) -> None:
        """From now on fetch from these queues and no others."""
        self._queues = by_priority(queues)
        if self._channel is not None:
            self._declare_all()

    @speaks
    def fetch(self, count: int, ahead: int = 0) -> list[Delivery]:  # noqa: ARG002
        self._require_open()
        taken: list[tuple[str, Any]] = []
        live = [spec.name for spec in self._queues]
        while live and len(taken) < count:
            name = live[0]
            try:
                message = entity(name, self._entities)(self._channel).get(no_ack=False)
            except _UNREADABLE as error:
                log.error("queue %s: dropped a message that kombu cannot read: %r", name, error)
                continue
            if message is not None:
                taken.append((name, message))
            else:
                live.pop(0)
        if count > 0:
            self._rotate()
        return [self._delivered(queue, message) for queue, message in taken]

    @property
    def pushed(self) -> int:
        """0: these transports push nothing."""
        return 0

    def wait_fds(self) -> Sequence[int]:
        """Empty: this channel is polled."""
        return ()

    def fds(self) -> Sequence[int]:
        """Empty: a forked child has nothing to close."""
        return ()

    def holds(self, delivery: Delivery) -> bool:
        return delivery.tag in self._held

    @speaks
    def ack(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            message = self._held.pop(delivery.tag, None)
            if message is not None:
                message.ack()

    @speaks
    def give_back(self, deliveries: Sequence[Delivery], *, unmarked: bool = False) -> None:  # noqa: ARG002
        """Put these back, at the end of their queues where the transport cannot do better."""
        messages = [self._held.pop(delivery.tag, None) for delivery in deliveries]
        self._return([message for message in messages if message is not None])

    @speaks
    def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Refuse these for good: kombu's own transports drop them."""
        for delivery in deliveries:
            message = self._held.pop(delivery.tag, None)
            if message is not None:
                message.reject(requeue=False)

    def keeps_rejected(self, queue: str) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def delay(self, delivery: Delivery, *, due: float) -> bool:  # noqa: ARG002
        """Always False: the worker holds it."""
        return False

    @speaks
    def publish(
        self,
        queue: str,
        body: bytes | str,
        *,
        headers: Mapping[str, Any],
        properties: Mapping[str, Any],
        content_type: str,
        content_encoding: str,
        acks: Sequence[Delivery] = (),
    ) -> None:
        """Send a message, then acknowledge ``acks``."""
        self._require_open()
        self._ensure_declared(queue)
        kombu.Producer(self._channel, auto_declare=False).publish(
            body,
            exchange="",
            routing_key=queue,
            headers=dict(headers),
            content_type=content_type,
            content_encoding=content_encoding,
            delivery_mode=2,
            **sendable(properties),
        )
        self.ack(acks)

    def flush(self) -> None:
        """Nothing to do: nothing is buffered."""

    @speaks
    def tend(self) -> None:
        """Let transports with a visibility timeout look for expired messages."""
        self._require_open()
        now = time.monotonic()
        if now >= self._restore_at:
            self._restore_at = now + _RESTORE_SECONDS
            self._channel.qos.restore_visible()

    def close(self) -> None:
        """Give back what is held and not acknowledged, disconnect. Never raises."""
        with self.lock:
            if self._channel is not None:
                with suppress(Exception):
                    self._return(list(self._held.values()))
            self._hang_up()

    def _return(self, messages: Sequence[Any]) -> None:
        """Requeue; the first is the next to be taken where the transport can put it at the head."""
        for message in messages if _appends(self._channel) else reversed(messages):
            message.reject(requeue=True)

    def _delivered(self, queue: str, message: Any) -> Delivery:
        tag = f"{self._life}:{message.delivery_tag}"
        self._held[tag] = message
        headers = message.headers or {}
        if "compression" in headers and not message.errors:
            # kombu has decompressed the body already.
            headers = {name: value for name, value in headers.items() if name != "compression"}
        info = message.delivery_info
        if not (isinstance(info, Mapping) and {"exchange", "routing_key"} <= info.keys()):
            message.delivery_info = {"exchange": "", "routing_key": queue}  # kombu needs both to put it back
        redelivered = bool(message.delivery_info.get("redelivered"))
        return Delivery(
            tag=tag,
            queue=queue,
            body=_plain(message.body),
            headers=headers,
            properties=message.properties or {},
            content_type=message.content_type or "application/data",
            content_encoding=message.content_encoding or "utf-8",
            redelivered=redelivered or headers.get("redelivered") is True,
            attempts=max(int(redelivered), attempts_in(headers)),
            received_at=time.monotonic(),
            original=message,
        )

    def _hang_up(self, *, lost: bool = False) -> None:
        self._channel = None
        self._held.clear()
        super()._hang_up(lost=lost)


def _appends(channel: Any) -> bool:
    """Whether a requeued message goes to the end of its queue."""
    restore = getattr(type(channel), "_restore_at_beginning", None)
    return restore is not None and restore is virtual.Channel._restore_at_beginning


def _plain(body: Any) -> bytes | str:
    if isinstance(body, bytes | str):
        return body
    return bytes(body) if body is not None else b""
