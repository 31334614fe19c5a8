"""A small event loop: descriptors, timers, and calls from other threads and signal handlers.

Not asyncio on purpose. While an asyncio loop runs in the main thread, ``asyncio.run()`` in a solo task fails with
"cannot be called from a running event loop"; and a pool needs to be driven turn by turn by whoever waits for it
(``run_once``).

In a process patched for gevent or eventlet it still watches its descriptors with the kernel's own epoll, and waits
cooperatively for that one descriptor alone: a turn costs the hub one registration and not one per descriptor, and a
descriptor that was closed while it was watched is forgotten, where a cooperative ``select`` fails for all of them.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import logging
import select
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pools.options import LONGEST_WAIT_SECONDS
from pools.patching import BLOCKING_SELECTOR, is_green

Callback = Callable[[], object]

_COMPACT_FROM = 64
"""Cancelled timers are swept when there are more than this many and they are the majority."""


class Timer:
    """One call in the future. ``cancel`` is free and may be called at any time, also twice."""

    __slots__ = ("_callback", "_loop", "when")

    def __init__(self, loop: EventLoop, when: float, callback: Callback) -> None:
        self._loop = loop
        self._callback: Callback | None = callback
        self.when = when

    @property
    def pending(self) -> bool:
        """Whether it is still to be called."""
        return self._callback is not None

    def cancel(self) -> None:
        """Do not call it."""
        if self._callback is not None:
            self._callback = None
            self._loop._on_timer_cancelled()

    def _take(self) -> Callback | None:
        callback, self._callback = self._callback, None
        return callback


class _Watch:
    """The callbacks of one descriptor. A removed one is None, so that an event already fetched is not delivered."""

    __slots__ = ("reader", "writer")

    def __init__(self) -> None:
        self.reader: Callback | None = None
        self.writer: Callback | None = None

    @property
    def events(self) -> int:
        return (selectors.EVENT_READ if self.reader else 0) | (selectors.EVENT_WRITE if self.writer else 0)


class EventLoop:
    """Calls callbacks when descriptors are ready, when time has come, or when asked to. All in the thread that runs it.

    A callback that raises an Exception does not stop the loop: the exception goes to ``on_error`` (default: the log).
    """

    def __init__(self, *, on_error: Callable[[Exception], object] | None = None) -> None:
        self.on_error = on_error
        self._selector = BLOCKING_SELECTOR()
        self._yields = is_green() and hasattr(self._selector, "fileno")
        self._watches: dict[int, _Watch] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._cancelled = 0
        self._order = itertools.count()
        self._soon: deque[Callback] = deque()
        self._woken = False
        self._closed = False
        self._thread = threading.get_ident()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self.add_reader(self._wake_read.fileno(), self._on_wake)

    @property
    def in_thread(self) -> bool:
        """Whether the caller is in the thread that runs this loop (before the first turn: that made it)."""
        return threading.get_ident() == self._thread

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def time(self) -> float:
        """The clock of the timers: ``time.monotonic()``."""
        return time.monotonic()

    # -- descriptors

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call ``callback`` whenever ``fd`` is readable or has hung up. Replaces an earlier reader."""
        watch = self._watch_of(fd)
        before, watch.reader = watch.events, callback
        self._apply(fd, watch, before)

    def add_writer(self, fd: int, callback: Callback) -> None:
        """Call ``callback`` whenever ``fd`` is writable. Replaces an earlier writer."""
        watch = self._watch_of(fd)
        before, watch.writer = watch.events, callback
        self._apply(fd, watch, before)

    def remove_reader(self, fd: int) -> bool:
        """Stop watching ``fd`` for reading; whether it was watched. Do this before closing it."""
        watch = self._watches.get(fd)
        if watch is None or watch.reader is None:
            return False
        before, watch.reader = watch.events, None
        self._apply(fd, watch, before)
        return True

    def remove_writer(self, fd: int) -> bool:
        """Stop watching ``fd`` for writing; whether it was watched."""
        watch = self._watches.get(fd)
        if watch is None or watch.writer is None:
            return False
        before, watch.writer = watch.events, None
        self._apply(fd, watch, before)
        return True

    def _watch_of(self, fd: int) -> _Watch:
        return self._watches.get(fd) or _Watch()

    def _apply(self, fd: int, watch: _Watch, before: int) -> None:
        events = watch.events
        if events == before:
            return
        if not before:
            self._selector.register(fd, events, watch)
            self._watches[fd] = watch
        elif not events:
            self._selector.unregister(fd)
            del self._watches[fd]
        else:
            self._selector.modify(fd, events, watch)

    # -- time

    def call_at(self, when: float, callback: Callback) -> Timer:
        """Call once when ``time.monotonic()`` has reached ``when``."""
        timer = Timer(self, when, callback)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Call once, this long from now."""
        return self.call_at(time.monotonic() + seconds, callback)

    def _on_timer_cancelled(self) -> None:
        self._cancelled += 1
        if self._cancelled > _COMPACT_FROM and self._cancelled * 2 > len(self._timers):
            self._timers = [entry for entry in self._timers if entry[2].pending]
            heapq.heapify(self._timers)
            self._cancelled = 0

    # -- now

    def call_soon_threadsafe(self, callback: Callback) -> None:
        """Call in the next turn, and wake the loop for it. From any thread, and from signal handlers."""
        self._soon.append(callback)
        self.wake()

    def wake(self) -> None:
        """Let a waiting ``run_once`` return. From any thread, and from signal handlers."""
        if self._woken or self._closed:
            return
        self._woken = True
        # Full: it wakes anyway. Closed: there is nothing to wake.
        with contextlib.suppress(OSError):
            self._wake_write.send(b"\0")

    def _on_wake(self) -> None:
        # First drain, then clear: the other way round a byte sent in between would be eaten with the flag left up.
        try:
            while len(self._wake_read.recv(4096)) == 4096:
                pass
        except BlockingIOError:
            pass
        self._woken = False

    # -- running

    def run_once(self, timeout_seconds: float | None = None) -> None:
        """One turn: wait for something to do, at most this long (None: for ever; 0: look only), and do it."""
        self._thread = threading.get_ident()
        for key, mask in self._ready(self._wait_seconds(timeout_seconds)):
            watch: _Watch = key.data
            if mask & selectors.EVENT_READ and watch.reader is not None:
                self._call(watch.reader)
            if mask & selectors.EVENT_WRITE and watch.writer is not None:
                self._call(watch.writer)
        self._run_timers()
        self._run_soon()

    def _ready(self, wait_seconds: float | None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self._yields:
            return self._selector.select(wait_seconds)
        try:
            self._yield(wait_seconds)
        except OSError as error:
            # After a select that failed for a closed descriptor, eventlet's hub goes on listening for that number, and
            # throws this into the greenlet that had called it when another socket gets the number (hubs/hub.py).
            if error.errno != errno.ENOTCONN:
                raise
        return self._selector.select(0)

    def _yield(self, wait_seconds: float | None) -> None:
        if wait_seconds is not None and wait_seconds <= 0:
            time.sleep(0)
            return
        epoll: Any = self._selector
        select.select([epoll.fileno()], [], [], wait_seconds)

    def _wait_seconds(self, timeout_seconds: float | None) -> float | None:
        if self._soon:
            return 0.0
        while self._timers and not self._timers[0][2].pending:
            heapq.heappop(self._timers)
            self._cancelled -= 1
        if not self._timers:
            return timeout_seconds
        until_timer = min(max(0.0, self._timers[0][0] - time.monotonic()), LONGEST_WAIT_SECONDS)
        return until_timer if timeout_seconds is None else min(timeout_seconds, until_timer)

    def _run_timers(self) -> None:
        if not self._timers:
            return
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            callback = heapq.heappop(self._timers)[2]._take()
            if callback is None:
                self._cancelled -= 1
            else:
                self._call(callback)

    def _run_soon(self) -> None:
        # Only what is there now: a callback that calls itself again must not starve the descriptors.
        for _ in range(len(self._soon)):
            if not self._soon:  # a nested turn took them
                return
            self._call(self._soon.popleft())

    def _call(self, callback: Callback) -> None:
        try:
            callback()
        except Exception as error:
            self.report(error)

    def report(self, error: Exception) -> None:
        """Hand an exception of a callback to ``on_error``, or log it."""
        if self.on_error is None:
            logging.getLogger(__name__).error("a callback of the event loop failed", exc_info=error)
            return
        try:
            self.on_error(error)
        except Exception:
            logging.getLogger(__name__).exception("on_error of the event loop failed")

    def close(self) -> None:
        """Close the loop's own descriptors, not the watched ones. Callbacks that were not called yet are dropped."""
        if self._closed:
            return
        self._closed = True
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()
        self._watches.clear()
        self._timers.clear()
        self._soon.clear()
