"""A native thread in a green process: it sees what the hub cannot while a task does not yield.

It runs no code of the patched library: raw threads and locks, a glance every quarter of a second while there is
something to watch, and a signal for the main thread.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

GLANCE_SECONDS = 0.25

POKE = signal.SIGRTMAX - 3
"""Nobody else's: SIGALRM belongs to tasks and test runners, USR1 and USR2 to people."""

_POKED: list[Callable[[], object]] = []


class Lookout:
    """Calls ``glance()`` in a native thread while anybody is watched; ``poke()`` lets ``on_poke`` run in the main one.

    thread: the original ``_thread`` functions, by name. ``on_poke`` is called in whichever greenlet runs at that
    moment, between two bytecodes or out of an interrupted system call, and may raise into it.
    """

    def __init__(self, thread: Any, glance: Callable[[], object], on_poke: Callable[[], object]) -> None:
        self._thread = thread
        self._glance = glance
        self._on_poke = on_poke
        self._watched = 0
        self._closed = False
        self._bell = thread.allocate_lock()
        self._bell.acquire()
        self._sleeps = True
        self.main_thread: int = thread.get_ident()
        self.can_poke = _answer_pokes()
        _POKED.append(on_poke)
        thread.start_new_thread(self._run, ())

    def watch(self) -> None:
        """One more to watch."""
        self._watched += 1
        if self._sleeps:
            self._ring()

    def forget(self) -> None:
        """One less to watch."""
        self._watched -= 1

    def poke(self) -> None:
        """From the native thread: let the main thread look at what it runs."""
        if self.can_poke:
            signal.pthread_kill(self.main_thread, POKE)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        _POKED.remove(self._on_poke)
        self._ring()

    def _ring(self) -> None:
        # Python's lock as a bell: let go when it is held, and never mind when somebody was faster.
        try:
            self._bell.release()
        except RuntimeError:
            return

    def _run(self) -> None:
        while not self._closed:
            self._sleeps = self._watched <= 0
            if self._sleeps and self._watched <= 0:
                self._bell.acquire()
            else:
                self._bell.acquire(True, GLANCE_SECONDS)
            self._sleeps = False
            if not self._closed:
                self._glance()


def _answer_pokes() -> bool:
    """Whether signals can reach the tasks: handlers run in the main thread only."""
    try:
        signal.signal(POKE, _on_poke)
    except ValueError:
        return False
    return True


def _on_poke(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    for look in tuple(_POKED):
        look()
