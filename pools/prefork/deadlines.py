"""One deadline per child, and one timer for the nearest of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Set

from pools.loop import EventLoop, Timer
from pools.prefork.slot import NEVER, Child


class Deadlines:
    """Calls what was set for each child. A task's limit costs two attribute writes and no entry in a heap."""

    def __init__(self, children: Set[Child]) -> None:
        self._children = children
        self._loop: EventLoop | None = None
        self._timer: Timer | None = None

    def move_to(self, loop: EventLoop) -> None:
        """Use the timers of this loop from now on."""
        self._loop = loop
        self._timer = None
        self._start_nearest()

    def set(self, child: Child, seconds: float, on_deadline: Callable[[], object]) -> None:
        """Call ``on_deadline`` this long from now, unless another deadline of the child is set before."""
        child.due = time.monotonic() + seconds
        child.on_deadline = on_deadline
        self._start_timer(child.due)

    def clear(self, child: Child) -> None:
        """The child has no deadline."""
        child.due, child.on_deadline = NEVER, None

    def _start_timer(self, due: float) -> None:
        # A deadline that is cleared leaves the timer alone: it fires once for nothing.
        assert self._loop is not None
        if self._timer is not None:
            if self._timer.pending and self._timer.when <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._call_due)

    def _start_nearest(self) -> None:
        nearest = min((child.due for child in self._children), default=NEVER)
        if nearest < NEVER:
            self._start_timer(nearest)

    def _call_due(self) -> None:
        now = time.monotonic()
        for child in list(self._children):
            if child.due <= now and child.on_deadline is not None:
                on_deadline = child.on_deadline
                self.clear(child)
                on_deadline()
        self._start_nearest()
