"""What ties the life of a child to its parent's, and the descriptors they share.

Three descriptors per child stay in the parent, four where children do not inherit: the socket, the lifeline, a pidfd
(and the memory of the board). The lifeline is a pipe that nobody ever writes to. The child asks the kernel to send
SIGKILL to its whole process group when the pipe hangs up, that is when the parent is gone, however it went: so the
processes that a task started die too, also while the child sits in C code. PR_SET_PDEATHSIG is the second belt; it is
bound to the thread that made the child, so it is used only when that is the main thread.
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

from pools.prefork.protocol import BOARD

_PR_SET_PDEATHSIG = 1
_F_SETSIG = 10
_LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True, eq=False)
class Ties:
    """The parent's ends of everything shared with one child."""

    socket: socket.socket
    lifeline: int
    board: mmap.mmap
    pidfd: int = -1

    def hold(self, pid: int) -> None:
        """The child has this pid; it has not been reaped yet."""
        with contextlib.suppress(OSError, AttributeError):
            self.pidfd = os.pidfd_open(pid)

    def close(self) -> None:
        """Let go. The lifeline last: with it goes whatever may be left of the child's process group."""
        _TIES.discard(self)
        self.cut()
        self.board.close()

    def cut(self) -> None:
        """Close the descriptors only: in a forked process the board may be that process's own."""
        self.socket.close()
        for fd in (self.pidfd, self.lifeline):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self.lifeline = -1


_TIES: set[Ties] = set()
"""All ties of this process. A forked process closes them at once, else it would keep a dead parent looking alive."""


def _cut_inherited_ties() -> None:
    for ties in _TIES:
        ties.cut()
    _TIES.clear()


os.register_at_fork(after_in_child=_cut_inherited_ties)


@dataclass(slots=True)
class Cradle:
    """The child's ends. ``board_fd`` is -1 where the board itself was inherited."""

    socket: socket.socket
    lifeline: int
    board_fd: int = -1
    board: mmap.mmap | None = None
    dies_with_parent_thread: bool = False

    @property
    def fds(self) -> list[int]:
        """What has to reach a child that inherits nothing."""
        return [self.socket.fileno(), self.lifeline, self.board_fd]

    @classmethod
    def from_fds(cls, fds: list[int], *, dies_with_parent_thread: bool = False) -> Cradle:
        """In a child that inherited nothing: from the descriptors that came, in the order of ``fds``."""
        for fd in fds:
            os.set_inheritable(fd, False)
        return cls(socket.socket(fileno=fds[0]), fds[1], fds[2], None, dies_with_parent_thread)

    def open_board(self) -> mmap.mmap:
        """In the child: the page shared with the parent."""
        if self.board is None:
            self.board = mmap.mmap(self.board_fd, BOARD.size)
            os.close(self.board_fd)
            self.board_fd = -1
        return self.board

    def close(self) -> None:
        """In the parent, after the birth."""
        self.socket.close()
        for fd in (self.lifeline, self.board_fd):
            if fd >= 0:
                os.close(fd)

    def bind_to_parent(self) -> None:
        """In the child: die with the parent."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.lifeline, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(self.lifeline, _F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(self.lifeline, fcntl.F_GETFL)
            fcntl.fcntl(self.lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
        if self.dies_with_parent_thread:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        poll = select.poll()
        poll.register(self.lifeline, 0)
        if poll.poll(0):  # it hung up before anybody asked to be told
            os._exit(1)


def make_ties(*, inherited: bool) -> tuple[Ties, Cradle]:
    """Both ends for one child. inherited: it will be forked by this very process."""
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        undo.callback(theirs.close)
        read_end, write_end = os.pipe()
        undo.callback(os.close, read_end)
        undo.callback(os.close, write_end)
        board, board_fd = _make_board(inherited=inherited)
        undo.pop_all()
    ours.setblocking(False)
    theirs.setblocking(True)  # whatever socket.setdefaulttimeout() says
    ties = Ties(ours, write_end, board)
    _TIES.add(ties)
    by_main = threading.current_thread() is threading.main_thread()
    return ties, Cradle(theirs, read_end, board_fd, board if inherited else None, by_main)


def _make_board(*, inherited: bool) -> tuple[mmap.mmap, int]:
    if inherited:
        return mmap.mmap(-1, BOARD.size), -1
    fd = os.memfd_create("pool-board")
    try:
        os.ftruncate(fd, BOARD.size)
        return mmap.mmap(fd, BOARD.size), fd
    except BaseException:
        os.close(fd)
        raise
