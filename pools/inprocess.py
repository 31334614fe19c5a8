"""Tasks that share one process, in threads or on an event loop, and can be ended only by an exception.

At the soft limit ``SoftTimeLimit`` is raised inside the task. At the hard limit, and by ``terminate_job``, ``Killed``
is raised in the same way, and the task has ``GRACE_SECONDS`` to end: its handle fails with ``HardTimeLimit`` or
``Terminated``, whatever the task makes of it. A task that does not end, because it sits in C code or swallows the
exception, is abandoned: its handle fails, ``handle.abandoned`` is set, ``on_hard_timeout`` is called (from a watching
thread), and its slot stays busy until its code returns. Only the end of the process ends such a task, so the owner
replaces it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pools.base import BasePool
from pools.errors import HardTimeLimit, Killed, PoolError, SoftTimeLimit, Terminated
from pools.handle import Handle
from pools.hooks import Target
from pools.watchdog import Watchdog

Job = tuple[Target, Sequence[Any], Mapping[str, Any]]
Interrupt = Callable[[SoftTimeLimit | Killed], object]

GRACE_SECONDS = 1.0
"""Seconds a task may take to end after ``Killed`` was raised in it."""

THIS_THREAD = threading.local()
"""``THIS_THREAD.run``: the run whose code this thread executes, None or missing without one."""


class Run:
    """A task in its slot.

    interrupt(error): raise it inside the task, from any thread; it may come too late.  end_reason: the error the handle
    gets, whatever the task itself returns or raises.  soft_raised: whether its soft limit was reached.
    """

    __slots__ = ("end_reason", "handle", "interrupt", "soft_raised")

    def __init__(self, handle: Handle, interrupt: Interrupt) -> None:
        self.handle = handle
        self.interrupt = interrupt
        self.soft_raised = False
        self.end_reason: PoolError | None = None


class InProcessPool(BasePool):
    """Keeps the tasks that wait and those that run, and ends them. Subclasses bring tasks to slots."""

    def __init__(self, limit: int = 1, **options: Any) -> None:
        super().__init__(limit, **options)
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Handle, Job] = OrderedDict()
        self._runs: dict[Handle, Run] = {}
        self._watchdog = Watchdog(self._on_deadline, name=f"pool-{self.name}-watchdog")

    @property
    def free_slots(self) -> int:
        return max(0, self.limit - self._busy - len(self._waiting))

    @property
    def lost_threads(self) -> Sequence[str]:
        return ["watchdog"] if self._watchdog.is_lost else []

    def on_cancel(self, handle: Handle) -> bool:
        with self._lock:
            if self._waiting.pop(handle, None) is None:
                return False
        handle.withdraw(time.monotonic())
        return True

    def flush(self) -> list[Handle]:
        return [handle for handle in list(self._waiting) if self.on_cancel(handle)]

    def on_terminate_job(self, which: Handle | int, signum: int) -> bool:  # noqa: ARG002
        # A pid names no slot here: all of them have the same.
        run = self._runs.get(which) if isinstance(which, Handle) else None
        return run is not None and self._request_end(run, Terminated("the task was ended on request"))

    def on_terminate(self) -> None:
        self.flush()
        runs = list(self._runs.values())
        for run in runs:
            self._request_end(run, Terminated("the pool was terminated while the task ran"))
        end = time.monotonic() + GRACE_SECONDS
        for run in runs:
            with suppress(TimeoutError):
                self.wait(run.handle, max(0.0, end - time.monotonic()))
        for run in runs:
            self._abandon(run)
        self._watchdog.close()
        self._turn_loop()

    def _turn_loop(self) -> None:
        """Let callbacks that other threads have handed to the loop of this thread be called."""
        loop = self.loop
        if loop is not None and loop.in_thread and not loop.closed:
            loop.run_once(0)

    # -- one task

    def _begin(self, slot: int, run: Run) -> None:
        """The task begins. ``_busy`` and ``_runs`` count it already."""
        handle, pid, now = run.handle, os.getpid(), time.monotonic()
        handle.begin(slot, pid, now)
        if (deadline := _first_deadline(handle)) is not None:
            self._watchdog.watch(handle, deadline)
        if handle.accept_callback is not None:
            self.accepted(handle, now)
        self.tell_slot(slot, pid, "busy")

    def _end(self, run: Run, value: Any, failure: BaseException | None) -> None:
        """The task's code has returned or raised, and its slot is free."""
        handle = run.handle
        self._watchdog.forget(handle)
        with self._lock:
            self._busy -= 1
            told = self._runs.pop(handle, None) is None
        if told:
            self.log.warning("%r has returned after all; its result is dropped", handle)
        elif run.end_reason is not None:
            self._fail(run)
        elif failure is None:
            handle.succeed(value, time.monotonic())
        else:
            if isinstance(failure, SoftTimeLimit) and run.soft_raised:
                failure.args = (_soft_limit_of(handle),)  # an exception raised in a thread comes without its text
            handle.fail(failure, time.monotonic())

    # -- its limits, and its end on request

    def _on_deadline(self, handle: Handle) -> None:
        """In the watching thread: a deadline has passed."""
        run = self._runs.get(handle)
        if run is None:
            return
        hard = handle.timeout_seconds
        if run.end_reason is not None:
            self._abandon(run)
        elif hard is not None and time.monotonic() >= handle.started_at + hard:
            self._request_end(run, HardTimeLimit(f"the task ran into its hard time limit of {hard:g} s"))
        else:
            self._raise_soft_limit(run)

    def _raise_soft_limit(self, run: Run) -> None:
        handle = run.handle
        run.soft_raised = True
        if handle.timeout_seconds is not None:
            self._watchdog.watch(handle, handle.started_at + handle.timeout_seconds)
        run.interrupt(SoftTimeLimit(_soft_limit_of(handle)))
        self.on_soft_timeout(handle)

    def _request_end(self, run: Run, end_reason: PoolError) -> bool:
        """Raise it inside the task, which must end now; False when it has ended already."""
        with self._lock:
            if run.handle not in self._runs:
                return False
            if run.end_reason is not None:
                return True
            run.end_reason = end_reason
        self._watchdog.watch(run.handle, time.monotonic() + GRACE_SECONDS)
        run.interrupt(Killed(str(end_reason)))
        return True

    def _abandon(self, run: Run) -> None:
        """Fail the handle of a task that does not end. Its run leaves ``_runs``, so nothing else completes it."""
        with self._lock:
            if self._runs.pop(run.handle, None) is None:
                return
        run.handle.abandoned = True
        self.on_abandon(run.handle)
        self._fail(run)

    def _fail(self, run: Run) -> None:
        assert run.end_reason is not None
        run.handle.fail(run.end_reason, time.monotonic())
        if isinstance(run.end_reason, HardTimeLimit):
            self.on_hard_timeout(run.handle)

    def on_abandon(self, handle: Handle) -> None:
        """The code of this task may occupy its slot until the process ends."""


def _first_deadline(handle: Handle) -> float | None:
    soft, hard = handle.soft_timeout_seconds, handle.timeout_seconds
    if soft is None and hard is None:
        return None
    return handle.started_at + min(seconds for seconds in (soft, hard) if seconds is not None)


def _soft_limit_of(handle: Handle) -> str:
    return f"the task reached its soft time limit of {handle.soft_timeout_seconds:g} s"
