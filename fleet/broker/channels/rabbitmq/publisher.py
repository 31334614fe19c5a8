"""Sending on RabbitMQ with publisher confirms, many at a time; and the queues in which messages wait for a date.

A message that is to wait goes to a queue without consumers whose messages expire: RabbitMQ then moves them to the queue
they are for, by its dead-letter rule. There is one such queue per target and power of two of seconds, because messages
expire in order only where all have the same time to live. A message that is back too early is delayed again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

import kombu

from fleet.broker.queues import declare, sendable

log = logging.getLogger("fleet.worker")

CONFIRM_SECONDS = 20.0
LONGEST_DELAY_SECONDS = 1 << 21
IDLE_SECONDS = 3600
DECLARED_SECONDS = 600.0
_LONGEST_NAME = 255
_HEAD_OF_A_FRAME = 64


class NotConfirmed(OSError):
    """The broker did not take a message."""


_ROUTES = frozenset({"CC", "BCC"})
"""Headers by which a message goes to more queues. It went there when it was sent first."""


class Unwritable(ValueError):
    """The headers or properties of a message cannot be sent over this connection, now or later."""


class Outlet:
    """One channel that only sends. Callbacks run when the broker confirms their message."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._sent = 0
        self._open: dict[int, Callable[[], object]] = {}
        self._refused = ""
        self._declared: dict[str, float] = {}
        self._undeclarable: set[str] = set()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)

    def send(
        self,
        queue: str,
        body: bytes | str,
        *,
        headers: Mapping[str, Any],
        properties: Mapping[str, Any],
        content_type: str,
        content_encoding: str,
        then: Callable[[], object],
    ) -> None:
        """Send; ``then`` is called when the broker has it, out of some later reading of the connection.

        Raises Unwritable for a message that this broker can never be sent.
        """
        message = self._message(
            body, headers=headers, properties=properties, content_type=content_type, content_encoding=content_encoding
        )
        self._sent += 1
        self._open[self._sent] = then
        # Mandatory: the broker confirms a message for a queue that somebody has deleted, too.
        self._channel.basic_publish(message, exchange="", routing_key=queue, mandatory=True)

    def _message(
        self,
        body: bytes | str,
        *,
        headers: Mapping[str, Any],
        properties: Mapping[str, Any],
        content_type: str,
        content_encoding: str,
    ) -> Any:
        own = {name: value for name, value in headers.items() if name not in _ROUTES}
        if not _is_finite(own):
            raise Unwritable("the broker closes a connection over a number in its headers that is none")
        without_priority = {name: value for name, value in sendable(properties).items() if name != "priority"}
        try:
            message = self._channel.prepare_message(
                body.encode() if isinstance(body, str) else body,
                priority=properties.get("priority"),
                content_type=content_type,
                content_encoding=content_encoding,
                headers=own,
                properties={"delivery_mode": 2, **without_priority},
            )
            size = len(message._serialize_properties())
        except Exception as error:  # struct, datetime, unicode, and what py-amqp takes for a broken connection
            raise Unwritable(f"{type(error).__name__}: {error}") from error
        most = self._connection.connection.frame_max
        if most and size > most - _HEAD_OF_A_FRAME:
            raise Unwritable(f"its headers have {size} bytes, and the broker closes a connection over more than {most}")
        return message

    def wait(self, seconds: float = CONFIRM_SECONDS) -> None:
        """Until all is confirmed. Raises NotConfirmed or, after a while, TimeoutError."""
        end = time.monotonic() + seconds
        while self._open and not self._refused:
            self._connection.drain_events(timeout=max(0.01, end - time.monotonic()))
        self.check()

    def check(self) -> None:
        """Raises NotConfirmed when the broker has refused something."""
        if self._refused:
            raise NotConfirmed(self._refused)

    def delay_queue(self, queue: str, seconds: float) -> str | None:
        """The queue in which a message waits for the greater part of that time, declared; None where there is none."""
        bucket = delay_bucket_seconds(seconds)
        name = delay_queue_name(queue, bucket)
        if len(name.encode()) > _LONGEST_NAME:
            return None
        if name in self._undeclarable:
            return None
        now = time.monotonic()
        if now - self._declared.get(name, -DECLARED_SECONDS) >= DECLARED_SECONDS:
            try:
                declare(self._connection, kombu.Queue(name, queue_arguments=delay_queue_arguments(queue, bucket)))
            except self._connection.channel_errors as error:
                self._undeclarable.add(name)
                log.warning("tasks with a date are kept in this worker: queue %s cannot be declared: %s", name, error)
                return None
            self._declared[name] = now
        return name

    def _on_ack(self, tag: int, multiple: bool) -> None:
        if self._refused:
            return  # a returned message is confirmed as well, without saying which one it was
        tags = [known for known in self._open if known <= tag] if multiple else [tag]
        for known in tags:
            then = self._open.pop(known, None)
            if then is not None:
                then()

    def _on_nack(self, *_: object) -> None:
        self._refused = "the broker refused a message: is a queue full, or the broker out of memory or disk?"

    def _on_return(self, error: Exception, exchange: str, queue: str, message: object) -> None:  # noqa: ARG002
        self._refused = f"the broker has no queue {queue} any more: it is declared again with the next connection"


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(_is_finite, value))


def delay_bucket_seconds(seconds: float) -> int:
    """The greatest power of two that is not above a time of at least a second."""
    return min(1 << (int(seconds).bit_length() - 1), LONGEST_DELAY_SECONDS)


def delay_queue_name(queue: str, seconds: int) -> str:
    """Where messages for a queue wait that many seconds."""
    return f"fleet.delay.{queue}.{seconds}"


def delay_queue_arguments(queue: str, seconds: int) -> dict[str, Any]:
    """The broker deletes it when it was not declared for some time after its last message must have left."""
    return {
        "x-message-ttl": seconds * 1000,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": queue,
        "x-expires": int(seconds + DECLARED_SECONDS + IDLE_SECONDS) * 1000,
    }
