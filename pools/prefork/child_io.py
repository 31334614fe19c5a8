"""What a child sends, what is sent to it, and its exit: sockets and pidfds in the event loop."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from functools import partial
from typing import Protocol

from pools.loop import EventLoop
from pools.prefork.exit import has_exited
from pools.prefork.fresh_interpreter import start_message_head
from pools.prefork.protocol import Report
from pools.prefork.slot import Child, ChildState

POLL_SECONDS = 0.2
"""How often to check whether a child has exited, where the system has no pidfd."""


class ChildIOListener(Protocol):
    """Called in the thread of the loop."""

    def on_report(self, child: Child, report: Report) -> None:
        """The child has sent this."""

    def on_hang_up(self, child: Child) -> None:
        """The child has closed its socket; it may still live."""

    def on_exit(self, child: Child) -> None:
        """The child has exited and has not been reaped. ``on_report`` has been called for all its reports."""


class ChildIO:
    """Reads from and writes to children without blocking, and notices their exit."""

    def __init__(self, listener: ChildIOListener) -> None:
        self._listener = listener
        self._loop: EventLoop | None = None

    def move_to(self, loop: EventLoop, children: Iterable[Child]) -> None:
        """Use this loop from now on, also for children that were watched in another one."""
        self._loop = loop
        for child in children:
            self.watch(child)

    def watch(self, child: Child) -> None:
        """Call the listener from now on for what the child sends, and for its exit."""
        loop = self._loop
        assert loop is not None
        loop.add_reader(child.link.socket.fileno(), partial(self._on_readable, child))
        if child.link.pidfd >= 0:
            loop.add_reader(child.link.pidfd, partial(self._on_exit, child))
        else:
            loop.call_later(POLL_SECONDS, partial(self._poll, child, loop))
        if child.outbox.pending:
            loop.add_writer(child.link.socket.fileno(), partial(self._on_writable, child))
        if child.tasks.pending:
            self.send_rest_of_task(child)

    def unwatch(self, child: Child) -> None:
        """Call the listener no more for this child. Must be called before its link is closed."""
        loop = self._loop
        assert loop is not None
        loop.remove_reader(child.link.socket.fileno())
        loop.remove_writer(child.link.socket.fileno())
        loop.remove_writer(child.link.tasks.fileno())
        if child.link.pidfd >= 0:
            loop.remove_reader(child.link.pidfd)

    def send_rest_of_task(self, child: Child) -> None:
        """Of the child's task, packets are still to be sent: send them when the pipe takes them."""
        assert self._loop is not None
        self._loop.add_writer(child.link.tasks.fileno(), partial(self._on_pipe_writable, child))

    def send_start_message(self, child: Child, message: bytes) -> None:
        """Send a child what it must read first; before ``watch``."""
        with contextlib.suppress(OSError):  # the exit of the child is noticed elsewhere
            child.outbox.send(start_message_head(message), message)

    def hang_up(self, child: Child) -> None:
        """Send nothing more: the child leaves when it has read everything."""
        with contextlib.suppress(OSError):
            child.link.tasks.shutdown(socket.SHUT_WR)

    def hear(self, child: Child) -> None:
        """Tell the listener what the child has said so far."""
        child.reports.extend(child.inbox.receive())
        self._tell(child)

    def _tell(self, child: Child) -> None:
        # In the order they came, also where a listener's answer to one is to hear the others.
        reports = child.reports
        while reports:
            self._listener.on_report(child, reports.popleft())

    def _on_readable(self, child: Child) -> None:
        child.reports.extend(child.inbox.receive())
        if child.inbox.ended:
            assert self._loop is not None
            child.gone = True
            self._loop.remove_reader(child.link.socket.fileno())
            self._listener.on_hang_up(child)
        self._tell(child)

    def _on_writable(self, child: Child) -> None:
        assert self._loop is not None
        with contextlib.suppress(OSError):  # the exit of the child is noticed elsewhere
            if not child.outbox.flush():
                return
        self._loop.remove_writer(child.link.socket.fileno())

    def _on_pipe_writable(self, child: Child) -> None:
        assert self._loop is not None
        with contextlib.suppress(OSError):
            if not child.tasks.flush():
                return
        self._loop.remove_writer(child.link.tasks.fileno())

    def _poll(self, child: Child, loop: EventLoop) -> None:
        if child.state is ChildState.DEAD or loop is not self._loop:
            return
        if has_exited(child.pid):
            self._on_exit(child)
        else:
            loop.call_later(POLL_SECONDS, partial(self._poll, child, loop))

    def _on_exit(self, child: Child) -> None:
        child.gone = True
        child.reports.extend(child.inbox.drain())  # a task that was finished before the exit is finished
        self._tell(child)
        self._listener.on_exit(child)
