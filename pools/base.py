"""What all pools share: slots, tasks that are given to them, and the states from new to stopped."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from pools.callbacks import SlotCallback
from pools.errors import PoolClosed, PoolError
from pools.handle import AcceptCallback, DoneCallback, Handle
from pools.hooks import PoolHooks, Target
from pools.loop import EventLoop
from pools.options import bounded, check_options, check_time_limits, require
from pools.traits import TRAITS, Traits

__all__ = ["BasePool", "PoolState", "SlotCallback", "Target"]

_NO_KWARGS: Mapping[str, Any] = {}


class PoolState(StrEnum):
    """The states of a pool, in this order. CLOSED: no new work, accepted tasks go on."""

    NEW = "new"
    RUNNING = "running"
    CLOSED = "closed"
    STOPPED = "stopped"


_NEW = PoolState.NEW
_RUNNING = PoolState.RUNNING


class BasePool(PoolHooks):
    """The base of all pools. A pool of your own overrides ``on_apply`` and what else it needs of ``PoolHooks``.

    The class attribute ``traits`` says what the pool can do. Options, limits, resizing and ending of tasks that it
    cannot do are refused with a PoolError. A subclass that overrides nothing runs each task at once in the calling
    thread.

    limit: number of slots.  initializer(*initargs), finalizer(): called in each process where tasks run, before the
    first and after the last task.  on_slot(index, pid, state): called at every change of a slot.
    on_soft_timeout(handle), on_hard_timeout(handle): called when a task reaches a limit; a pool that cannot end its
    tasks from inside leaves the hard limit to this callback.  on_terminate_job(handle, signum): the same for
    ``terminate_job``.
    """

    traits: Traits = TRAITS["custom"]

    def __init__(
        self,
        limit: int = 1,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[Any] = (),
        finalizer: Callable[[], object] | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_per_child_bytes: int | None = None,
        max_age_per_child_seconds: float | None = None,
        start_method: str = "fork",
        on_slot: SlotCallback | None = None,
        on_soft_timeout: DoneCallback | None = None,
        on_hard_timeout: DoneCallback | None = None,
        on_terminate_job: Callable[[Handle, int], object] | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        super().__init__(log=log or logging.getLogger(type(self).__module__), on_slot=on_slot)
        self.limit = limit
        self.initializer = initializer
        self.initargs = tuple(initargs)
        self.finalizer = finalizer
        self.max_tasks_per_child = max_tasks_per_child
        self.max_memory_per_child_bytes = max_memory_per_child_bytes
        self.max_age_per_child_seconds = max_age_per_child_seconds
        self.start_method = start_method
        self.state = PoolState.NEW
        self._soft_timeout_callback = on_soft_timeout
        self._hard_timeout_callback = on_hard_timeout
        self._terminate_job_callback = on_terminate_job
        self._busy = 0
        self._check_options()

    # -- what it is

    @property
    def name(self) -> str:
        """The kind of pool: ``solo``, ``prefork``, …"""
        return self.traits.name

    @property
    def signal_safe(self) -> bool:
        """Whether tasks run in the main thread of a process: they may install signal handlers."""
        return self.traits.signal_safe

    @property
    def is_green(self) -> bool:
        """Whether tasks are greenlets: the program must be patched before anything else is imported."""
        return self.traits.is_green

    @property
    def busy_slots(self) -> int:
        """How many slots run a task."""
        return self._busy + len(self._running_here)

    @property
    def free_slots(self) -> int:
        """How many more tasks would start at once. What to fetch from a broker."""
        return max(0, self.limit - self.busy_slots)

    @property
    def num_processes(self) -> int:
        """How many processes, threads or greenlets run the slots now."""
        return self.limit

    @property
    def info(self) -> dict[str, Any]:
        """Facts for people, with the names that Celery's ``inspect stats`` uses."""
        return {
            "implementation": f"{type(self).__module__}:{type(self).__qualname__}",
            "max-concurrency": self.limit,
            "processes": [os.getpid()],
        }

    @property
    def lost_threads(self) -> Sequence[str]:
        """Names of helper threads that ended although the pool needs them: nobody keeps its limits any more."""
        return ()

    # -- start and end

    def register_with_event_loop(self, loop: EventLoop) -> None:
        """Do all work in the turns of this loop, and call all callbacks in its thread. Before or after ``start``."""
        if self.loop is not None and self.loop is not loop:
            raise PoolError(f"the {self.name} pool is registered with another event loop already")
        self.loop = loop
        self.on_register(loop)

    def start(self) -> None:
        """Make the slots. ``apply_async`` does it when it was not done."""
        if self.state is not _NEW:
            raise PoolError(f"the {self.name} pool was started before", hint="make a new pool with get_pool()")
        self.state = _RUNNING
        self.on_start()

    def close(self) -> None:
        """Accept no new work. Returns at once; what was accepted goes on."""
        if self.state in (_NEW, _RUNNING):
            fresh = self.state is _NEW
            self.state = PoolState.CLOSED
            if not fresh:
                self.on_close()

    def stop(self) -> None:
        """Accept no new work, wait until everything accepted is done, and give up the slots.

        To wait only for running tasks, call ``flush`` before.
        """
        self.close()
        if self.state is not PoolState.STOPPED:
            self.on_stop()
            self.state = PoolState.STOPPED

    def terminate(self) -> None:
        """Give up all slots at once. Running tasks are ended where the pool can do that; see ``traits.terminate``."""
        self.close()
        if self.state is not PoolState.STOPPED:
            self.on_terminate()
            self.state = PoolState.STOPPED

    def __enter__(self) -> Self:
        if self.state is _NEW:
            self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.stop()
        else:
            self.terminate()

    # -- work

    def apply_async(
        self,
        target: Target,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        id: str = "",
        accept_callback: AcceptCallback | None = None,
        callback: DoneCallback | None = None,
        soft_timeout_seconds: float | None = None,
        timeout_seconds: float | None = None,
        expected_seconds: float = 0.0,
    ) -> Handle:
        """Run ``target(*args, **kwargs)`` in a slot.

        accept_callback(pid, monotonic): when a slot takes it, once.  callback(handle): when it is done.
        soft_timeout_seconds: ``SoftTimeLimit`` is raised inside the task.  timeout_seconds: the task is ended.
        expected_seconds: how long it is expected to run, 0.0 where that is not known; see ``quick_seconds``.
        """
        if self.state is not _RUNNING:
            self._wake_up()
        if soft_timeout_seconds is not None or timeout_seconds is not None:
            self._check_limits(soft_timeout_seconds, timeout_seconds)
            soft_timeout_seconds, timeout_seconds = bounded(soft_timeout_seconds), bounded(timeout_seconds)
        handle = Handle(self, id, accept_callback, callback, soft_timeout_seconds, timeout_seconds, expected_seconds)
        self.on_apply(handle, target, args, _NO_KWARGS if kwargs is None else kwargs)
        return handle

    def terminate_job(self, which: Handle | int, signum: int = signal.SIGTERM) -> bool:
        """End a running task, named by its handle or by the pid of its slot; whether there was one to end.

        A handle that has not started is taken back.
        """
        if isinstance(which, Handle) and which.cancel():
            return True
        self._require("terminate", "end a running task")
        return self.state is not _NEW and self.on_terminate_job(which, signum)

    def grow(self, count: int = 1) -> None:
        """Add slots. Running tasks do not notice."""
        self._require("resize", "change its number of slots")
        if count < 1:
            raise ValueError(f"cannot grow by {count} slots")
        if self._is_running():
            self.on_grow(count)
        else:
            self.limit += count

    def shrink(self, count: int = 1) -> None:
        """Give up slots: free ones first, busy ones after their task. At least one slot stays."""
        self._require("resize", "change its number of slots")
        if not 1 <= count < self.limit:
            raise ValueError(f"cannot shrink {self.limit} slots by {count}: at least one must stay")
        if self._is_running():
            self.on_shrink(count)
        else:
            self.limit -= count

    def restart(self) -> None:
        """Put fresh processes in the place of all slots, a few at a time, each after its task."""
        self._require("recycle_tasks", "restart its slots")
        if self._is_running():
            self.on_restart()

    def flush(self) -> list[Handle]:
        """Take back all tasks that have not started; their handles, in order, now cancelled."""
        return []

    def wait(self, handle: Handle, timeout_seconds: float | None = None) -> None:
        """Wait until the handle is done, turning the loop when called in its thread. TimeoutError: not in this time."""
        loop = self.loop
        if loop is None or not loop.in_thread:
            if not handle.waiter().wait(timeout_seconds):
                raise TimeoutError(f"{handle!r} was not done within {timeout_seconds} s")
            return
        end = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        handle.add_done_callback(lambda _: loop.wake())  # it may end in another thread
        while not handle.done:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"{handle!r} was not done within {timeout_seconds} s")
            loop.run_once(left)

    # -- checks

    def _wake_up(self) -> None:
        if self.state is not _NEW:
            raise PoolClosed(f"the {self.name} pool is {self.state} and accepts no new work")
        self.start()

    def _is_running(self) -> bool:
        """Whether there are slots yet. PoolClosed when there are none any more, or soon."""
        if self.state not in (_NEW, _RUNNING):
            raise PoolClosed(f"the {self.name} pool is {self.state}: its slots cannot be changed")
        return self.state is _RUNNING

    def _require(self, capability: str, what: str) -> None:
        require(self.traits, capability, what)

    def _check_limits(self, soft: float | None, hard: float | None) -> None:
        check_time_limits(self.traits, soft, hard)

    def _check_options(self) -> None:
        check_options(
            self.traits,
            limit=self.limit,
            max_tasks_per_child=self.max_tasks_per_child,
            max_memory_per_child_bytes=self.max_memory_per_child_bytes,
            max_age_per_child_seconds=self.max_age_per_child_seconds,
            start_method=self.start_method,
        )
