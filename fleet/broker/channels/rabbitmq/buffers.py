"""Messages that RabbitMQ has pushed and no fetch has taken yet, and a descriptor that wakes the loop for them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence

from fleet.broker.channels.rabbitmq.frames import Pushed
from fleet.core.spec import QueueSpec


class Buffers:
    """One for each queue that is consumed. ``len``: how many messages wait in all of them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_queue: dict[str, deque[Pushed]] = {name: deque() for name in names}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_queues(self, names: Iterable[str]) -> None:
        """Keep messages of these queues too."""
        for name in names:
            self._by_queue.setdefault(name, deque())

    def others(self, names: Iterable[str]) -> list[str]:
        """The queues that have a buffer and are not among these, sorted."""
        return sorted(self._by_queue.keys() - set(names))

    def drop_queue(self, name: str) -> None:
        """Keep no more messages of this queue."""
        del self._by_queue[name]

    def put(self, queue: str, pushed: Pushed, *, first: bool = False) -> bool:
        """Keep it; False where messages of that queue are not kept. first: it is the next of its queue."""
        buffer = self._by_queue.get(queue)
        if buffer is None:
            return False
        if first:
            buffer.appendleft(pushed)
        else:
            buffer.append(pushed)
        self._count += 1
        return True

    def take(self, queues: Sequence[QueueSpec], count: int) -> list[Pushed]:
        """Up to ``count``, those of the first queue first."""
        found: list[Pushed] = []
        if not self._count:
            return found
        for wanted in queues:
            buffer = self._by_queue[wanted.name]
            while buffer and len(found) < count:
                found.append(buffer.popleft())
        self._count -= len(found)
        return found

    def empty(self, queue: str) -> list[Pushed]:
        """Remove and return the messages of one queue."""
        buffer = self._by_queue[queue]
        found = list(buffer)
        buffer.clear()
        self._count -= len(found)
        return found

    def empty_all(self) -> list[Pushed]:
        """Remove and return all messages."""
        return [pushed for name in self._by_queue for pushed in self.empty(name)]


class Bell:
    """A descriptor that is readable while it rings."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rings = False

    def ring(self) -> None:
        """Make the descriptor readable."""
        if not self._rings:
            self._rings = True
            os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        """Make it not readable again."""
        if self._rings:
            self._rings = False
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)
