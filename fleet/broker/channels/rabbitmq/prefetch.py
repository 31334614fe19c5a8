"""What RabbitMQ pushes before the worker asks for it: how much, where it waits, and when it goes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any

from fleet.broker.channels.rabbitmq.buffers import Bell, Buffers
from fleet.broker.channels.rabbitmq.frames import Pushed
from fleet.broker.channels.rabbitmq.unsettled import Unsettled
from fleet.broker.channels.rabbitmq.window import Pace, Window
from fleet.core.spec import QueueSpec

HOARD_SECONDS = 1.0
PACE_SECONDS = 0.9
QUICK_TASKS, QUICK_SECONDS = 20, 0.1
CALM_SECONDS = 30.0


class Prefetch:
    """The pushed messages of one channel, over its connections."""

    def __init__(self, names: Iterable[str], *, most: int, real_name: Callable[[str], str] = str) -> None:
        """names: of the queues.  most: how far the window may grow at first.  real_name: what the broker calls one."""
        self.unsettled = Unsettled()
        self._window = Window(most=most, real_name=real_name)
        self._pace = Pace()
        self._buffers = Buffers(names)
        self._channel: Any = None
        self._bell: Bell | None = None
        self._reading = False
        self._full_since: float | None = None

    def __len__(self) -> int:
        return len(self._buffers)

    def open(self, channel: Any) -> None:
        self._channel = channel
        self._window.open(channel)
        self._bell = Bell()

    def close(self) -> None:
        """The connection is lost: the broker delivers again what it had pushed."""
        self._channel = None
        self.unsettled.clear()
        self._window.close()
        self._buffers.empty_all()
        self._full_since = None
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()

    @property
    def bell_fd(self) -> int | None:
        """Readable when a message was pushed that the socket does not show; None without a connection."""
        return self._bell.fd if self._bell is not None else None

    @property
    def is_coming(self) -> bool:
        """Whether the broker may push."""
        return self._window.is_subscribed

    def change_queues(self, names: Sequence[str], declare: Callable[[], object]) -> None:
        """Only messages of these are kept from now on; those of others go back. ``declare`` declares the queues."""
        self._buffers.add_queues(names)
        gone = self._buffers.others(names)
        if self._channel is not None:
            self._window.cancel(wait=True)
            self._return([pushed for name in gone for pushed in self._buffers.empty(name)])
            declare()
        for name in gone:
            self._buffers.drop_queue(name)

    def on_pushed(self, pushed: Pushed) -> None:
        """Keep a message that was pushed."""
        source = self._window.source(pushed.consumer)
        self.unsettled.add(pushed.tag, source)
        if not self._buffers.put(source.queue, pushed):
            self._return([pushed])
        elif not self._reading and self._bell is not None:
            self._bell.ring()  # read while py-amqp waited for something else: the socket does not show it

    def fetch(
        self, queues: Sequence[QueueSpec], count: int, read: Callable[[], object], *, ahead: int = 0
    ) -> list[Pushed]:
        """Up to ``count``, urgent queues first, and ``ahead`` more that have come already. ``read`` reads what the
        socket has."""
        now = time.monotonic()
        most = count if self._pace.is_calm(now) else count + ahead
        found = self._take(queues, most)
        if len(found) < count:
            self._reading = True
            try:
                read()
            finally:
                self._reading = False
            found += self._take(queues, most - len(found))
            if len(found) < count:
                self._window.widen(queues, count - len(found))
        self._full_since = now if len(found) >= count else None
        self._pace.taken += len(found)
        if self._pace.taken >= QUICK_TASKS and not self._buffers:
            self._quicken(queues, now, after_seconds=QUICK_SECONDS)
        return found

    def put_back(self, taken: Sequence[Pushed]) -> None:
        """Nobody has begun to work on these: they are the next to be fetched, or go back with what waits here."""
        for pushed in reversed(taken):
            if not self._buffers.put(self.unsettled.queue_of(pushed.tag), pushed, first=True):
                self._return([pushed])

    def be_full(self) -> None:
        """Note that the worker has no room."""
        self._full_since = self._full_since or time.monotonic()

    def tend(self, queues: Sequence[QueueSpec]) -> None:
        """Adapt how much is taken ahead; give back what waits here while the worker has no room."""
        now = time.monotonic()
        self._find_pace(queues, now)
        if self._full_since is not None and now - self._full_since >= HOARD_SECONDS and self._buffers:
            self.park([])
            self._pace.calm(until=now + CALM_SECONDS)

    def take_nothing_ahead(self) -> None:
        """Never take ahead again: the broker counts what is given back."""
        self._pace.calm(until=inf)

    def park(self, tags: Sequence[int]) -> None:
        """Cancel the consumers, and give back these and what came too early."""
        self._window.cancel(wait=True)
        self._window.ahead = 0
        self._full_since = None
        early = [pushed.tag for pushed in self._buffers.empty_all()]
        self.unsettled.reject(self._channel, [*tags, *early])

    def _take(self, queues: Sequence[QueueSpec], count: int) -> list[Pushed]:
        if self._bell is not None:
            self._bell.silence()
        return self._buffers.take(queues, count)

    def _find_pace(self, queues: Sequence[QueueSpec], now: float) -> None:
        """Set how much to take ahead, by how quickly tasks ended since the last look."""
        ahead = self._quicken(queues, now, after_seconds=PACE_SECONDS)
        if ahead is None or 2 * ahead >= self._window.ahead:
            return
        if self._buffers and self._full_since is not None:  # else it has just come, and the next fetch takes it
            self.park([])
        self._window.take_ahead(queues, ahead)

    def _quicken(self, queues: Sequence[QueueSpec], now: float, *, after_seconds: float) -> int | None:
        """Take more ahead where tasks have become quicker; returns how much is right, None before ``after_seconds``."""
        ahead = self._pace.look(now, after_seconds=after_seconds)
        if ahead is not None and ahead > 2 * self._window.ahead and self._window.is_subscribed:
            self._window.take_ahead(queues, ahead)
        return ahead

    def _return(self, pushed: Sequence[Pushed]) -> None:
        self.unsettled.reject(self._channel, [each.tag for each in pushed])
