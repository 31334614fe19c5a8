"""A thread that notices deadlines while the thread of a task cannot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pools.handle import Handle

_FOREVER = float("inf")


class Watchdog:
    """Calls ``ring(handle)`` in its own thread when a watched handle passes its deadline.

    Watching costs two attribute writes as long as deadlines grow, as they do with a constant limit: the thread sleeps
    until the earliest deadline it knew, and is woken only for an earlier one. It is started by the first watch.
    """

    def __init__(self, ring: Callable[[Handle], object], *, name: str) -> None:
        self._ring = ring
        self._name = name
        self._watched: dict[Handle, float] = {}
        self._bell = threading.Event()
        self._sleeps_until = _FOREVER
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, handle: Handle, deadline: float) -> None:
        """Ring for this handle unless ``forget`` comes first. ``ring`` may watch it again, for a later deadline."""
        self._watched[handle] = deadline
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        elif deadline < self._sleeps_until:
            self._bell.set()

    def forget(self, handle: Handle) -> None:
        """Its task has ended."""
        self._watched.pop(handle, None)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._bell.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            # Any deadline set while this looks around is earlier than for ever, and rings.
            self._sleeps_until = _FOREVER
            earliest = self._ring_due(time.monotonic())
            self._sleeps_until = earliest
            self._bell.wait(None if earliest == _FOREVER else max(0.0, earliest - time.monotonic()))
            self._bell.clear()

    def _ring_due(self, now: float) -> float:
        earliest = _FOREVER
        for handle, deadline in list(self._watched.items()):
            if deadline > now:
                earliest = min(earliest, deadline)
            elif self._watched.pop(handle, None) is not None:
                self._ring(handle)
        return earliest
