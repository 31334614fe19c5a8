"""The birth of a child, and what ties its life to the parent's: the only module that touches billiard.

Three descriptors per child stay in the parent: the socket, the lifeline and a pidfd. The lifeline is a pipe that
nobody ever writes to. The child asks the kernel to send SIGKILL to its whole process group when the pipe hangs up,
that is when the parent is gone, however it went: so the processes that a task started die too, also while the child
sits in C code. PR_SET_PDEATHSIG is the second belt; it is bound to the thread that forked, so it is used only when
that is the main thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from billiard.context import ForkProcess
from billiard.popen_fork import Popen

from pools.prefork.wire import BOARD

_PR_SET_PDEATHSIG = 1
_F_SETSIG = 10
_ALL_SIGNALS = signal.valid_signals()
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Fork(Popen):  # type: ignore[misc]
    """billiard's fork without its pipe: the pidfd tells the same, and what a task forks cannot hold it open."""

    def __init__(self, process: ForkProcess) -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, None, or its reader is gone: no reason not to fork
                stream.flush()
        self.returncode = None
        self._launch(process)

    def _launch(self, process: ForkProcess) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = process._bootstrap()
            finally:
                os._exit(code)


class _SlotProcess(ForkProcess):  # type: ignore[misc]
    """Not a daemon: its tasks may start processes."""

    _Popen = staticmethod(_Fork)


@dataclass(slots=True, eq=False)
class Ties:
    """The parent's ends of everything shared with one child."""

    socket: socket.socket
    lifeline: int
    board: mmap.mmap
    pidfd: int = -1

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
    """The child's ends, and who its parent is."""

    socket: socket.socket
    lifeline: int
    board: mmap.mmap
    parent_pid: int
    forked_by_main_thread: bool

    def close(self) -> None:
        """In the parent, after the fork."""
        self.socket.close()
        os.close(self.lifeline)

    def bind_to_parent(self) -> None:
        """In the child: die with the parent."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.lifeline, fcntl.F_SETOWN, -os.getpgrp())
            fcntl.fcntl(self.lifeline, _F_SETSIG, signal.SIGKILL)
            flags = fcntl.fcntl(self.lifeline, fcntl.F_GETFL)
            fcntl.fcntl(self.lifeline, fcntl.F_SETFL, flags | os.O_ASYNC)
        if self.forked_by_main_thread:
            _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != self.parent_pid:
            os._exit(1)


def fork_child(main: Callable[[Cradle], None], name: str) -> tuple[int, Ties]:
    """Fork a process that runs ``main(cradle)``; its pid and the ties to it. OSError when the system refuses."""
    ties, cradle = _make_ties()
    process = _SlotProcess(target=main, args=(cradle,), name=name, daemon=False)
    try:
        with _all_signals_blocked(), _memory_shared():
            process.start()
    except BaseException:
        ties.close()
        raise
    finally:
        cradle.close()
    pid = int(process.pid)
    # The pool waits for its children itself: billiard must neither reap them in passing nor join them at exit.
    process._children.discard(process)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)  # the child does it too; whoever is first
    with contextlib.suppress(OSError, AttributeError):
        ties.pidfd = os.pidfd_open(pid)
    return pid, ties


def reap(pid: int, *, wait: bool = False) -> tuple[bool, int | None]:
    """Whether the child is gone, and its exit code: negative for a signal, None when somebody else took it."""
    try:
        found, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
    except ChildProcessError:
        return True, None
    return found == pid, os.waitstatus_to_exitcode(status) if found == pid else None


def has_exited(pid: int) -> bool:
    """Whether the child is gone, leaving it to ``reap``: as a zombie it still owns its number and its group."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def signal_group(pid: int, signum: int) -> None:
    """Send a signal to the process group that a child leads, or to the child alone while it does not lead one yet."""
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        signal_process(pid, signum)
    except PermissionError:  # somebody in the group changed its user
        signal_process(pid, signum)


def signal_process(pid: int, signum: int) -> None:
    """Send a signal to a child."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def _make_ties() -> tuple[Ties, Cradle]:
    ours, theirs = socket.socketpair()
    try:
        read_end, write_end = os.pipe()
    except OSError:
        ours.close()
        theirs.close()
        raise
    board = mmap.mmap(-1, BOARD.size)
    ours.setblocking(False)
    theirs.setblocking(True)  # whatever socket.setdefaulttimeout() says
    ties = Ties(ours, write_end, board)
    _TIES.add(ties)
    by_main = threading.current_thread() is threading.main_thread()
    return ties, Cradle(theirs, read_end, board, os.getpid(), by_main)


@contextlib.contextmanager
def _all_signals_blocked() -> Iterator[None]:
    """The child unblocks them when its own handlers are in place; until then the parent's must not run in it."""
    earlier = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, earlier)


@contextlib.contextmanager
def _memory_shared() -> Iterator[None]:
    """Hide all objects from the child's garbage collector: what it does not visit it does not copy."""
    foreign = gc.get_freeze_count() > 0
    gc.freeze()
    try:
        yield
    finally:
        if not foreign:
            gc.unfreeze()
