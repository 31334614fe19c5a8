"""Looks at the memory of children while they work: a task may eat it all before it ends."""

from __future__ import annotations

from collections.abc import Callable, Set

from pools.loop import EventLoop, Timer
from pools.prefork.recycle_limits import resident_bytes
from pools.prefork.slot import Child

LOOK_SECONDS = 0.2


class MemoryWatch:
    """Calls ``on_ceiling(child, bytes)`` for a child that has more than ``ceiling_bytes`` in the middle of a task."""

    def __init__(self, children: Set[Child], ceiling_bytes: int, on_ceiling: Callable[[Child, int], object]) -> None:
        self._children = children
        self._ceiling_bytes = ceiling_bytes
        self._on_ceiling = on_ceiling
        self._timer: Timer | None = None
        self._loop: EventLoop | None = None

    def wake(self, loop: EventLoop) -> None:
        """A task begins, or another loop turns: look until no task runs any more."""
        if self._timer is None or not self._timer.pending or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        busy = [child for child in self._children if child.job is not None]
        for child in busy:
            found = resident_bytes(child.pid)
            if found > self._ceiling_bytes:
                self._on_ceiling(child, found)
        if busy and self._loop is not None:
            self.wake(self._loop)
