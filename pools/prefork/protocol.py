"""What travels between parent and child: frames of a fixed head and a pickled body.

To the child, by a pipe of its own (``task_pipe``): length, job number, body = (target, args, kwargs). To the parent:
length, kind, job number, start, end, resident memory, body. The parent hangs up by shutting down the pipe for tasks,
the child by closing its socket.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pools.errors import Unpicklable

TASK_HEAD = struct.Struct("<QQ")
REPORT_HEAD = struct.Struct("<QBQddQ")
SIGNAL_PAGE = struct.Struct("<QQd")
"""The page shared with a child: the job that reached its soft limit, the job that is to end, the limit in seconds."""
BEGUN = struct.Struct("<Q")
BEGUN_OFFSET = SIGNAL_PAGE.size
"""Behind that, written by the child: the number of the last job that it has begun."""
SIGNAL_PAGE_BYTES = BEGUN_OFFSET + BEGUN.size

WORKER_UP = 15
RESULT = 1
FAILURE = 2
INIT_FAILED = 3

_CHUNK = 64 * 1024
_CHUNKS_PER_TURN = 64


class Report(NamedTuple):
    """One message of a child. ``body`` is still pickled. Times are ``time.monotonic()``; ``rss`` 0: not asked for."""

    kind: int
    job: int
    started_at: float
    ended_at: float
    rss: int
    body: bytes | bytearray


def dump_task(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
    """The body of a task, a pickle of ``(target, args, kwargs)``. Unpicklable when it cannot be pickled."""
    try:
        return pickle.dumps((target, tuple(args), dict(kwargs)), pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise Unpicklable(
            f"the task {target!r} cannot be sent to a process: {error}",
            hint="name a function of a module, and pass arguments that pickle accepts",
        ) from error


def dump_result(value: Any) -> bytes:
    """The body of a result, its pickle. Unpicklable when it cannot be pickled."""
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise Unpicklable(f"a result of type {type(value).__qualname__} cannot be sent back: {error}") from error


def dump_failure(error: BaseException, text: str) -> bytes:
    """The body of a failure, a pickle of ``(error, text)``; text is the traceback.

    An exception that cannot be pickled and loaded again is replaced by an Unpicklable that describes it.
    """
    try:
        body = pickle.dumps((error, text), pickle.HIGHEST_PROTOCOL)
        # Exceptions with arguments of their own pickle well and then fail to load.
        pickle.loads(body)
    except Exception as problem:
        stand_in = Unpicklable(f"{type(error).__qualname__}: {_safe_str(error)} (cannot be sent: {problem})")
        return pickle.dumps((stand_in, text), pickle.HIGHEST_PROTOCOL)
    return body


def load(body: bytes | bytearray | memoryview) -> Any:
    """Unpickle a body. Unpicklable when it does not load here."""
    try:
        return pickle.loads(body)
    except Exception as error:
        raise Unpicklable(f"what a task sent back does not load: {type(error).__name__}: {error}") from error


def _safe_str(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text cannot be made)"


# -- the parent's side: never blocks


class Outbox:
    """Sends to a non-blocking socket; what it does not take at once is kept for ``flush``."""

    __slots__ = ("_left", "_socket")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._left: list[memoryview] = []

    @property
    def pending(self) -> bool:
        """Whether something is left to send."""
        return bool(self._left)

    def send(self, head: bytes, body: bytes) -> bool:
        """Begin to send; whether everything is sent. OSError when the other side is gone."""
        self._left = [memoryview(head), memoryview(body)]
        return self.flush()

    def flush(self) -> bool:
        """Continue to send; whether everything is sent. OSError when the other side is gone."""
        left = self._left
        try:
            while left:
                self._drop(self._socket.sendmsg(left))
        except BlockingIOError:
            return False
        return True

    def _drop(self, sent: int) -> None:
        left = self._left
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


class Inbox:
    """Receives from a non-blocking socket and cuts the stream into reports.

    ended: the child's side is closed.
    """

    __slots__ = ("_buffer", "_socket", "ended")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self.ended = False

    def receive(self) -> list[Report]:
        """The reports that are complete now. Takes a bounded amount, so that one child cannot delay the others."""
        for _ in range(_CHUNKS_PER_TURN):
            try:
                chunk = self._socket.recv(_CHUNK)
            except BlockingIOError:
                break
            except ConnectionResetError:
                self.ended = True
                break
            if not chunk:
                self.ended = True
                break
            self._buffer += chunk
            if len(chunk) < _CHUNK:
                break
        return list(self._cut())

    def drain(self) -> list[Report]:
        """All reports of a child that has exited."""
        reports: list[Report] = []
        while not self.ended:
            before = len(self._buffer)
            fresh = self.receive()
            if not fresh and len(self._buffer) == before:
                break
            reports += fresh
        return reports

    def _cut(self) -> Iterator[Report]:
        buffer = self._buffer
        while len(buffer) >= REPORT_HEAD.size:
            length, kind, job, started_at, ended_at, rss = REPORT_HEAD.unpack_from(buffer)
            end = REPORT_HEAD.size + length
            if len(buffer) < end:
                return
            body = bytes(memoryview(buffer)[REPORT_HEAD.size : end])
            del buffer[:end]
            yield Report(kind, job, started_at, ended_at, rss, body)


# -- the child's side: blocks


def read_task(sock: socket.socket) -> tuple[int, bytearray] | None:
    """Wait for the next task: its job number and body. None: the parent hung up."""
    head = _read(sock, TASK_HEAD.size)
    if head is None:
        return None
    length, job = TASK_HEAD.unpack(head)
    body = _read(sock, length)
    return None if body is None else (job, body)


def _read(sock: socket.socket, count: int) -> bytearray | None:
    data = bytearray(count)
    view = memoryview(data)
    while len(view):
        try:
            got = sock.recv_into(view)
        except ConnectionResetError:
            return None
        if not got:
            return None
        view = view[got:]
    return data


def send_report(sock: socket.socket, kind: int, job: int, started: float, ended: float, rss: int, body: bytes) -> None:
    """Send one report. OSError when the parent is gone."""
    left = [memoryview(REPORT_HEAD.pack(len(body), kind, job, started, ended, rss)), memoryview(body)]
    while left:
        sent = sock.sendmsg(left)
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]
