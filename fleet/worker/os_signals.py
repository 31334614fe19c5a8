"""Signals as numbers in a socket: any thread that is awake handles them, also while the main thread is in C code.

Python runs a signal handler in the main thread and only between bytecodes: a solo task inside a C call would keep TERM
waiting. The wake-up descriptor is written by the interpreter's C handler at once, and it is the only source here: the
Python handlers do nothing.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
from types import FrameType

from fleet.replica.notice import LOOK

STACKS = signal.SIGUSR1
BARE_STACKS = signal.SIGUSR2
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
HEEDED = (*STOPS, STACKS, LOOK)


class SignalBox:
    """Collects what is HEEDED. ``fileno`` is readable when there is something to ``take``."""

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def fileno(self) -> int:
        """For a selector."""
        return self._read.fileno()

    def descriptors(self) -> tuple[int, int]:
        """Both ends."""
        return self._read.fileno(), self._write.fileno()

    def install(self) -> None:
        """Collect from now on. Children that a task or a pool forks get the default handlers back."""
        for signum in HEEDED:
            signal.signal(signum, _leave_to_the_box)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=_as_before)

    def take(self) -> list[int]:
        """The signals that came since the last call, in order; each is taken once, by the thread that asks first."""
        try:
            numbers = self._read.recv(4096)
        except (BlockingIOError, InterruptedError):
            return []
        return [number for number in numbers if number in HEEDED]

    def close(self) -> None:
        """Stop collecting."""
        if signal.getsignal(signal.SIGTERM) is _leave_to_the_box:
            signal.set_wakeup_fd(-1)
        self._read.close()
        self._write.close()

    def post(self, signum: int) -> None:
        """Add a signal as if it had come."""
        self._write.send(bytes([signum]))


def answer_bare() -> None:
    """USR2 writes the stacks of all threads to stderr, at once and from C. A forked child has it from its parent."""
    faulthandler.register(BARE_STACKS, all_threads=True)


def _leave_to_the_box(signum: int, frame: FrameType | None) -> None:
    """Nothing: the number is in the box already."""


def _as_before() -> None:
    """In a forked child: ``multiprocessing.Pool.terminate`` relies on TERM, and no code would read the box."""
    signal.set_wakeup_fd(-1)
    for signum in HEEDED:
        if signal.getsignal(signum) is _leave_to_the_box:
            signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
