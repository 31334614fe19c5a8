"""What belongs to the process and not to a task that shares it: a task may change it, and it is put back afterwards.

Signal handlers, the descriptor that signals wake, the signal mask, the alarm timer, the standard streams. A task that
closes the descriptors of its worker leaves nothing to put back: that process is replaced.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any, TextIO

from fleet.worker.os_signals import HEEDED

log = logging.getLogger("fleet.worker")

OF_THE_PROCESS = (*HEEDED, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM, signal.SIGUSR2)
"""Put back after a task that had the process for itself. Where others run meanwhile, only what the worker heeds."""

# What ``signal`` wraps: its conversion of each answer to an enum takes longer than all else that is done after a task.
_plain: Any = import_module("_signal")
_handler_of: Callable[[int], Any] = _plain.getsignal
_mask: Callable[[int, Iterable[int]], set[int]] = _plain.pthread_sigmask
_HEEDED = frozenset(map(int, HEEDED))
_UNBLOCK = int(signal.SIG_UNBLOCK)
_ITIMER_REAL = int(signal.ITIMER_REAL)


_PAUSE_SECONDS = 0.001


class ProcessState:
    """As it is now, to be compared with later. Made, and asked, in the main thread."""

    def __init__(self, descriptors: Sequence[int], *, shared: bool) -> None:
        """descriptors: without these the worker cannot go on.  shared: tasks run while this is asked."""
        self._shared = shared
        self._handlers = {int(signum): _handler_of(signum) for signum in (HEEDED if shared else OF_THE_PROCESS)}
        self._wakeup_fd = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
        self._files = {fd: _identity(fd) for fd in descriptors}
        self._looked_at = 0.0

    @property
    def lost_descriptor(self) -> int | None:
        """One of the worker's descriptors that a task has closed, whatever has its number now."""
        return next((fd for fd, known in self._files.items() if _identity(fd) != known), None)

    @property
    def closed_descriptor(self) -> int | None:
        """The same in a fraction of the time, but that a number which was taken again may pass for ours."""
        return next((fd for fd in self._files if not _is_open_and_unblocking(fd)), None)

    def look_briefly(self) -> int | None:
        """Between quick tasks, a thousand times a second at most: put back; a closed descriptor of the worker."""
        now = time.monotonic()
        if now - self._looked_at < _PAUSE_SECONDS:
            return None
        self._looked_at = now
        self.put_back()
        return self.closed_descriptor

    def put_back(self) -> None:
        """As it was. Costs a few microseconds where nothing has changed."""
        changed = [signum for signum, handler in self._handlers.items() if _handler_of(signum) is not handler]
        for signum in changed:
            if (handler := self._handlers[signum]) is not None:
                signal.signal(signum, handler)
        if signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False) != self._wakeup_fd or changed:
            names = ", ".join(signal.Signals(signum).name for signum in changed) or "the wake-up descriptor"
            log.warning("a task has changed how this process heeds signals, which is put back: %s", names)
        if not self._shared:
            _plain.setitimer(_ITIMER_REAL, 0)
        if not _HEEDED.isdisjoint(_mask(_UNBLOCK, ())):
            _mask(_UNBLOCK, _HEEDED)
        sys.stdout, sys.stderr = _open(sys.stdout, 1), _open(sys.stderr, 2)


def _open(stream: TextIO, fd: int) -> TextIO:
    """The stream, or another on the same descriptor where a task has closed it."""
    if stream is not None and not stream.closed:
        return stream
    with suppress(OSError):
        return open(fd, "w", buffering=1, errors="backslashreplace", closefd=False)
    return stream


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_open_and_unblocking(fd: int) -> bool:
    try:
        return not os.get_blocking(fd)
    except OSError:
        return False
