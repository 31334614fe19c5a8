"""The consumers at RabbitMQ, and how much each may push: what the worker can start, and what to take ahead."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amqp import spec

from fleet.core.spec import QueueSpec

AHEAD_SECONDS = 0.05
MOST_AHEAD = 100
_WIDEST = 65535


@dataclass(slots=True)
class Subscription:
    """One consumer at the broker. ``unsettled``: what it pushed and we have neither acknowledged nor given back."""

    queue: str
    tag: str
    unsettled: int = 0


class Pace:
    """How many messages to take ahead, by how quickly tasks end. ``taken``: messages since the last look."""

    def __init__(self) -> None:
        self.taken = 0
        self._looked_at = 0.0
        self._calm_until = 0.0

    def calm(self, *, until: float) -> None:
        """Take nothing ahead before that (monotonic)."""
        self._calm_until = max(self._calm_until, until)

    def is_calm(self, now: float) -> bool:
        """Whether nothing is to be taken ahead now (monotonic)."""
        return now < self._calm_until

    def look(self, now: float, *, after_seconds: float) -> int | None:
        """How many to take ahead; None when the last look is less than ``after_seconds`` ago."""
        seconds = now - self._looked_at
        if seconds < after_seconds:
            return None
        ahead = 0 if self.is_calm(now) else min(MOST_AHEAD, int(self.taken / seconds * AHEAD_SECONDS))
        self._looked_at, self.taken = now, 0
        return ahead


class Window:
    """One subscription per queue, each with the same window: ``room`` and ``ahead``.

    The next connection does not use numbers of queues and subscriptions again: a consumer's tag is its number and
    the number of its queue, so that what a cancelled one still pushes is known by its tag.
    """

    def __init__(self, *, most: int, real_name: Callable[[str], str] = str) -> None:
        """most: how far the room may grow at first.  real_name: what the broker calls a queue."""
        self.room = 0
        self.ahead = 0
        self._most = most
        self._real_name = real_name
        self._channel: Any = None
        self._number = 0
        self._names: list[str] = []
        self._subscribed: dict[str, Subscription] = {}
        self._sources: dict[str, Subscription] = {}

    def open(self, channel: Any) -> None:
        self._channel = channel

    def close(self) -> None:
        """The connection is lost, with its subscriptions."""
        self._channel = None
        self.room = self.ahead = 0
        self._subscribed.clear()
        self._sources.clear()

    @property
    def is_subscribed(self) -> bool:
        """Whether the broker may push."""
        return bool(self._subscribed)

    def source(self, tag: str) -> Subscription:
        """The subscription that pushed this, also when it was cancelled since."""
        found = self._sources.get(tag)
        if found is None:
            found = self._sources[tag] = Subscription(self._names[int(tag.partition(".")[2])], tag)
        return found

    def widen(self, queues: Sequence[QueueSpec], missing: int) -> None:
        """Enlarge the window so that the broker can push ``missing`` messages, from any queue."""
        window = self.room + self.ahead
        free = [window - each.unsettled for each in self._subscribed.values()]
        if len(free) < len(queues):
            self.subscribe(queues, missing)
        elif free and min(free) < missing:
            self._most = max(self._most, missing)
            self.subscribe(queues, max(missing, min(2 * self.room, self._most)))

    def subscribe(self, queues: Sequence[QueueSpec], room: int) -> None:
        """Subscribe again with this window, which RabbitMQ fixes when a consumer starts. Does not wait."""
        self.cancel()
        self.room = room
        self._channel.send_method(spec.Basic.Qos, "lBb", (0, min(room + self.ahead, _WIDEST), False))
        for wanted in queues:
            if wanted.name not in self._names:
                self._names.append(wanted.name)
            self._number += 1
            made = Subscription(wanted.name, f"{self._number}.{self._names.index(wanted.name)}")
            self._subscribed[wanted.name] = self._sources[made.tag] = made
            self._channel.basic_consume(self._real_name(wanted.name), consumer_tag=made.tag, nowait=True)

    def take_ahead(self, queues: Sequence[QueueSpec], ahead: int) -> None:
        """Let the broker push ``ahead`` messages more than can start."""
        self.ahead = ahead
        if self._subscribed:
            self.subscribe(queues, self.room)

    def cancel(self, *, wait: bool = False) -> None:
        """Cancel the consumers. Messages on their way still arrive; with ``wait`` they have arrived on return."""
        for each in self._subscribed.values():
            self._channel.basic_cancel(each.tag, nowait=not wait)
            self._channel.callbacks.pop(each.tag, None)  # py-amqp forgets it only when it waits for the answer
        self._subscribed.clear()
        self._sources = {tag: each for tag, each in self._sources.items() if each.unsettled}
