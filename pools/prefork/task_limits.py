"""Ends the task of a child: at its time limits, on request, or because it uses too much memory."""

from __future__ import annotations

import logging
import signal
import time
from functools import partial
from typing import Protocol

from pools.errors import HardTimeLimit, MemoryLimit, PoolError, Terminated
from pools.handle import Handle
from pools.loop import EventLoop
from pools.prefork.children import Children
from pools.prefork.exit import signal_process
from pools.prefork.memory_watch import MemoryWatch
from pools.prefork.recycle_limits import RecycleLimits
from pools.prefork.slot import Child, Job


class TaskLimitsListener(Protocol):
    """Called in the thread of the loop."""

    def on_soft_timeout(self, handle: Handle) -> None:
        """The task has reached its soft limit."""

    def on_hard_timeout(self, handle: Handle) -> None:
        """The task has reached its hard limit."""


class TaskLimits:
    """Keeps the limits of tasks that run. The handle gets its error when the child has reported or is dead."""

    def __init__(
        self, listener: TaskLimitsListener, children: Children, *, limits: RecycleLimits, log: logging.Logger
    ) -> None:
        self._listener = listener
        self._children = children
        self._memory_bytes = limits.memory_bytes or 0
        self._memory: MemoryWatch | None = None
        if limits.ceiling_bytes is not None:
            self._memory = MemoryWatch(children.alive, limits.ceiling_bytes, self._on_memory_ceiling)
        self._memory_warned = False
        self._log = log

    def move_to(self, loop: EventLoop) -> None:
        """Use this loop from now on."""
        if self._memory is not None:
            self._memory.move_to(loop)

    def begin(self, child: Child, handle: Handle) -> None:
        """The child has begun the task of this handle: watch its limits."""
        if self._memory is not None:
            self._memory.watch_tasks()
        soft, hard = handle.soft_timeout_seconds, handle.timeout_seconds
        if soft is not None and (hard is None or soft < hard):
            self._children.deadlines.set(child, soft, partial(self._on_soft_limit, child))
        elif hard is not None:
            self._children.deadlines.set(child, hard, partial(self._on_hard_limit, child))

    def end_task(self, child: Child, reason: PoolError, signum: int) -> None:
        """End the task with this signal. The first reason is the error its handle gets."""
        if child.job is not None and child.job.reason is None:
            child.job.reason = reason
        self._children.terminate_child(child, signum)

    def end_task_of(self, which: Handle | int, signum: int) -> bool:
        """End the task of this handle, or of the child with this pid; False when there is no such task.

        SIGUSR1 raises ``SoftTimeLimit`` in the task instead of ending it.
        """
        for child in list(self._children.alive):
            if child.job is not None and (child.pid == which or child.job.handle is which):
                if not self._still_runs(child, child.job):
                    return False
                if signum == signal.SIGUSR1:
                    self._on_soft_limit(child)
                else:
                    self.end_task(child, Terminated("the task was ended on request"), signum)
                return True
        return False

    def check_memory(self, child: Child, rss: int) -> None:
        """The child has finished a task and has this many bytes resident: replace it when that is over its limit."""
        limit = child.limits.memory_bytes
        if limit is None or rss <= limit or child.leaving:
            return
        if child.tasks_done == 1 and not self._memory_warned:
            self._memory_warned = True
            self._log.warning(
                "a child uses %d MiB after its first task, more than max_memory_per_child (%d MiB): a fork per task",
                rss >> 20,
                limit >> 20,
            )
        self._children.renew(child.slot)

    def _on_soft_limit(self, child: Child) -> None:
        job = child.job
        if job is None:
            return
        handle = job.handle
        soft = handle.soft_timeout_seconds or time.monotonic() - handle.started_at
        child.write_signal_page(soft=job.number, seconds=soft)
        signal_process(child.pid, signal.SIGUSR1)
        if handle.timeout_seconds is not None:
            left = handle.started_at + handle.timeout_seconds - time.monotonic()
            self._children.deadlines.set(child, max(left, 0.0), partial(self._on_hard_limit, child))
        self._listener.on_soft_timeout(handle)

    def _on_hard_limit(self, child: Child) -> None:
        if child.job is not None and self._still_runs(child, child.job):
            handle = child.job.handle
            limit = HardTimeLimit(f"the task ran into its hard time limit of {handle.timeout_seconds:g} s")
            self.end_task(child, limit, signal.SIGTERM)
            self._listener.on_hard_timeout(handle)

    def _still_runs(self, child: Child, job: Job) -> bool:
        """Whether it has not ended in the meantime; what lay behind it is taken back, and will not die with it."""
        self._children.pipes.recall(child)
        return child.job is job

    def _on_memory_ceiling(self, child: Child, found_bytes: int) -> None:
        self._children.pipes.recall(child)
        found, limit = found_bytes >> 20, self._memory_bytes >> 20
        text = f"the task's process grew to {found} MiB, its limit is {limit} MiB; it was killed"
        self._log.error("slot %d: %s (pid %d)", child.slot.index, text, child.pid)
        self.end_task(child, MemoryLimit(text), signal.SIGKILL)
