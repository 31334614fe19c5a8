"""The RabbitMQ channel: kombu connects, py-amqp does the rest, and deliveries are read straight from the socket.

RabbitMQ pushes, up to a window per queue (never a channel-wide one, so quorum queues work). The window is what the
worker can start now. It doubles when it proves too small and is reset when the worker has been full for a second:
what was pushed beyond what it could start then goes back and the consumers are cancelled until there is room, so that
no replica keeps what another could run. While tasks are quick the window is wider by what runs in ``AHEAD_SECONDS``:
a worker that had to wait for the broker after each task would be idle half of the time.

Acknowledgements are sent in batches: with the next fetch, before the worker waits, and within a second in any case.
``keeps_acks`` is False: a process that is killed in between takes them with it, and those tasks run again, here or
elsewhere. Messages with a date wait in the broker, in the queues of
``outlet``.

After a lost connection the broker delivers everything unacknowledged again; :meth:`RabbitChannel.holds` then says no.
A peer that vanished is noticed after two missed heartbeats, by default 20 seconds. RabbitMQ also closes
a channel whose message stays unacknowledged for its ``consumer_timeout`` (30 minutes by default): the task goes on, and
its message is delivered again. Queues of longer late-acknowledged tasks need a longer one (``x-consumer-timeout``), or
early acknowledgement.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fleet.broker.channels.base import REST_SECONDS, ChannelLost, NoEnds
from fleet.broker.channels.kombu_base import Connected, by_priority, speaks
from fleet.broker.channels.rabbitmq.frames import Inlet, Pushed
from fleet.broker.channels.rabbitmq.prefetch import Prefetch
from fleet.broker.channels.rabbitmq.publisher import Outlet
from fleet.broker.decompression import decompress
from fleet.broker.delivery import Delivery
from fleet.broker.envelope import attempts_in
from fleet.broker.queues import has_dead_letter_exchange, real_name
from fleet.core.spec import QueueSpec

HEARTBEAT_SECONDS = 10.0
ANSWER_SECONDS = 20.0
HELD_SECONDS = 4.0
"""Messages due sooner than this are held by the worker."""


class RabbitChannel(Connected):
    """One replica's way to its queues on RabbitMQ."""

    def __init__(
        self,
        url: str,
        *,
        queues: Sequence[QueueSpec],
        prefetch_hint: int = 1,
        options: Mapping[str, Any] | None = None,
        entities: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(url, queues=queues, options=options, entities=entities)
        self.poll_seconds: float | None = None
        self.keeps_acks = False
        self._prefetch = Prefetch((spec.name for spec in queues), most=max(1, prefetch_hint), real_name=self._real_name)
        self.ends = NoEnds()
        self._held: dict[str, Pushed] = {}
        self._channel: Any = None
        self._amqp: Any = None
        self._inlet: Inlet | None = None
        self._outlet: Outlet | None = None
        self._life = 0
        self._waits = False

    @speaks
    def open(self) -> None:
        """Connect and declare the queues. The broker has put back what an earlier process held."""
        self._hang_up()
        self._life += 1
        patience = {"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS}
        options = {**patience, **self._options, "confirm_publish": False}  # the outlet handles confirms itself
        connection = self._connect(options, heartbeat_seconds=HEARTBEAT_SECONDS)
        self._amqp = connection.connection
        self._channel = connection.channel()
        self._inlet = Inlet(self._amqp, self._channel.channel_id, self._prefetch.on_pushed)
        self._prefetch.open(self._channel)
        self._declare_all()

    @speaks
    def consume(self, queues: Sequence[QueueSpec]) -> None:
        """From now on fetch from these queues and no others. What other queues pushed goes back."""
        self._queues = by_priority(queues)
        self._prefetch.change_queues([wanted.name for wanted in queues], self._declare_all)

    @speaks
    def fetch(self, count: int, ahead: int = 0) -> list[Delivery]:
        """Up to ``count`` messages that are there now, and ``ahead`` more. 0: the worker has no room."""
        self._require_open()
        self._waits = count > 0
        if not self._waits:
            self._prefetch.be_full()
            return []
        self._settle()
        found = self._prefetch.fetch(self._queues, count, self._own(self._inlet).read, ahead=ahead)
        if len(self._queues) > 1:
            self._rotate()
        now = time.monotonic()
        return [self._delivered(pushed, now) for pushed in found]

    @property
    def rest_seconds(self) -> float:
        """Heartbeats are sent in time: the broker waits for two of its intervals."""
        heartbeat = self._amqp.heartbeat if self._amqp is not None else HEARTBEAT_SECONDS
        return min(REST_SECONDS, heartbeat / 3) if heartbeat else REST_SECONDS

    @property
    def pushed(self) -> int:
        """How many messages wait in the buffers."""
        return len(self._prefetch)

    def wait_fds(self) -> Sequence[int]:
        """Descriptors that become readable when a fetch may bring something."""
        return self.fds() if self._waits and self._prefetch.is_coming else ()

    def fds(self) -> Sequence[int]:
        """The socket, for a forked child to close, and the bell."""
        bell_fd = self._prefetch.bell_fd
        if self._amqp is None or self._amqp.transport is None or bell_fd is None:
            return ()
        return (self._amqp.transport.sock.fileno(), bell_fd)

    def holds(self, delivery: Delivery) -> bool:
        return delivery.tag in self._held

    @speaks
    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these. Those of an earlier connection are delivered again in any case."""
        self._prefetch.unsettled.done.update(pushed.tag for pushed in self._no_longer_held(deliveries))

    @speaks
    def give_back(self, deliveries: Sequence[Delivery], *, unmarked: bool = False) -> None:
        """Put these back where they were, and stop the pushing, so that they do not come back at once.

        RabbitMQ marks whatever comes back. What is to stay unmarked is kept here, as if it had not been fetched yet.
        """
        self._require_open()
        taken = self._no_longer_held(deliveries)
        if unmarked:
            self._prefetch.put_back(taken)
        else:
            self._prefetch.park([pushed.tag for pushed in taken])

    @speaks
    def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Refuse these for good: to the queue's dead-letter exchange, or away."""
        self._require_open()
        tags = [pushed.tag for pushed in self._no_longer_held(deliveries)]
        self._prefetch.unsettled.reject(self._channel, tags, requeue=False)

    def keeps_rejected(self, queue: str) -> bool:
        """By the arguments with which the app declares it; what a policy on the server says is not seen."""
        return has_dead_letter_exchange(queue, self._entities)

    @speaks
    def delay(self, delivery: Delivery, *, due: float) -> bool:
        """Let the broker keep a message; one that is due very soon is the worker's to hold.

        The copy is sent at once and the message acknowledged when the broker has the copy: after a crash in between it
        exists twice rather than not at all.
        """
        seconds = due - time.time()
        if seconds < HELD_SECONDS:
            return False
        if delivery.tag not in self._held:
            return True
        outlet = self._open_outlet()
        queue = outlet.delay_queue(self._real_name(delivery.queue), seconds)
        if queue is None:
            return False
        outlet.send(
            queue,
            delivery.body,
            headers=delivery.headers,
            properties=delivery.properties,
            content_type=delivery.content_type,
            content_encoding=delivery.content_encoding,
            then=partial(self._on_safe, self._held.pop(delivery.tag).tag),
        )
        return True

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
        """Send a message, wait until the broker has it, then acknowledge ``acks``."""
        self._require_open()
        self._ensure_declared(queue)
        outlet = self._open_outlet()
        outlet.send(
            self._real_name(queue),
            body,
            headers=headers,
            properties=properties,
            content_type=content_type,
            content_encoding=content_encoding,
            then=_nothing,
        )
        outlet.wait()
        self.ack(acks)

    @speaks
    def flush(self) -> None:
        self._require_open()
        self._settle()

    @speaks
    def tend(self) -> None:
        """Heartbeat in both directions; give back what waits here while the worker is full; adapt the window."""
        self._require_open()
        self._connection.heartbeat_check()
        self._own(self._inlet).read()
        self._settle()
        if self._outlet is not None:
            self._outlet.check()
        self._prefetch.tend(self._queues)

    def close(self) -> None:
        """Give back what is held and not acknowledged, disconnect. Never raises."""
        with self.lock:
            lost = False
            if self._channel is not None:
                try:
                    self._give_up()
                except Exception:  # whatever is left, the broker puts back when the connection is gone
                    lost = True
            self._hang_up(lost=lost)

    def _delivered(self, pushed: Pushed, now: float) -> Delivery:
        tag = f"{self._life}:{pushed.tag}"
        self._held[tag] = pushed
        delivery = _delivery_of(pushed, tag, queue=self._prefetch.unsettled.queue_of(pushed.tag), now=now)
        if "x-delivery-count" in delivery.headers:
            self._prefetch.take_nothing_ahead()  # a quorum queue counts what is given back as well: take nothing ahead
        return delivery

    def _no_longer_held(self, deliveries: Sequence[Delivery]) -> list[Pushed]:
        """What was pushed, of those among these that are still ours."""
        taken = (self._held.pop(delivery.tag, None) for delivery in deliveries)
        return [pushed for pushed in taken if pushed is not None]

    def _real_name(self, queue: str) -> str:
        return real_name(queue, self._entities)

    # ---- settling

    def _on_safe(self, tag: int) -> None:
        """The broker has the copy of a message with a date: acknowledge the message."""
        self._prefetch.unsettled.done.add(tag)

    def _settle(self) -> None:
        self._prefetch.unsettled.settle(self._amqp, self._channel.channel_id)

    def _give_up(self) -> None:
        if self._outlet is not None:
            self._outlet.wait()
        self._settle()
        self._prefetch.park([pushed.tag for pushed in self._held.values()])

    # ---- the connection

    def _open_outlet(self) -> Outlet:
        self._require_open()
        if self._outlet is None:
            self._outlet = Outlet(self._connection)
        return self._outlet

    def _own(self, part: Inlet | None) -> Inlet:
        if part is None:
            raise ChannelLost("the channel is not open")
        return part

    def _hang_up(self, *, lost: bool = False) -> None:
        super()._hang_up(lost=lost)  # first: while it closes, the broker may still push
        self._channel = self._amqp = self._inlet = self._outlet = None
        self._held.clear()
        self._prefetch.close()
        self._waits = False


def _delivery_of(pushed: Pushed, tag: str, *, queue: str, now: float) -> Delivery:
    properties = pushed.properties()
    headers = properties.pop("application_headers", None) or {}
    body = pushed.body
    if "compression" in headers:
        headers, body = _decompressed(headers, body)
    # The header: of a copy that was sent again because a process died with the message.
    redelivered = pushed.redelivered or headers.get("redelivered") is True
    properties["delivery_info"] = {
        "exchange": pushed.exchange,
        "routing_key": pushed.routing_key,
        "redelivered": redelivered,
    }
    return Delivery(
        tag=tag,
        queue=queue,
        body=body,
        headers=headers,
        properties=properties,
        content_type=properties.get("content_type") or "application/data",
        content_encoding=properties.get("content_encoding") or "utf-8",
        redelivered=redelivered,
        # Neither the redelivered flag nor a quorum queue's ``x-delivery-count`` tells a death from a message that
        # was handed back in good order.
        attempts=attempts_in(headers),
        received_at=now,
    )


def _decompressed(headers: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
    """Decompress as kombu does; what cannot be decompressed is returned as it is."""
    try:
        plain = decompress(body, headers["compression"])
    except Exception:
        return headers, body
    return {name: value for name, value in headers.items() if name != "compression"}, plain


def _nothing() -> None:
    pass
