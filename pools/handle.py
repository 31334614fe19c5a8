"""The result of one ``apply_async``, there already or still to come."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Protocol

from pools.errors import PoolError, Terminated
from pools.loop import EventLoop


class HandleState(StrEnum):
    """Where a task is. ``done`` means one of the last three."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


_WAITING = HandleState.WAITING
_RUNNING = HandleState.RUNNING
_SUCCEEDED = HandleState.SUCCEEDED
_FAILED = HandleState.FAILED
_CANCELLED = HandleState.CANCELLED

_WAITERS = threading.Lock()
"""Guards ``Handle._event``: two threads that begin to wait for one handle must wait for the same event."""

DoneCallback = Callable[["Handle"], object]
AcceptCallback = Callable[[int, float], object]


class HandleOwner(Protocol):
    """What a handle needs of its pool."""

    loop: EventLoop | None

    def wait(self, handle: Handle, timeout_seconds: float | None = None) -> None:
        """Return when the handle is done. TimeoutError when it takes longer."""

    def notify(self, callback: DoneCallback, handle: Handle) -> None:
        """Call ``callback(handle)`` in the thread of the loop."""

    def on_cancel(self, handle: Handle) -> bool:
        """Take back a handle that has not started; False when it has."""
        ...


class RemoteTraceback(Exception):
    """The traceback of another process as text, shown as the cause of the exception that came from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class Handle:
    """The state and the outcome of one task.

    id: as given by the caller.  slot, pid: where it runs or ran (-1 and 0 before that).  started_at, ended_at:
    ``time.monotonic()``, 0.0 before.  code_began_at: the same, of its code, where that begins after its slot was taken;
    else 0.0.  value: what the task returned.  error: what it raised, or why it was ended.
    expected_seconds: how long it is expected to run; 0.0: not known.
    abandoned: the handle is done, but the task's code still occupies the slot, until the process ends.
    """

    __slots__ = (
        "_callbacks",
        "_event",
        "_remote_traceback",
        "abandoned",
        "accept_callback",
        "code_began_at",
        "ended_at",
        "error",
        "expected_seconds",
        "id",
        "pid",
        "pool",
        "slot",
        "soft_timeout_seconds",
        "started_at",
        "state",
        "timeout_seconds",
        "value",
    )

    def __init__(
        self,
        pool: HandleOwner,
        id: str,
        accept_callback: AcceptCallback | None,
        callback: DoneCallback | None,
        soft_timeout_seconds: float | None,
        timeout_seconds: float | None,
        expected_seconds: float = 0.0,
    ) -> None:
        self.pool = pool
        self.id = id
        self.accept_callback = accept_callback
        self.soft_timeout_seconds = soft_timeout_seconds
        self.timeout_seconds = timeout_seconds
        self.expected_seconds = expected_seconds
        self.slot = -1
        self.pid = 0
        self.abandoned = False
        self.state = _WAITING
        self.started_at = self.code_began_at = self.ended_at = 0.0
        self.value: Any = None
        self.error: BaseException | None = None
        self._callbacks = [] if callback is None else [callback]
        self._event: threading.Event | None = None
        self._remote_traceback = ""

    def __repr__(self) -> str:
        where = f" in slot {self.slot} (pid {self.pid})" if self.pid else ""
        return f"<Handle {self.id or hex(id(self))} {self.state}{where}>"

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state is not _RUNNING and self.state is not _WAITING

    @property
    def traceback(self) -> str:
        """The traceback of ``error`` as text, of the process where it was raised. Empty without an error."""
        if self._remote_traceback or self.error is None:
            return self._remote_traceback
        return "".join(traceback.format_exception(self.error))

    def result(self, timeout_seconds: float | None = None) -> Any:
        """Wait for the end; return what the task returned or raise what ended it. TimeoutError when it takes longer."""
        if not self.done:
            self.pool.wait(self, timeout_seconds)
        if self.error is not None:
            raise self.error
        return self.value

    def cancel(self) -> bool:
        """Take it back if it has not started; whether that came in time. A running task: ``pool.terminate_job``."""
        return self.state is _WAITING and self.pool.on_cancel(self)

    def add_done_callback(self, callback: DoneCallback) -> None:
        """Call ``callback(handle)`` at the end, in the loop's thread when the pool is registered with a loop."""
        self._callbacks.append(callback)
        if self.done:
            # Behind what another thread has handed to the loop already: the accept callback, say.
            loop = self.pool.loop
            if loop is None or loop.closed:
                self._call_all()
            else:
                loop.call_soon_threadsafe(self._call_all)

    @property
    def run_seconds(self) -> float:
        """How long its code ran, once it is done; 0.0 where it did not start."""
        return self.ended_at - (self.code_began_at or self.started_at) if self.started_at else 0.0

    # -- for pools

    def begin(self, slot: int, pid: int, now: float) -> None:
        """It runs from now on."""
        self.slot = slot
        self.pid = pid
        self.started_at = now
        self.state = _RUNNING

    def put_back(self) -> None:
        """It did not begin after all."""
        self.slot = -1
        self.pid = 0
        self.started_at = 0.0
        self.state = _WAITING

    def succeed(self, value: Any, now: float) -> None:
        """It returned."""
        self.value = value
        self._end(_SUCCEEDED, now)

    def fail(self, error: BaseException, now: float, *, remote_traceback: str = "") -> None:
        """It raised, or was ended."""
        self.error = error
        if remote_traceback:
            self._remote_traceback = remote_traceback
            error.__cause__ = RemoteTraceback(remote_traceback)
        self._end(_FAILED, now)

    def withdraw(self, now: float, error: PoolError | None = None) -> None:
        """It never started and never will."""
        self.error = error or Terminated("the task was taken back before it started")
        self._end(_CANCELLED, now)

    def waiter(self) -> threading.Event:
        """An event that is set at the end; made on demand, because most handles are never waited for."""
        with _WAITERS:
            event = self._event = self._event or threading.Event()
        if self.done:
            event.set()
        return event

    def _end(self, state: HandleState, now: float) -> None:
        self.ended_at = now
        self.state = state
        if self._event is not None:
            self._event.set()
        if self._callbacks:
            self.pool.notify(Handle._call_all, self)

    def _call_all(self) -> None:
        # Taking each callback off the list is atomic, so each one is called once whatever thread is faster.
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:
                return
            self.pool.notify(callback, self)
