"""One task at a time, inline in the calling thread: nothing between the worker and the task but a function call.

In the main thread a task may fork, use signals and multiprocessing, and call ``asyncio.run``. The soft limit comes as
SIGALRM, set only around tasks that have one. The hard limit and ``terminate_job`` are for the owner of the process:
only ending the process ends a task that sits in C code, so both call back (``on_hard_timeout`` from a watching
thread, because the main thread is busy). Without ``on_hard_timeout`` the hard limit raises ``HardTimeLimit`` in the
task, which ends Python code only.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from pools import logging_locks
from pools.base import BasePool
from pools.errors import HardTimeLimit, PoolError, SoftTimeLimit
from pools.handle import Handle
from pools.hooks import Target
from pools.traits import TRAITS
from pools.watchdog import Watchdog


class SoloPool(BasePool):
    """Runs each task before ``apply_async`` returns."""

    traits = TRAITS["solo"]

    def __init__(self, limit: int = 1, **options: Any) -> None:
        super().__init__(limit, **options)
        self.current: Handle | None = None
        self._in_task: Handle | None = None
        self._watchdog = Watchdog(self._on_deadline, name="pool-solo-watchdog")

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        outer, self.current = self.current, handle
        try:
            if handle.soft_timeout_seconds is None and handle.timeout_seconds is None:
                self.run(handle, target, args, kwargs)
            else:
                self._run_limited(handle, target, args, kwargs)
        finally:
            self.current = outer

    @property
    def lost_threads(self) -> Sequence[str]:
        return ["watchdog"] if self._watchdog.is_lost else []

    def on_stop(self) -> None:
        self._watchdog.close()
        super().on_stop()

    def on_terminate_job(self, which: Handle | int, signum: int) -> bool:
        handle = self.current
        if handle is None or (which is not handle and which != handle.pid):
            return False
        if self._terminate_job_callback is None:
            raise PoolError(
                "a solo pool cannot end its task from inside",
                hint="end or replace the process, or give on_terminate_job= to be asked to do that",
            )
        self._terminate_job_callback(handle, signum)
        return True

    def _run_limited(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        def within_task() -> Any:
            outer, self._in_task = self._in_task, handle
            try:
                return target(*args, **kwargs)
            finally:
                self._in_task = outer

        hard = handle.timeout_seconds
        by_owner = hard is not None and self._hard_timeout_callback is not None
        if hard is not None and by_owner:
            self._watchdog.watch(handle, time.monotonic() + hard)
        try:
            with self._alarm(handle, handle.soft_timeout_seconds, None if by_owner else hard):
                self.run(handle, within_task, (), {})
        finally:
            self._watchdog.forget(handle)
            logging_locks.release_own()

    def _on_deadline(self, handle: Handle) -> None:
        # Not through notify: the loop's thread is the one that runs the task.
        if not handle.done and self._hard_timeout_callback is not None:
            self._call_back(handle, self._hard_timeout_callback, handle)

    @contextmanager
    def _alarm(self, handle: Handle, soft: float | None, hard: float | None) -> Iterator[None]:
        """Raise in the task at its limits; afterwards SIGALRM and its timer are as they were."""
        if soft is not None and hard is not None and hard <= soft:
            soft = None  # it would come too late
        if soft is None and hard is None:
            yield
            return
        started = time.monotonic()
        on_alarm = self._alarm_handler(handle, soft, hard, started)
        earlier_handler = signal.signal(signal.SIGALRM, on_alarm)
        earlier_left, earlier_interval = signal.setitimer(signal.ITIMER_REAL, soft if soft is not None else hard or 0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, earlier_handler)
            if earlier_left:
                left = max(earlier_left - (time.monotonic() - started), 1e-6)
                signal.setitimer(signal.ITIMER_REAL, left, earlier_interval)

    def _alarm_handler(
        self, handle: Handle, soft: float | None, hard: float | None, started: float
    ) -> Callable[[int, FrameType | None], None]:
        soft_raised = soft is None

        def on_alarm(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
            nonlocal soft_raised
            if self._in_task is not handle:  # the signal came after the task and before the timer was stopped
                return
            if soft_raised:
                raise HardTimeLimit(f"the task ran into its hard time limit of {hard:g} s")
            soft_raised = True
            if hard is not None:
                signal.setitimer(signal.ITIMER_REAL, max(started + hard - time.monotonic(), 1e-6))
            self.on_soft_timeout(handle)
            raise SoftTimeLimit(f"the task reached its soft time limit of {soft:g} s")

        return on_alarm

    def _check_limits(self, soft: float | None, hard: float | None) -> None:
        super()._check_limits(soft, hard)
        needs_alarm = soft is not None or self._hard_timeout_callback is None
        if needs_alarm and threading.current_thread() is not threading.main_thread():
            raise PoolError(
                "a solo pool can raise a time limit in the main thread only",
                hint="call apply_async in the main thread, or use another pool",
            )
