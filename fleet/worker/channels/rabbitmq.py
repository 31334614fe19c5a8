"""The RabbitMQ channel: kombu makes the connection, py-amqp speaks, and deliveries are read straight from the socket.

RabbitMQ pushes, up to a window per queue (never a channel-wide one, so quorum queues work). The window is what the
worker can start now. It doubles when it proves too small and begins anew when the worker has been full for a second:
what was pushed beyond what it could start then goes back and the consumers are cancelled until there is room, so that
no replica hoards what another could run. While tasks are quick the window is wider by what runs in ``AHEAD_SECONDS``:
a worker that had to wait for the broker after each task would be idle half of the time.

Acknowledgements leave in batches: with the next fetch, before the worker waits, and within a second in any case. A
replica that is killed in between runs those tasks again. Messages with a date wait in the broker, in the queues of
``outlet``.

After a lost connection the broker delivers everything unacknowledged again; :meth:`RabbitChannel.holds` then says no.
A peer that went away without a word is noticed after two missed heartbeats, by default 20 seconds. RabbitMQ also closes
a channel whose message stays unacknowledged for its ``consumer_timeout`` (30 minutes by default): the task goes on, and
its message is delivered again. Queues of longer late-acknowledged tasks need a longer one (``x-consumer-timeout``), or
early acknowledgement.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

from amqp import spec
from kombu.compression import decompress

from fleet.broker.envelope import ATTEMPTS_HEADER
from fleet.core.spec import QueueSpec
from fleet.worker.channels.connected import Connected, by_priority, speaks
from fleet.worker.channels.frames import Inlet, Pushed, send_acks
from fleet.worker.channels.outlet import Outlet
from fleet.worker.delivery import ChannelLost, Delivery

HEARTBEAT_SECONDS = 10.0
ANSWER_SECONDS = 20.0
HOARD_SECONDS = 1.0
PACE_SECONDS = 0.9
QUICK_TASKS, QUICK_SECONDS = 20, 0.1
AHEAD_SECONDS = 0.05
MOST_AHEAD = 100
CALM_SECONDS = 30.0
HELD_SECONDS = 4.0
"""Messages due sooner than this are held by the worker."""
_WIDEST = 65535


@dataclass(slots=True)
class _Subscription:
    """One consumer at the broker. ``unsettled``: what it pushed and we have neither acknowledged nor given back."""

    queue: str
    tag: str
    unsettled: int = 0


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
        self._most = max(1, prefetch_hint)
        self._room = 0
        self._ahead = 0
        self._calm_until = 0.0
        self._taken = 0
        self._paced_at = 0.0
        self._channel: Any = None
        self._amqp: Any = None
        self._inlet: Inlet | None = None
        self._outlet: Outlet | None = None
        self._life = 0
        self._number = 0
        self._names: list[str] = []
        self._held: dict[str, int] = {}
        self._unsettled: dict[int, _Subscription] = {}
        self._done: set[int] = set()
        self._subscribed: dict[str, _Subscription] = {}
        self._sources: dict[str, _Subscription] = {}
        self._buffers: dict[str, deque[Pushed]] = {spec.name: deque() for spec in queues}
        self._buffered = 0
        self._waits = False
        self._full_since: float | None = None
        self._bell: int | None = None
        self._rung = False
        self._reading = False

    @speaks
    def open(self) -> None:
        """Connect and declare the queues. What an earlier life held, the broker has put back by itself."""
        self._hang_up()
        self._life += 1
        patience = {"read_timeout": ANSWER_SECONDS, "write_timeout": ANSWER_SECONDS}
        options = {**patience, **self._options, "confirm_publish": False}  # the outlet sees to confirms itself
        connection = self._connect(options, heartbeat_seconds=HEARTBEAT_SECONDS)
        self._amqp = connection.connection
        self._channel = connection.channel()
        self._inlet = Inlet(self._amqp, self._channel.channel_id, self._on_pushed)
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rung = False
        self._declare_all()

    @speaks
    def consume(self, queues: Sequence[QueueSpec]) -> None:
        """From now on fetch from these queues and no others. What others pushed goes back."""
        self._queues = by_priority(queues)
        for wanted in queues:
            self._buffers.setdefault(wanted.name, deque())
        gone = sorted(self._buffers.keys() - {wanted.name for wanted in queues})
        if self._channel is not None:
            self._cancel(wait=True)
            self._return([pushed for name in gone for pushed in self._emptied(name)])
            self._declare_all()
        for name in gone:
            del self._buffers[name]

    @speaks
    def fetch(self, count: int) -> list[Delivery]:
        """Up to ``count`` messages that are there now. 0: the worker has no room."""
        self._require_open()
        self._waits = count > 0
        if not self._waits:
            self._full_since = self._full_since or time.monotonic()
            return []
        self._settle()
        found = self._unbuffered(count)
        if len(found) < count:
            self._reading = True
            try:
                self._own(self._inlet).read()
            finally:
                self._reading = False
            found += self._unbuffered(count - len(found))
            if len(found) < count:
                self._widen(count - len(found))
        now = time.monotonic()
        self._full_since = now if len(found) >= count else None
        self._taken += len(found)
        if self._taken >= QUICK_TASKS and not self._buffered:
            self._quicken(now, after_seconds=QUICK_SECONDS)
        if len(self._queues) > 1:
            self._rotate()
        return [self._delivered(pushed, now) for pushed in found]

    @property
    def pushed(self) -> int:
        """What waits in the buffers."""
        return self._buffered

    def wait_fds(self) -> Sequence[int]:
        """Descriptors that become readable when a fetch may bring something."""
        return self.fds() if self._waits and self._subscribed else ()

    def fds(self) -> Sequence[int]:
        """The socket, for a forked child to close, and the bell."""
        if self._amqp is None or self._amqp.transport is None or self._bell is None:
            return ()
        return (self._amqp.transport.sock.fileno(), self._bell)

    def holds(self, delivery: Delivery) -> bool:
        """Whether this message is still ours to run and acknowledge."""
        return delivery.tag in self._held

    @speaks
    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these. Those of an earlier connection are delivered again whatever we say."""
        for delivery in deliveries:
            tag = self._held.pop(delivery.tag, None)
            if tag is not None:
                self._done.add(tag)

    @speaks
    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Put these back where they were, and stop the pushing, so that they do not come back at once."""
        self._park([tag for delivery in deliveries if (tag := self._held.pop(delivery.tag, None)) is not None])

    @speaks
    def delay(self, delivery: Delivery, *, due: float) -> bool:
        """Let the broker keep a message; one that is due very soon is the worker's to hold.

        The copy is sent at once and the message acknowledged when the broker has the copy: cut in between, it is there
        twice rather than not at all.
        """
        seconds = due - time.time()
        if seconds < HELD_SECONDS:
            return False
        if delivery.tag not in self._held:
            return True
        outlet = self._open_outlet()
        queue = outlet.delay_queue(delivery.queue, seconds)
        if queue is None:
            return False
        tag = self._held.pop(delivery.tag)
        outlet.send(
            queue,
            delivery.body,
            headers=delivery.headers,
            properties=delivery.properties,
            content_type=delivery.content_type,
            content_encoding=delivery.content_encoding,
            then=partial(self._on_safe, tag),
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
            queue,
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
        """Send what is buffered, now."""
        self._require_open()
        self._settle()

    @speaks
    def tend(self) -> None:
        """Heartbeat in both directions; give back what waits here while the worker has no room; find the pace."""
        self._require_open()
        self._connection.heartbeat_check()
        self._own(self._inlet).read()
        self._settle()
        if self._outlet is not None:
            self._outlet.check()
        now = time.monotonic()
        self._find_pace(now)
        if self._full_since is not None and now - self._full_since >= HOARD_SECONDS and self._buffered:
            self._park([])
            self._calm_until = max(self._calm_until, now + CALM_SECONDS)

    def close(self) -> None:
        """Give back what is held and not acknowledged, disconnect. Never raises."""
        with self.lock:
            lost = False
            if self._channel is not None:
                try:
                    self._say_farewell()
                except Exception:  # whatever is left, the broker puts back when the connection is gone
                    lost = True
            self._hang_up(lost=lost)

    # ---- taking

    def _on_pushed(self, pushed: Pushed) -> None:
        source = self._sources.get(pushed.consumer) or self._late_source(pushed.consumer)
        source.unsettled += 1
        self._unsettled[pushed.tag] = source
        buffer = self._buffers.get(source.queue)
        if buffer is None:
            self._return([pushed])
            return
        buffer.append(pushed)
        self._buffered += 1
        if not self._reading and not self._rung and self._bell is not None:
            self._rung = True  # read while py-amqp waited for something else: the socket will not tell
            os.eventfd_write(self._bell, 1)

    def _unbuffered(self, count: int) -> list[Pushed]:
        if self._rung and self._bell is not None:
            self._rung = False
            os.eventfd_read(self._bell)
        found: list[Pushed] = []
        if not self._buffered:
            return found
        for wanted in self._queues:
            buffer = self._buffers[wanted.name]
            while buffer and len(found) < count:
                found.append(buffer.popleft())
        self._buffered -= len(found)
        return found

    def _widen(self, missing: int) -> None:
        """See to it that the broker can push what is missing, from whichever queue."""
        window = self._room + self._ahead
        free = [window - each.unsettled for each in self._subscribed.values()]
        if len(free) < len(self._queues):
            self._subscribe(missing)
        elif free and min(free) < missing:
            self._most = max(self._most, missing)
            self._subscribe(max(missing, min(2 * self._room, self._most)))

    def _subscribe(self, room: int) -> None:
        """Begin anew with another window, which RabbitMQ fixes when a consumer starts. Nothing here has to wait."""
        self._cancel()
        self._room = room
        self._channel.send_method(spec.Basic.Qos, "lBb", (0, min(room + self._ahead, _WIDEST), False))
        for wanted in self._queues:
            if wanted.name not in self._names:
                self._names.append(wanted.name)
            self._number += 1
            made = _Subscription(wanted.name, f"{self._number}.{self._names.index(wanted.name)}")
            self._subscribed[wanted.name] = self._sources[made.tag] = made
            self._channel.basic_consume(wanted.name, consumer_tag=made.tag, nowait=True)

    def _cancel(self, *, wait: bool = False) -> None:
        """Stop the pushing. What is on its way still comes; when waited for, it has come."""
        for each in self._subscribed.values():
            self._channel.basic_cancel(each.tag, nowait=not wait)
            self._channel.callbacks.pop(each.tag, None)  # py-amqp forgets it only when it waits for the answer
        self._subscribed.clear()
        self._sources = {tag: each for tag, each in self._sources.items() if each.unsettled}

    def _late_source(self, tag: str) -> _Subscription:
        """What a cancelled consumer still pushes."""
        made = self._sources[tag] = _Subscription(self._names[int(tag.partition(".")[2])], tag)
        return made

    def _find_pace(self, now: float) -> None:
        """How much to take ahead: by how quickly tasks went since the last look."""
        ahead = self._quicken(now, after_seconds=PACE_SECONDS)
        if ahead is None or 2 * ahead >= self._ahead:
            return
        if self._buffered:
            self._park([])
        self._ahead = ahead
        if self._subscribed:
            self._subscribe(self._room)

    def _quicken(self, now: float, *, after_seconds: float) -> int | None:
        """Take more ahead where tasks have become quicker; gives how much is right, None before that time."""
        seconds = now - self._paced_at
        if seconds < after_seconds:
            return None
        ahead = 0 if now < self._calm_until else min(MOST_AHEAD, int(self._taken / seconds * AHEAD_SECONDS))
        self._paced_at, self._taken = now, 0
        if ahead > 2 * self._ahead and self._subscribed:
            self._ahead = ahead
            self._subscribe(self._room)
        return ahead

    def _delivered(self, pushed: Pushed, now: float) -> Delivery:
        tag = f"{self._life}:{pushed.tag}"
        self._held[tag] = pushed.tag
        properties = pushed.properties()
        headers = properties.pop("application_headers", None) or {}
        body = pushed.body
        if "x-delivery-count" in headers:
            self._calm_until = inf  # a quorum queue counts what is given back as well: take nothing ahead
        if "compression" in headers:
            headers, body = _decompressed(headers, body)
        properties["delivery_info"] = {
            "exchange": pushed.exchange,
            "routing_key": pushed.routing_key,
            "redelivered": pushed.redelivered,
        }
        return Delivery(
            tag=tag,
            queue=self._unsettled[pushed.tag].queue,
            body=body,
            headers=headers,
            properties=properties,
            content_type=properties.get("content_type") or "application/data",
            content_encoding=properties.get("content_encoding") or "utf-8",
            redelivered=pushed.redelivered,
            attempts=_attempts(headers),
            received_at=now,
        )

    # ---- settling

    def _on_safe(self, tag: int) -> None:
        """The broker has the copy of a message with a date."""
        self._done.add(tag)

    def _settle(self) -> None:
        """Send the acknowledgements: one for all of the oldest that are done, one for each other."""
        done = self._done
        if not done:
            return
        last = 0
        for tag in self._unsettled:
            if tag not in done:
                break
            last = tag
        single = sorted(tag for tag in done if tag > last)
        for tag in done:
            self._unsettled.pop(tag).unsettled -= 1
        self._done = set()
        send_acks(self._amqp, self._channel.channel_id, up_to=last, single=single)

    def _park(self, tags: Sequence[int]) -> None:
        """Stop the pushing, and return what is given back and what came too early."""
        self._require_open()
        self._cancel(wait=True)
        self._ahead = 0
        self._full_since = None
        early = [pushed.tag for name in self._buffers for pushed in self._emptied(name)]
        self._reject([*tags, *early])

    def _emptied(self, queue: str) -> list[Pushed]:
        buffer = self._buffers[queue]
        found = list(buffer)
        buffer.clear()
        self._buffered -= len(found)
        return found

    def _return(self, pushed: Sequence[Pushed]) -> None:
        self._reject([each.tag for each in pushed])

    def _reject(self, tags: Sequence[int]) -> None:
        for tag in sorted(tags, reverse=True):
            self._unsettled.pop(tag).unsettled -= 1
            self._channel.basic_reject(tag, requeue=True)

    def _say_farewell(self) -> None:
        if self._outlet is not None:
            self._outlet.wait()
        self._settle()
        self._park(list(self._held.values()))

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
        super()._hang_up(lost=lost)  # first: while it says goodbye, the broker may still push
        self._channel = self._amqp = self._inlet = self._outlet = None
        books: tuple[Any, ...] = (self._held, self._unsettled, self._done, self._subscribed, self._sources)
        for book in books:
            book.clear()
        for buffer in self._buffers.values():
            buffer.clear()
        self._buffered = self._room = self._ahead = 0
        self._waits = False
        self._full_since = None
        bell, self._bell = self._bell, None
        if bell is not None:
            os.close(bell)


def _decompressed(headers: Mapping[str, Any], body: bytes) -> tuple[Mapping[str, Any], bytes]:
    """As kombu does it; what cannot be is left as it is."""
    try:
        plain = decompress(body, headers["compression"])
    except Exception:
        return headers, body
    return {name: value for name, value in headers.items() if name != "compression"}, plain


def _attempts(headers: Mapping[str, Any]) -> int:
    """How often a process died with it, as counted by us: neither the redelivered flag nor a quorum queue's
    ``x-delivery-count`` tells a death from a message that was handed back in good order."""
    count = headers.get(ATTEMPTS_HEADER)
    return count if isinstance(count, int) and count > 0 else 0


def _nothing() -> None:
    pass
