"""A native thread in a green process: it finds the task that does not yield, which the hub cannot.

It runs no code of the patched library: only raw threads and locks. It checks every quarter of a second while something
is watched, and can send a signal to the main thread.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

CHECK_SECONDS = 0.25

WAKE_SIGNAL = signal.SIGRTMAX - 3
"""A signal that nothing else uses: SIGALRM belongs to tasks and test runners, USR1 and USR2 to people."""

_ON_SIGNAL: list[Callable[[], object]] = []


class BlockDetector:
    """Calls ``check()`` in a native thread while something is watched.

    thread: the original ``_thread`` functions, by name.  on_signal: called in the main thread after
    ``signal_main_thread()``, in the greenlet that runs at that moment, between two bytecodes or out of an interrupted
    system call; it may raise into that greenlet.
    """

    def __init__(self, thread: Any, check: Callable[[], object], on_signal: Callable[[], object]) -> None:
        self._thread = thread
        self._check = check
        self._on_signal = on_signal
        self._watched = 0
        self._closed = self._ended = False
        self._wake_lock = thread.allocate_lock()
        self._wake_lock.acquire()
        self._sleeps = True
        self.main_thread: int = thread.get_ident()
        self.can_signal = _handle_signal()
        _ON_SIGNAL.append(on_signal)
        thread.start_new_thread(self._run, ())

    @property
    def is_lost(self) -> bool:
        """Whether its thread has ended although nobody closed it."""
        return self._ended and not self._closed

    def watch(self) -> None:
        """One more task is watched."""
        self._watched += 1
        if self._sleeps:
            self._wake()

    def forget(self) -> None:
        """One task less is watched."""
        self._watched -= 1

    def signal_main_thread(self) -> None:
        """From the native thread: make the main thread call ``on_signal``."""
        if self.can_signal:
            signal.pthread_kill(self.main_thread, WAKE_SIGNAL)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        _ON_SIGNAL.remove(self._on_signal)
        self._wake()

    def _wake(self) -> None:
        try:
            self._wake_lock.release()
        except RuntimeError:
            return

    def _run(self) -> None:
        try:
            self._check_again_and_again()
        finally:
            self._ended = True

    def _check_again_and_again(self) -> None:
        while not self._closed:
            self._sleeps = self._watched <= 0
            if self._sleeps and self._watched <= 0:
                self._wake_lock.acquire()
            else:
                self._wake_lock.acquire(True, CHECK_SECONDS)
            self._sleeps = False
            if not self._closed:
                with suppress(Exception):  # nothing can be told from here: the next look comes soon
                    self._check()


def _handle_signal() -> bool:
    """Whether signals can reach the tasks: handlers run in the main thread only."""
    try:
        signal.signal(WAKE_SIGNAL, _on_signal)
    except ValueError:
        return False
    return True


def _on_signal(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
    for look in tuple(_ON_SIGNAL):
        look()
