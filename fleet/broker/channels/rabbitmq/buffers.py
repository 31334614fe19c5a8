"""What RabbitMQ has pushed and no fetch has brought yet, and a bell for what the socket will not tell."""

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
        """Messages of these are kept too."""
        for name in names:
            self._by_queue.setdefault(name, deque())

    def others(self, names: Iterable[str]) -> list[str]:
        """The queues there are besides these, sorted."""
        return sorted(self._by_queue.keys() - set(names))

    def drop_queue(self, name: str) -> None:
        """Messages of this one are kept no more."""
        del self._by_queue[name]

    def put(self, queue: str, pushed: Pushed) -> bool:
        """Keep it; False where messages of that queue are not kept."""
        buffer = self._by_queue.get(queue)
        if buffer is None:
            return False
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
        """All of one queue."""
        buffer = self._by_queue[queue]
        found = list(buffer)
        buffer.clear()
        self._count -= len(found)
        return found

    def empty_all(self) -> list[Pushed]:
        """All there are."""
        return [pushed for name in self._by_queue for pushed in self.empty(name)]


class Bell:
    """A descriptor that is readable while it rings."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._rings = False

    def ring(self) -> None:
        """Wake whoever waits for it."""
        if not self._rings:
            self._rings = True
            os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        """Heard."""
        if self._rings:
            self._rings = False
            os.eventfd_read(self.fd)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)
