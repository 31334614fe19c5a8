"""The descriptors that a child and its parent share, and how a child dies with its parent.

Five descriptors per child stay open in the parent: the socket, both ends of the task pipe (see ``task_pipe``), the
alive pipe and a pidfd (and the memory of the signal page). Nothing is ever written to the alive pipe. The child asks
the kernel to send SIGKILL to its whole process group when the pipe hangs up, which happens when the parent is gone for
any reason: so the processes that a task started die too, also while the child executes C code. PR_SET_PDEATHSIG does
the same a second time; it is bound to the thread that started the child, so it is used only when that is the main
thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import threading
from dataclasses import dataclass
from socket import socket as Socket  # noqa: N812

from pools.prefork.protocol import SIGNAL_PAGE_BYTES
from pools.prefork.task_pipe import make_task_sockets

_PR_SET_PDEATHSIG = 1
_F_SETSIG = 10
_PRCTL = ctypes.CDLL(None, use_errno=True).prctl
"""Looked up once, and not in each child."""


@dataclass(slots=True, eq=False)
class ParentLink:
    """The parent's ends of what it shares with one child. Descriptors are -1 when closed or missing.

    tasks: the writing end of the task pipe.  tasks_unread: its reading end, which the child has as well.
    """

    socket: Socket
    tasks: Socket
    tasks_unread: Socket
    alive_pipe: int
    signal_page: mmap.mmap
    pidfd: int = -1

    def watch_pid(self, pid: int) -> None:
        """Open the pidfd of the child, which has not been reaped yet; ``pidfd`` stays -1 where there are none."""
        with contextlib.suppress(OSError, AttributeError):
            self.pidfd = os.pidfd_open(pid)

    def close(self) -> None:
        """Close everything. The alive pipe last: the kernel then kills what is left of the child's process group."""
        _LINKS.discard(self)
        self.close_descriptors()
        self.signal_page.close()

    def close_descriptors(self) -> None:
        """Close the descriptors only: in a forked process the signal page may be that process's own."""
        for sock in (self.socket, self.tasks, self.tasks_unread):
            sock.close()
        for fd in (self.pidfd, self.alive_pipe):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.alive_pipe = -1


_LINKS: set[ParentLink] = set()
"""All links of this process. A forked process closes them at once: an open alive pipe means a living parent."""


def _close_inherited_links() -> None:
    for link in _LINKS:
        link.close_descriptors()
    _LINKS.clear()


os.register_at_fork(after_in_child=_close_inherited_links)


@dataclass(slots=True)
class ChildEnds:
    """The child's ends of what it shares with its parent.

    signal_page_fd: -1 where the page itself was inherited.  dies_with_parent_thread: use PR_SET_PDEATHSIG.
    """

    socket: Socket
    tasks: Socket
    alive_pipe: int
    signal_page_fd: int = -1
    signal_page: mmap.mmap | None = None
    dies_with_parent_thread: bool = False

    @property
    def fds(self) -> list[int]:
        """The descriptors that must be passed to a child that inherits nothing, always as many."""
        return [self.socket.fileno(), self.tasks.fileno(), self.alive_pipe, self.signal_page_fd]

    @classmethod
    def from_fds(cls, fds: list[int], *, dies_with_parent_thread: bool = False) -> ChildEnds:
        """In a child that inherited nothing: from the descriptors that were passed, in the order of ``fds``."""
        for fd in fds:
            os.set_inheritable(fd, False)
        report_fd, tasks_fd, alive_pipe, signal_page_fd = fds
        sockets = socket.socket(fileno=report_fd), socket.socket(fileno=tasks_fd)
        return cls(*sockets, alive_pipe, signal_page_fd, None, dies_with_parent_thread)

    def open_signal_page(self) -> mmap.mmap:
        """In the child: map the page shared with the parent."""
        if self.signal_page is None:
            self.signal_page = mmap.mmap(self.signal_page_fd, SIGNAL_PAGE_BYTES)
            os.close(self.signal_page_fd)
            self.signal_page_fd = -1
        return self.signal_page

    def close(self) -> None:
        """In the parent, when the child has its own copies."""
        self.socket.close()
        self.tasks.close()
        for fd in (self.alive_pipe, self.signal_page_fd):
            if fd >= 0:
                os.close(fd)

    def bind_to_parent(self) -> None:
        """In the child: ask the kernel for SIGKILL when the parent is gone. Exits at once when it is gone already."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.alive_pipe, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(self.alive_pipe, _F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(self.alive_pipe, fcntl.F_GETFL)
            fcntl.fcntl(self.alive_pipe, fcntl.F_SETFL, flags | os.O_ASYNC)
        if self.dies_with_parent_thread:
            _PRCTL(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        poll = select.poll()
        poll.register(self.alive_pipe, 0)
        if poll.poll(0):  # it hung up before the kernel was asked to signal that
            os._exit(1)


def make_link(*, inherited: bool) -> tuple[ParentLink, ChildEnds]:
    """Both ends for one child. inherited: this very process forks it. OSError when no descriptor is left."""
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        undo.callback(theirs.close)
        tasks, unread = make_task_sockets()
        undo.callback(tasks.close)
        undo.callback(unread.close)
        read = unread.dup()
        undo.callback(read.close)
        read_end, write_end = os.pipe()
        undo.callback(os.close, read_end)
        undo.callback(os.close, write_end)
        signal_page, signal_page_fd = _make_signal_page(inherited=inherited)
        undo.pop_all()
    for sock in (ours, tasks):
        sock.setblocking(False)
    for sock in (theirs, read, unread):  # the last two are one: the flag is of both
        sock.setblocking(True)  # whatever socket.setdefaulttimeout() says
    link = ParentLink(ours, tasks, unread, write_end, signal_page)
    _LINKS.add(link)
    by_main = threading.current_thread() is threading.main_thread()
    return link, ChildEnds(theirs, read, read_end, signal_page_fd, signal_page if inherited else None, by_main)


def _make_signal_page(*, inherited: bool) -> tuple[mmap.mmap, int]:
    if inherited:
        return mmap.mmap(-1, SIGNAL_PAGE_BYTES), -1
    fd = os.memfd_create("pool-signal-page")
    try:
        os.ftruncate(fd, SIGNAL_PAGE_BYTES)
        return mmap.mmap(fd, SIGNAL_PAGE_BYTES), fd
    except BaseException:
        os.close(fd)
        raise
