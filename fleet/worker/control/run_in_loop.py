"""Runs work that needs the channel's lock, for a thread that must not wait for the lock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
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
        """Run ``work``; returns or raises what it does. Raises TimeoutError when the loop did not run it."""
        if self._loop.in_thread:
            with self._lock:
                return work()
        outcome: Future[Any] = Future()
        do = partial(_do, work, outcome)
        self._loop.call_soon_threadsafe(do)
        for _ in range(int(LONGEST_SECONDS / _LOOK_SECONDS)):
            if wait([outcome], _LOOK_SECONDS).done:
                return outcome.result()
            if self._lock.acquire(blocking=False):
                try:
                    do()
                finally:
                    self._lock.release()
        outcome.cancel()
        raise TimeoutError(f"the worker was too busy to answer within {LONGEST_SECONDS:g} s")


def _do(work: Work, outcome: Future[Any]) -> None:
    """Run it once, in the thread that gets the lock first; not at all when the outcome is not waited for any more."""
    if outcome.running() or outcome.done():
        return
    outcome.set_running_or_notify_cancel()
    try:
        outcome.set_result(work())
    except Exception as error:
        outcome.set_exception(error)
