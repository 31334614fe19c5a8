"""A thread that notices deadlines, because the thread of the task is busy with the task."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from pools.handle import Handle
from pools.options import LONGEST_WAIT_SECONDS

log = logging.getLogger(__name__)

_FOREVER = float("inf")


class Watchdog:
    """Calls ``on_deadline(handle)`` in its own thread when a watched handle passes its deadline.

    Watching costs two attribute writes as long as deadlines grow, as they do with a constant limit: the thread sleeps
    until the earliest deadline it knew, and is woken only for an earlier one. It is started by the first watch.
    """

    def __init__(self, on_deadline: Callable[[Handle], object], *, name: str) -> None:
        self._on_deadline = on_deadline
        self._name = name
        self._watched: dict[Handle, float] = {}
        self._wake_event = threading.Event()
        self._sleeps_until = _FOREVER
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, handle: Handle, deadline: float) -> None:
        """Call ``on_deadline`` for this handle at ``deadline`` (monotonic seconds), unless ``forget`` comes first.

        ``on_deadline`` may watch the handle again.
        """
        self._watched[handle] = deadline
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread  # once it runs: another thread may ask `is_lost` at any moment
        elif deadline < self._sleeps_until:
            self._wake_event.set()

    def forget(self, handle: Handle) -> None:
        """Do not call for this handle. Does nothing for one that is not watched."""
        self._watched.pop(handle, None)

    @property
    def is_lost(self) -> bool:
        """Whether its thread has ended although nobody closed it."""
        return self._thread is not None and not self._closed and not self._thread.is_alive()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._wake_event.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._closed:
            # Any deadline that is set during the search is earlier than this, and wakes the thread.
            self._sleeps_until = _FOREVER
            earliest = self._call_due(time.monotonic())
            self._sleeps_until = earliest
            self._wake_event.wait(min(LONGEST_WAIT_SECONDS, max(0.0, earliest - time.monotonic())))
            self._wake_event.clear()

    def _call_due(self, now: float) -> float:
        earliest = _FOREVER
        for handle, deadline in list(self._watched.items()):
            if deadline > now:
                earliest = min(earliest, deadline)
            elif self._watched.pop(handle, None) is not None:
                self._call(handle)
        return earliest

    def _call(self, handle: Handle) -> None:
        """What fails over one task keeps nobody from watching the others."""
        try:
            self._on_deadline(handle)
        except Exception:
            log.exception("the limit of %r cannot be kept", handle)
