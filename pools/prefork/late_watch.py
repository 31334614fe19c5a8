"""Watches children in whose pipes tasks wait: the task before them may take longer than was expected."""

from __future__ import annotations

import time
from collections.abc import Callable, Set

from pools.loop import EventLoop
from pools.prefork.slot import Child

PATIENCE = 2
"""A task may take so many times what was expected of it before those behind it are taken back."""


class LateWatch:
    """Calls ``on_late(child)``. Looks only while something waits in a pipe."""

    def __init__(self, children: Set[Child], on_late: Callable[[Child], object]) -> None:
        self._children = children
        self._on_late = on_late
        self._loop: EventLoop | None = None
        self._watches = False

    def move_to(self, loop: EventLoop) -> None:
        """Use the timers of this loop from now on."""
        self._loop = loop
        if self._watches:
            self._watches = False
            self.watch(0.0)

    def watch(self, seconds: float) -> None:
        """Something lies behind a task that is expected to take so long."""
        if not self._watches:
            assert self._loop is not None
            self._watches = True
            loop = self._loop
            loop.call_later(seconds * PATIENCE, lambda: self._look(loop))

    def _look(self, loop: EventLoop) -> None:
        if loop is not self._loop:
            return
        self._watches = False
        now = time.monotonic()
        for child in [child for child in self._children if child.behind]:
            handle = child.job.handle if child.job is not None else None
            if handle is None:  # it is dead, and its exit will be told
                continue
            seconds = handle.expected_seconds
            if now - handle.started_at > seconds * PATIENCE:
                self._on_late(child)
            else:
                self.watch(seconds)
