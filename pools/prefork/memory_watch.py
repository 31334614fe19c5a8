"""Watches the memory of children while they run tasks: one task may use up all memory before it ends."""

from __future__ import annotations

from collections.abc import Callable, Set

from pools.loop import EventLoop, Timer
from pools.prefork.recycle_limits import resident_bytes
from pools.prefork.slot import Child

LOOK_SECONDS = 0.2


class MemoryWatch:
    """Calls ``on_ceiling(child, bytes)`` for a child with more than ``ceiling_bytes`` resident while it runs a task."""

    def __init__(self, children: Set[Child], ceiling_bytes: int, on_ceiling: Callable[[Child, int], object]) -> None:
        self._children = children
        self._ceiling_bytes = ceiling_bytes
        self._on_ceiling = on_ceiling
        self._timer: Timer | None = None
        self._loop: EventLoop | None = None

    def move_to(self, loop: EventLoop) -> None:
        """Use the timers of this loop from now on."""
        self._loop = loop
        self._timer = None
        self.watch_tasks()

    def watch_tasks(self) -> None:
        """A task has begun: look every ``LOOK_SECONDS`` until none runs any more."""
        if self._loop is not None and (self._timer is None or not self._timer.pending):
            self._timer = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        busy = [child for child in self._children if child.job is not None]
        for child in busy:
            found = resident_bytes(child.pid)
            if found > self._ceiling_bytes:
                self._on_ceiling(child, found)
        if busy:
            self.watch_tasks()
