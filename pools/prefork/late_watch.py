"""Watches children in whose pipes tasks wait: the task before them may take longer than was expected."""

from __future__ import annotations

import time
from collections.abc import Callable, Set

from pools.loop import EventLoop
from pools.prefork.slot import Child

PATIENCE = 2
"""A quick task may take so many times what a quick one takes at most before those behind it are taken back."""


class LateWatch:
    """Calls ``on_late(child)``. Looks only while something waits in a pipe."""

    def __init__(self, children: Set[Child], on_late: Callable[[Child], object]) -> None:
        self._children = children
        self._on_late = on_late
        self._loop: EventLoop | None = None
        self._seconds = 0.0
        self._watches = False

    def move_to(self, loop: EventLoop) -> None:
        """Use the timers of this loop from now on."""
        self._loop = loop
        if self._watches:
            self._watches = False
            self.watch(self._seconds / PATIENCE)

    def watch(self, quick_seconds: float) -> None:
        """Something lies behind a task, which was expected to take no longer than this."""
        if not self._watches:
            assert self._loop is not None
            self._watches, loop = True, self._loop
            self._seconds = quick_seconds * PATIENCE
            loop.call_later(self._seconds, lambda: self._look(loop))

    def _look(self, loop: EventLoop) -> None:
        if loop is not self._loop:
            return
        self._watches = False
        late_since = time.monotonic() - self._seconds
        for child in [child for child in self._children if child.behind and child.job is not None]:
            assert child.job is not None
            if child.job.handle.started_at < late_since:
                self._on_late(child)
            else:
                self.watch(self._seconds / PATIENCE)
