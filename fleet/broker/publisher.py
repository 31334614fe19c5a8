"""Sends tasks to a broker, one or many at a time, and asks how long its queues are."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

from fleet.broker.connection import (
    broker_errors,
    connect_now,
    is_redis,
    kombu_connection,
    redis_access,
    unreachable,
)
from fleet.broker.envelope import sealed
from fleet.core.text.mask import masked
from fleet.errors import Unreachable

if TYPE_CHECKING:
    from fleet.broker.queues import Gauge

BATCH = 500
CONFIRM_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message ready to be sent: its queue, and its body as serialized."""

    queue: str
    body: bytes | str
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    content_encoding: str = "utf-8"


class _Wire(Protocol):
    errors: tuple[type[BaseException], ...]

    def send(self, messages: Sequence[Outgoing]) -> None: ...

    def depth(self, queue: str) -> int | None: ...

    def close(self) -> None: ...


class Publisher:
    """Sends messages to one broker. Any thread may use it; a forked child gets a connection of its own.

    A connection that was lost while idle is made again once, without an error; a batch that was interrupted is sent
    again, so a task may then arrive twice, and is never lost without an error.
    """

    def __init__(self, url: str, *, options: Mapping[str, Any] | None = None) -> None:
        self.url = url
        self._options = dict(options or {})
        self._lock = threading.Lock()
        self._wire: _Wire | None = None
        self._pid = os.getpid()

    def send(self, message: Outgoing) -> None:
        """Send one message. Raises Unreachable when the broker does not take it."""
        self._send([message])

    def send_many(
        self, messages: Iterable[Outgoing], *, batch: int = BATCH, progress: Callable[[int], None] | None = None
    ) -> int:
        """Send messages in batches; ``progress`` gets the number sent so far. Returns their number."""
        sent = 0
        for chunk in _chunks(messages, batch):
            self._send(chunk)
            sent += len(chunk)
            if progress is not None:
                progress(sent)
        return sent

    def close(self) -> None:
        """Disconnect. The next send connects again."""
        with self._lock:
            self._drop()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Publisher {masked(self.url)}>"

    def _send(self, messages: Sequence[Outgoing]) -> None:
        if self._pid != os.getpid():
            # The parent uses its connection itself, and may have held its lock while we were forked.
            self._pid, self._lock, self._wire = os.getpid(), threading.Lock(), None
        with self._lock:
            fresh = self._wire is None
            try:
                self._try(messages)
            except Unreachable:
                if fresh:
                    raise
                self._try(messages)

    def _try(self, messages: Sequence[Outgoing]) -> None:
        wire = self._wire = self._wire or _connect(self.url, self._options)
        try:
            wire.send(messages)
        except wire.errors as error:
            self._drop()
            raise unreachable(self.url, error) from error

    def _drop(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None and self._pid == os.getpid():
            wire.close()


def depths(url: str, queues: Sequence[str], *, options: Mapping[str, Any] | None = None) -> dict[str, int | None]:
    """How many messages wait in each queue, urgent ones included; None where there is none, or no count.

    Raises Unreachable.
    """
    wire = _connect(url, dict(options or {}))
    try:
        return {queue: wire.depth(queue) for queue in queues}
    except wire.errors as error:
        raise unreachable(url, error) from error
    finally:
        wire.close()


def _connect(url: str, options: Mapping[str, Any]) -> _Wire:
    try:
        return _RedisWire(url, options) if is_redis(url) else _KombuWire(url, options)
    except Unreachable:
        raise
    except Exception as error:
        raise unreachable(url, error) from error


class _RedisWire:
    """Writes to the lists: one LPUSH per list and batch."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        import redis

        from fleet.broker.redis_link import Link

        self.errors: tuple[type[BaseException], ...] = (redis.RedisError, OSError)
        self._access = redis_access(url, options)
        self._link = Link(self._access, name="fleet:send")

    def send(self, messages: Sequence[Outgoing]) -> None:
        lists: dict[str, list[bytes]] = {}
        for message in messages:
            target = self._access.list_of(message.queue, message.properties.get("priority"))
            lists.setdefault(target, []).append(_envelope(message))
        commands = [("LPUSH", target, *envelopes) for target, envelopes in lists.items()]
        self._link.call_many(commands if len(commands) == 1 else [("MULTI",), *commands, ("EXEC",)])

    def depth(self, queue: str) -> int | None:
        lengths: list[int] = self._link.call_many([("LLEN", key) for key in self._access.lists(queue)])
        return sum(lengths)

    def close(self) -> None:
        self._link.close()


class _KombuWire:
    """Through kombu. On RabbitMQ a whole batch is sent before its confirms are waited for."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._connection = kombu_connection(url, options={"confirm_publish": False, **options})
        self.errors: tuple[type[BaseException], ...] = (*broker_errors(self._connection), _NotConfirmed)
        connect_now(self._connection)
        self._channel = self._connection.channel()
        self._confirms = _Confirms(self._channel) if hasattr(self._channel, "confirm_select") else None
        self._declared: set[str] = set()
        self._gauge: Gauge | None = None

    def send(self, messages: Sequence[Outgoing]) -> None:
        import kombu

        from fleet.broker.queues import sendable

        producer = kombu.Producer(self._channel, auto_declare=False)
        if self._confirms is not None:
            self._confirms.expect(len(messages))
        for message in messages:
            self._ensure_declared(message.queue)
            producer.publish(
                message.body.encode() if isinstance(message.body, str) else message.body,
                exchange="",
                routing_key=message.queue,
                headers=dict(message.headers),
                content_type=message.content_type,
                content_encoding=message.content_encoding,
                delivery_mode=2,
                **sendable(message.properties),
            )
        if self._confirms is not None:
            self._confirms.wait(self._connection)

    def depth(self, queue: str) -> int | None:
        from fleet.broker.queues import Gauge

        self._gauge = self._gauge or Gauge(self._connection)
        return self._gauge.ready(queue)

    def close(self) -> None:
        self._connection.release()

    def _ensure_declared(self, queue: str) -> None:
        from fleet.broker.queues import declare, entity

        if queue not in self._declared:
            declare(self._connection, entity(queue, {}))
            self._declared.add(queue)


class _NotConfirmed(Exception):
    """The broker did not take a message."""


class _Confirms:
    """Counts what RabbitMQ has confirmed on a channel."""

    def __init__(self, channel: Any) -> None:
        self._sent = 0
        self._open: set[int] = set()
        self._refused = False
        channel.confirm_select()
        channel.events["basic_ack"].add(self._on_ack)
        channel.events["basic_nack"].add(self._on_nack)

    def expect(self, count: int) -> None:
        """To be called before ``count`` messages are sent."""
        self._open.update(range(self._sent + 1, self._sent + count + 1))
        self._sent += count

    def wait(self, connection: Any) -> None:
        """Wait until all that was sent is confirmed. Raises _NotConfirmed or, after a while, TimeoutError."""
        while self._open and not self._refused:
            connection.drain_events(timeout=CONFIRM_SECONDS)
        if self._refused:
            raise _NotConfirmed("a message was refused: is the queue full, or the broker out of memory or disk?")

    def _on_ack(self, delivery_tag: int, multiple: bool) -> None:
        if multiple:
            self._open = {tag for tag in self._open if tag > delivery_tag}
        else:
            self._open.discard(delivery_tag)

    def _on_nack(self, *_: object) -> None:
        self._refused = True


def _envelope(message: Outgoing) -> bytes:
    return sealed(
        message.queue,
        message.body,
        headers=message.headers,
        properties=message.properties,
        content_type=message.content_type,
        content_encoding=message.content_encoding,
    )


def _chunks(messages: Iterable[Outgoing], size: int) -> Iterator[list[Outgoing]]:
    iterator = iter(messages)
    while chunk := list(islice(iterator, size)):
        yield chunk
