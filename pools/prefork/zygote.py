"""The zygote: one small process that has imported the app and run no task, from which all children are forked.

The pool's own process then never forks: it may have threads, may have grown, and no child inherits its locks,
connections and memory. Children of the zygote are not children of this process, so the zygote tells how they ended;
they outlive it, and a new zygote is started in its place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import time
from functools import partial
from typing import Protocol

from pools.errors import PoolUnavailable
from pools.loop import EventLoop, Timer
from pools.prefork import backoff
from pools.prefork.child import ChildOptions
from pools.prefork.exit import await_exit, exit_text, reap, signal_process
from pools.prefork.fork import exec_child
from pools.prefork.fresh_interpreter import ANSWER, FORK, REAP, REQUEST, ZYGOTE, make_start_message, start_message_head
from pools.prefork.protocol import WORKER_UP, Inbox, Outbox, Report, load
from pools.prefork.start_methods import StartedProcess, start_process

ANSWER_SECONDS = 10.0
"""How long the zygote may take for a fork. It does nothing else, so one that takes longer is stopped or broken."""
_LAST_SECONDS = 0.1
_KILLED_SECONDS = 1.0


class StartMethodListener(Protocol):
    """Called in the thread of the loop."""

    def on_start_method_ready(self) -> None:
        """``start_child`` may be called from now on."""

    def on_start_method_failed(self, problem: str, *, again_in_seconds: float) -> None:
        """``start_child`` may not be called until it is ready again; it tries that by itself."""


class ForkServer:
    """Children are forked from one fresh interpreter that has imported the app."""

    def __init__(self, listener: StartMethodListener, options: ChildOptions) -> None:
        self.ready = False
        self._listener = listener
        self._options = options
        self._start_message = b""
        self._loop: EventLoop | None = None
        self._zygote: StartedProcess | None = None
        self._started_at = 0.0
        self._failures = 0
        self._next_try: Timer | None = None
        self._closed = False

    @property
    def pid(self) -> int:
        """Of the zygote; 0 while there is none."""
        return self._zygote.pid if self._zygote is not None else 0

    def open(self, loop: EventLoop) -> None:
        _check_system()
        self._loop = loop
        self._start_message = make_start_message(self._options)
        self._start()

    def move_to(self, loop: EventLoop) -> None:
        if self._loop is None:
            return
        self._loop = loop
        if self._zygote is not None:
            self._watch(self._zygote)
        elif self._next_try is not None:
            self._next_try = loop.call_at(self._next_try.when, self._start)

    def close(self) -> None:
        self._closed = True
        if self._next_try is not None:
            self._next_try.cancel()
        if self._zygote is not None:
            self._end()

    # -- the zygote

    def _start(self) -> None:
        self._next_try = None
        self._started_at = time.monotonic()
        try:
            self._zygote = start_process(lambda child_ends: exec_child(ZYGOTE, child_ends, 0), inherited=False)
        except OSError as error:
            self._try_later(f"no zygote could be started: {error}")
            return
        self._inbox, self._outbox = Inbox(self._zygote.link.socket), Outbox(self._zygote.link.socket)
        with contextlib.suppress(OSError):  # its death is told by its socket
            self._outbox.send(start_message_head(self._start_message), self._start_message)
        self._watch(self._zygote)

    def _watch(self, zygote: StartedProcess) -> None:
        assert self._loop is not None
        self._loop.add_reader(zygote.link.socket.fileno(), self._on_readable)
        if self._outbox.pending:
            self._loop.add_writer(zygote.link.socket.fileno(), partial(self._on_writable, zygote, self._outbox))

    def _on_writable(self, zygote: StartedProcess, outbox: Outbox) -> None:
        assert self._loop is not None
        with contextlib.suppress(OSError):
            if not outbox.flush():
                return
        self._loop.remove_writer(zygote.link.socket.fileno())

    def _on_readable(self) -> None:
        """Before it is ready: its report. Afterwards it speaks only when asked, so this is its end."""
        reports = self._inbox.receive() if not self.ready else []
        if self.ready or self._inbox.ended or any(report.kind != WORKER_UP for report in reports):
            self._on_lost(_cause(reports))
        elif reports:
            self.ready = True
            self._listener.on_start_method_ready()

    def _on_lost(self, cause: str = "") -> None:
        was_ready, lived = self.ready, time.monotonic() - self._started_at
        pid, code = self.pid, self._end()
        if was_ready and lived > backoff.SHORT_LIFE_SECONDS:
            self._failures = 0
        what = "died" if was_ready else "could not be made ready"
        self._try_later(f"zygote {pid} {what} ({exit_text(code)}){cause}")

    def _end(self) -> int | None:
        """End the zygote at once, whatever it is doing; its exit code."""
        zygote = self._zygote
        assert zygote is not None
        self._zygote, self.ready = None, False
        if self._loop is not None and not self._loop.closed:
            self._loop.remove_reader(zygote.link.socket.fileno())
            self._loop.remove_writer(zygote.link.socket.fileno())
        if zygote.link.pidfd < 0 or not await_exit(zygote.link.pidfd, 0 if self._closed else _LAST_SECONDS):
            signal_process(zygote.pid, signal.SIGKILL)
        if zygote.link.pidfd >= 0:
            await_exit(zygote.link.pidfd, _KILLED_SECONDS)
        _, code = reap(zygote.pid)
        zygote.link.close()
        return code

    def _try_later(self, problem: str) -> None:
        if self._closed or self._loop is None:
            return
        self._failures += 1
        seconds = backoff.pause_seconds(self._failures)
        self._next_try = self._loop.call_later(seconds, self._start)
        self._listener.on_start_method_failed(problem, again_in_seconds=seconds)

    # -- its children

    def start_child(self, index: int) -> StartedProcess:
        process = start_process(lambda child_ends: self._ask(FORK, index, child_ends.fds)[0], inherited=False)
        if process.link.pidfd < 0:  # its exit could not be noticed; without its alive pipe it ends at once
            process.link.close()
            raise OSError(errno.EMFILE, "no descriptor is left to watch a child with")
        return process

    def reap(self, pid: int, *, wait: bool = False) -> tuple[bool, int | None]:  # noqa: ARG002
        if not self.ready:
            return True, None
        try:
            gone, code = self._ask(REAP, pid)
        except OSError:  # of an earlier zygote: init has reaped it
            return True, None
        return gone == pid, code if gone else None

    def _ask(self, kind: int, number: int, fds: list[int] | None = None) -> tuple[int, int]:
        """Ask the zygote and wait for the answer: a fork takes it no longer than it would take this process."""
        zygote = self._zygote
        if zygote is None or not self.ready:
            raise ConnectionError("there is no zygote")
        try:
            socket.send_fds(zygote.link.socket, [REQUEST.pack(kind, number)], fds or [])
            pid, code, problem = ANSWER.unpack(_receive_answer(zygote.link.socket))
        except OSError as error:
            self._on_lost(f": {error}")
            raise
        if problem:
            raise OSError(problem, os.strerror(problem))
        return pid, code


def _check_system() -> None:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        raise PoolUnavailable(
            f"the start method forkserver needs pidfds, and there are none: {error}", hint="take fork or spawn"
        ) from error


def _receive_answer(sock: socket.socket) -> bytes:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    if not poll.poll(ANSWER_SECONDS * 1000):
        raise TimeoutError(f"it did not answer within {ANSWER_SECONDS:g} s")
    answer = sock.recv(ANSWER.size)
    if len(answer) < ANSWER.size:
        raise ConnectionError("it hung up")
    return answer


def _cause(reports: list[Report]) -> str:
    for report in reports:
        if report.kind != WORKER_UP:
            error, text = load(report.body)
            return f": {type(error).__name__}: {error}\n{text}"
    return ""
