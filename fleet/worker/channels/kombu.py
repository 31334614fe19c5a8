"""The kombu channel: RabbitMQ and every other transport kombu knows, by kombu's own means.

RabbitMQ pushes: its prefetch window is the most the worker will hold, per queue, and never a channel-wide one, so
quorum queues work. What it pushes beyond what was asked for waits in a buffer, for a second at most while the worker
is full: then it goes back and the consumers are cancelled until there is room, so that no replica hoards what another
could run. Other transports are asked for one message after the other, and polled.

After a lost connection the broker delivers everything unacknowledged again; :meth:`KombuChannel.holds` then says no.
RabbitMQ also closes a channel whose message stays unacknowledged for its ``consumer_timeout`` (30 minutes by default):
queues of longer late-acknowledged tasks need a longer one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import kombu
from kombu.transport import virtual

from fleet.broker.connection import broker_errors, connect_now, kombu_connection
from fleet.broker.envelope import ATTEMPTS_HEADER
from fleet.broker.queues import backlog, declare, entity, sendable
from fleet.core.desired import QueueSpec
from fleet.worker.delivery import ChannelLost, Delivery

HEARTBEAT_SECONDS = 10.0
POLL_SECONDS = 0.2
HOARD_SECONDS = 1.0
CONFIRM_SECONDS = 20.0
_RESTORE_SECONDS = 10.0

P = ParamSpec("P")
R = TypeVar("R")


def _speaks(method: Callable[Concatenate[KombuChannel, P], R]) -> Callable[Concatenate[KombuChannel, P], R]:
    """Hold the lock, and turn every failure of the connection into ChannelLost."""

    @wraps(method)
    def spoken(self: KombuChannel, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:
                if not self._is_loss(error):
                    raise
                self._hang_up()
                raise ChannelLost(str(error) or type(error).__name__) from error

    return spoken


class KombuChannel:
    """One replica's way to its queues through kombu."""

    def __init__(
        self,
        url: str,
        *,
        queues: Sequence[QueueSpec],
        prefetch_hint: int = 1,
        options: Mapping[str, Any] | None = None,
        entities: Mapping[str, Any] | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self.poll_seconds: float | None = POLL_SECONDS
        self._url = url
        self._queues = tuple(sorted(queues, key=lambda spec: -spec.priority))
        self._limit = max(1, prefetch_hint)
        self._options = dict(options or {})
        self._entities = dict(entities or {})
        self._connection: Any = None
        self._channel: Any = None
        self._consumers: list[Any] = []
        self._declared: set[str] = set()
        self._life = 0
        self._held: dict[str, Any] = {}
        self._buffers: dict[str, deque[Any]] = {spec.name: deque() for spec in queues}
        self._pushes = False
        self._full_since: float | None = None
        self._restore_at = 0.0

    @_speaks
    def open(self) -> None:
        """Connect and declare the queues. What an earlier life held, the broker has put back by itself."""
        self._hang_up()
        self._life += 1
        self._connection = connection = kombu_connection(
            self._url, options=self._options, heartbeat_seconds=HEARTBEAT_SECONDS
        )
        connect_now(connection)
        self._pushes = connection.transport.driver_type == "amqp" and not connection.transport.__module__.startswith(
            "kombu.transport.virtual"
        )
        self.poll_seconds = None if self._pushes else POLL_SECONDS
        self._channel = connection.channel()
        for spec in self._queues:
            self._ensure_declared(spec.name)

    @_speaks
    def consume(self, queues: Sequence[QueueSpec]) -> None:
        """From now on fetch from these queues and no others. What others pushed goes back."""
        self._queues = tuple(sorted(queues, key=lambda spec: -spec.priority))
        for spec in queues:
            self._buffers.setdefault(spec.name, deque())
        gone = sorted(self._buffers.keys() - {spec.name for spec in queues})
        if self._channel is not None:
            self._cancel()
            self._return([message for name in gone for message in self._buffers[name]])
            for spec in queues:
                self._ensure_declared(spec.name)
        for name in gone:
            del self._buffers[name]

    @_speaks
    def backlog(self) -> int | None:
        """How many messages wait in the consumed queues, as far as the transport can count them."""
        self._require_open()
        return backlog(self._connection, [spec.name for spec in self._queues])

    @_speaks
    def fetch(self, count: int) -> list[Delivery]:
        """Up to ``count`` messages that are there now. 0 stops the waiting and gives back what was pushed too early."""
        self._require_open()
        if count <= 0:
            self._park()
            return []
        messages = self._pushed(count) if self._pushes else self._asked_for(count)
        self._full_since = time.monotonic() if len(messages) >= count else None
        return [self._delivered(queue, message) for queue, message in messages]

    def wait_fds(self) -> Sequence[int]:
        """Descriptors that become readable when a fetch may bring something."""
        return self.fds() if self._consumers else ()

    def fds(self) -> Sequence[int]:
        """Every socket of this channel, for a forked child to close."""
        return (self._connection.connection.sock.fileno(),) if self._pushes and self._connection is not None else ()

    def holds(self, delivery: Delivery) -> bool:
        """Whether this message is still ours to run and acknowledge."""
        return delivery.tag in self._held

    @_speaks
    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these. Those of an earlier connection are delivered again whatever we say."""
        for delivery in deliveries:
            message = self._held.pop(delivery.tag, None)
            if message is not None:
                message.ack()

    @_speaks
    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Put these back. RabbitMQ puts them where they were; transports without a head put them at the end."""
        messages = [self._held.pop(delivery.tag, None) for delivery in deliveries]
        self._park([message for message in messages if message is not None])

    def delay(self, delivery: Delivery, *, due: float) -> bool:  # noqa: ARG002
        """Not here: the worker holds it."""
        return False

    @_speaks
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
        """Send a message, wait until the broker has it, then acknowledge ``acks``."""
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
            confirm_timeout=CONFIRM_SECONDS,
            **sendable(properties),
        )
        self.ack(acks)

    def flush(self) -> None:
        """Nothing is buffered on its way out."""

    @_speaks
    def tend(self) -> None:
        """Heartbeat in both directions, and give back what waits here while the worker has no room."""
        self._require_open()
        now = time.monotonic()
        if not self._pushes:
            self._restore_expired(now)
            return
        self._connection.heartbeat_check()
        # While the worker waits for messages it reads the socket itself; reading here would hide them from it.
        if self._full_since is not None:
            self._drain(None)
            if now - self._full_since >= HOARD_SECONDS and any(self._buffers.values()):
                self._park()

    def close(self) -> None:
        """Give back what is held and not acknowledged, disconnect. Never raises."""
        with self.lock:
            if self._connection is not None:
                with suppress(Exception):
                    self._park(list(self._held.values()))
            self._hang_up()

    # ---- taking

    def _pushed(self, count: int) -> list[tuple[str, Any]]:
        wanted = count + len(self._held)
        if not self._consumers or wanted > self._limit:
            self._consume(max(self._limit, wanted))
        self._drain(count)
        taken: list[tuple[str, Any]] = []
        for spec in self._queues:
            buffer = self._buffers[spec.name]
            while buffer and len(taken) < count:
                taken.append((spec.name, buffer.popleft()))
        self._rotate()
        return taken

    def _asked_for(self, count: int) -> list[tuple[str, Any]]:
        taken: list[tuple[str, Any]] = []
        live = [spec.name for spec in self._queues]
        while live and len(taken) < count:
            name = live.pop(0)
            message = entity(name, self._entities)(self._channel).get(no_ack=False)
            if message is not None:
                taken.append((name, message))
                live.insert(0, name)
        self._rotate()
        return taken

    def _rotate(self) -> None:
        """Let another queue of the same priority be the first next time."""
        if len(self._queues) > 1:
            turned = self._queues[1:] + self._queues[:1]
            self._queues = tuple(sorted(turned, key=lambda spec: -spec.priority))

    def _consume(self, limit: int) -> None:
        """Let the broker push, up to ``limit`` per queue. RabbitMQ fixes the window when a consumer starts."""
        self._cancel()
        self._limit = limit
        for spec in self._queues:
            consumer = kombu.Consumer(
                self._channel,
                [entity(spec.name, self._entities)],
                on_message=self._buffers[spec.name].append,
                auto_declare=False,
                prefetch_count=limit,
            )
            consumer.consume()
            self._consumers.append(consumer)

    def _cancel(self) -> None:
        while self._consumers:
            self._consumers.pop().cancel()

    def _drain(self, wanted: int | None) -> None:
        """Read what the socket has, without waiting, until ``wanted`` messages are here.

        Reading on until there is nothing would be an exception per message. Where less is here than wanted, nothing is
        left in py-amqp's own buffer, so the socket becomes readable when more arrives.
        """
        buffers = self._buffers.values()
        with suppress(TimeoutError):
            while wanted is None or sum(map(len, buffers)) < wanted:
                self._connection.drain_events(timeout=0)

    def _park(self, given_back: Sequence[Any] = ()) -> None:
        """Stop the pushing, so that it does not come back at once, and return what is given back or came too early."""
        self._cancel()
        messages = list(given_back)
        for buffer in self._buffers.values():
            messages += buffer
            buffer.clear()
        self._return(messages)
        self._full_since = None

    def _return(self, messages: Sequence[Any]) -> None:
        """Requeue, so that the first is the next to be taken where the transport can put it to the head."""
        ordered = messages if _appends(self._channel) else list(reversed(messages))
        for message in ordered:
            message.reject(requeue=True)

    def _delivered(self, queue: str, message: Any) -> Delivery:
        tag = f"{self._life}:{message.delivery_tag}"
        self._held[tag] = message
        headers = message.headers or {}
        if "compression" in headers and not message.errors:
            # kombu has decompressed the body already.
            headers = {name: value for name, value in headers.items() if name != "compression"}
        redelivered = bool((message.delivery_info or {}).get("redelivered"))
        return Delivery(
            tag=tag,
            queue=queue,
            body=_plain(message.body),
            headers=headers,
            properties=_properties(message),
            content_type=message.content_type or "application/data",
            content_encoding=message.content_encoding or "utf-8",
            redelivered=redelivered,
            attempts=_attempts(headers, redelivered=redelivered),
            received_at=time.monotonic(),
            original=message,
        )

    # ---- the connection

    def _ensure_declared(self, queue: str) -> None:
        if queue not in self._declared:
            declare(self._connection, entity(queue, self._entities))
            self._declared.add(queue)

    def _restore_expired(self, now: float) -> None:
        """Transports with a visibility timeout look for expired messages when they are asked to."""
        if now >= self._restore_at:
            self._restore_at = now + _RESTORE_SECONDS
            self._channel.qos.restore_visible()

    def _require_open(self) -> None:
        if self._channel is None:
            raise ChannelLost("the channel is not open")

    def _is_loss(self, error: Exception) -> bool:
        """py-amqp raises AttributeError and the like too when the connection is lost under its hands."""
        connection = self._connection
        if connection is None or isinstance(error, ChannelLost):
            return False
        return isinstance(error, broker_errors(connection)) or not connection.connected

    def _hang_up(self) -> None:
        connection, self._connection, self._channel = self._connection, None, None
        self._consumers.clear()
        self._declared.clear()
        self._held.clear()
        self._full_since = None
        for buffer in self._buffers.values():
            buffer.clear()
        if connection is not None:
            with suppress(Exception):
                connection.release()


def _appends(channel: Any) -> bool:
    """Whether a requeued message goes to the end of its queue."""
    restore = getattr(type(channel), "_restore_at_beginning", None)
    return restore is not None and restore is virtual.Channel._restore_at_beginning


def _attempts(headers: Mapping[str, Any], *, redelivered: bool) -> int:
    """How often a replica may have died with it: our own count, a quorum queue's, or at least the redelivered flag."""
    counts = (headers.get(ATTEMPTS_HEADER), headers.get("x-delivery-count"))
    return max(int(redelivered), *(count for count in counts if isinstance(count, int)), 0)


def _properties(message: Any) -> Mapping[str, Any]:
    """With ``delivery_info`` among them: RabbitMQ tells it apart from the properties, others inside."""
    properties = message.properties or {}
    if "delivery_info" in properties:
        return properties
    info = message.delivery_info or {}
    place = {name: info.get(name) for name in ("exchange", "routing_key", "redelivered")}
    return {
        **{name: value for name, value in properties.items() if name != "application_headers"},
        "delivery_info": place,
    }


def _plain(body: Any) -> bytes | str:
    if isinstance(body, bytes | str):
        return body
    return bytes(body) if body is not None else b""
