"""Work that needs the channel's lock, asked for by a thread that must not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pools.loop import EventLoop

LONGEST_SECONDS = 10.0
_LOOK_SECONDS = 0.005

Work = Callable[[], Any]


class LoopCalls:
    """Does the work here when this is the loop's thread or the loop is inside a task; else lets the loop do it."""

    def __init__(self, lock: threading.RLock, loop: EventLoop) -> None:
        self._lock = lock
        self._loop = loop

    def do(self, work: Work) -> Any:
        """What ``work`` returns or raises. TimeoutError: nobody came to do it."""
        if self._loop.in_thread:
            with self._lock:
                return work()
        errand = _Errand(work)
        self._loop.call_soon_threadsafe(errand.do)
        for _ in range(int(LONGEST_SECONDS / _LOOK_SECONDS)):
            if errand.done.wait(_LOOK_SECONDS):
                return errand.result()
            if self._lock.acquire(blocking=False):
                try:
                    errand.do()
                finally:
                    self._lock.release()
        errand.work = None
        raise TimeoutError(f"the worker was too busy to answer within {LONGEST_SECONDS:g} s")


class _Errand:
    """One piece of work, done once, by whoever holds the lock first."""

    def __init__(self, work: Work) -> None:
        self.work: Work | None = work
        self.done = threading.Event()
        self._value: Any = None
        self._error: Exception | None = None

    def do(self) -> None:
        work, self.work = self.work, None
        if work is None:
            return
        try:
            self._value = work()
        except Exception as error:
            self._error = error
        self.done.set()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value
