"""A thread that runs an event loop for a pool that was given none, and calls into the thread of a loop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from pools.loop import EventLoop

T = TypeVar("T")


class LoopThread:
    """Owns its loop. The thread is a daemon: a forgotten pool does not keep the program alive."""

    def __init__(self, *, name: str) -> None:
        self.loop = EventLoop()
        self._stopping = False
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{name}-loop", daemon=True)

    def start(self) -> None:
        """Start the thread; returns when ``loop.in_thread`` is true in it and in no other."""
        self._thread.start()
        self._running.wait()

    def stop(self) -> None:
        """End the thread and close the loop. Called in the thread itself: soon, and without waiting."""
        self._stopping = True
        if threading.current_thread() is self._thread:
            return  # the thread closes the loop when it gets back to it
        self.loop.wake()
        self._thread.join()

    def _run(self) -> None:
        self.loop.run_once(0)
        self._running.set()
        while not self._stopping:
            self.loop.run_once()
        self.loop.run_once(0)  # calls that came in meanwhile
        self.loop.close()


def post_to_loop(loop: EventLoop | None, call: Callable[[], object]) -> None:
    """Call in the loop's thread: now if this is that thread, else soon. Does nothing without an open loop."""
    if loop is None or loop.closed:
        return
    if loop.in_thread:
        call()
    else:
        loop.call_soon_threadsafe(call)


def call_in_loop(loop: EventLoop, call: Callable[[], T]) -> T:
    """Call in the loop's thread and return or raise what the call does.

    From another thread this waits without limit, and needs a loop that is running. A closed loop has no thread: then
    the call is made here.
    """
    if loop.in_thread or loop.closed:
        return call()
    future: Future[T] = Future()

    def complete() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    loop.call_soon_threadsafe(complete)
    return future.result()
