"""The second thread of a worker whose tasks run in the main thread: it does the housekeeping while a task runs.

It shares one lock with the loop and never waits for it: when the lock is free, the loop is inside a task, and this
thread does the housekeeping (lease, heartbeat, buffered acknowledgements, signals, record). While tasks follow each
other quickly it finds nothing to do; when nothing has run for a while it sleeps until the next task or
control message.
"""

from __future__ import annotations

import logging
import select
import socket
import threading
import time
from collections.abc import Sized
from typing import Protocol

log = logging.getLogger("fleet.worker")

TICK_SECONDS = 0.25
AHEAD_SECONDS = 0.02
"""How often it looks for a task that turns out long while others wait behind it. Each look interrupts the task."""
ALERT_SECONDS = 1.0
DROWSY_SECONDS = 600.0
_YIELD_SECONDS = 0.005


class Answering(Protocol):
    """What answers control commands."""

    def fds(self) -> list[int]:
        """Descriptors that become readable when a command has come."""
        ...

    def attend(self) -> None:
        """Answer what has come. Never raises."""
        ...

    @property
    def poll_seconds(self) -> float | None:
        """How soon to attend without being woken; None: not at all."""
        ...


class Attended(Protocol):
    """The loop, as the housekeeping thread uses it."""

    @property
    def is_inside_task(self) -> bool:
        """Whether the main thread is in a task now."""
        ...

    @property
    def waiting(self) -> Sized:
        """The messages behind that task."""
        ...

    def attend(self) -> bool:
        """Do the housekeeping; False when it needs no help."""
        ...


class HousekeepingThread(threading.Thread):
    """Started with the loop, closed after it."""

    def __init__(self, loop: Attended, control: Answering | None, *, box_fd: int) -> None:
        super().__init__(name="fleet-housekeeping", daemon=True)
        self._loop = loop
        self._control = control
        self._box_fd = box_fd
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._drowsy = False
        self._slow = False
        self._alert_until = 0.0
        self._closing = False

    def look(self) -> None:
        """From the main thread, before a task: costs an attribute read or two unless the housekeeping thread sleeps.

        With messages behind the task this thread must look sooner: a task that turns out long must not keep them.
        """
        if self._drowsy or (self._slow and self._loop.waiting):
            self._drowsy = self._slow = False
            self.wake()

    def wake(self) -> None:
        """Let it look now, from any thread."""
        try:
            self._write.send(b"\0")
        except OSError:
            return

    def close(self) -> None:
        """End the thread."""
        self._closing = True
        self.wake()
        self.join(5.0)
        if not self.is_alive():
            self._read.close()
            self._write.close()

    def run(self) -> None:
        """Tick while tasks run, sleep while none do."""
        while not self._closing:
            try:
                self._tick()
            except Exception:
                log.exception("the housekeeping thread failed")

    def _tick(self) -> None:
        heeds_signals = self._wait(busy=self._loop.is_inside_task)
        if self._control is not None:
            self._control.attend()
        helped = self._loop.attend()
        if heeds_signals and not helped:
            # Between two tasks the loop handles signals itself; do not spin on a descriptor that it is about to read.
            threading.Event().wait(_YIELD_SECONDS)

    def _wait(self, *, busy: bool) -> bool:
        """Until something is to be done; whether a signal would have been, too."""
        control, heeds_signals = self._control, False
        fds = [self._read.fileno(), *(control.fds() if control is not None else ())]
        if self._loop.waiting:
            self._alert_until = time.monotonic() + ALERT_SECONDS
        if time.monotonic() < self._alert_until:
            timeout = AHEAD_SECONDS
        elif busy:
            fds.append(self._box_fd)
            heeds_signals = self._slow = True
            timeout = AHEAD_SECONDS if self._loop.waiting else TICK_SECONDS
        else:
            timeout = DROWSY_SECONDS
            self._drowsy = True
            if self._loop.is_inside_task:  # it began in between, and saw no reason to wake this thread
                timeout = TICK_SECONDS
        if control is not None and control.poll_seconds is not None:
            timeout = min(timeout, control.poll_seconds)
        poll = select.poll()
        for fd in fds:
            poll.register(fd, select.POLLIN)
        if any(fd == self._read.fileno() for fd, _ in poll.poll(timeout * 1000)):
            self._read.recv(4096)
        return heeds_signals
