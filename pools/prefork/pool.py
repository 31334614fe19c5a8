"""The prefork pool: tasks for the children of a crew, their limits, their ends.

Everything happens in one thread: that of the event loop it is registered with, or else a thread of its own.
"""

from __future__ import annotations

import atexit
import gc
import itertools
import os
import signal
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pools.base import BasePool, PoolState, Target
from pools.errors import HardTimeLimit, MemoryLimit, PoolError, SlotLost, Terminated
from pools.handle import Handle
from pools.loop import EventLoop
from pools.prefork.child import ChildOptions, ForkOptions
from pools.prefork.children import Children
from pools.prefork.exit import exit_text, signal_process
from pools.prefork.loop_thread import LoopThread
from pools.prefork.memory_watch import MemoryWatch
from pools.prefork.protocol import RESULT, Report, dump_task, load
from pools.prefork.recycle_limits import RecycleLimits
from pools.prefork.slot import Child, ChildState, Job
from pools.traits import TRAITS

T = TypeVar("T")

MOST_TRIES = 3
"""How often a task may be given to another child because one died without having read it."""


class PreforkPool(BasePool):
    """One child process per slot.

    start_method: ``fork``, ``spawn`` (each child a fresh interpreter) or ``forkserver`` (children forked from one fresh
    interpreter that has run nothing).  preload: what such an interpreter imports, once; with the last two, it and the
    initializer travel.  private_fds: names descriptors that forked children must not share with the parent; asked for
    in each child.  title: of the children's processes, with ``slot N`` behind it.
    """

    traits = TRAITS["prefork"]

    def __init__(
        self,
        limit: int = 1,
        *,
        preload: Callable[[], object] | None = None,
        private_fds: Callable[[], Iterable[int]] | None = None,
        title: str = "",
        **options: Any,
    ) -> None:
        super().__init__(limit, **options)
        limits = RecycleLimits(
            self.max_tasks_per_child, self.max_age_per_child_seconds, self.max_memory_per_child_bytes
        )
        child_options = ChildOptions(
            initializer=self.initializer,
            initargs=self.initargs,
            finalizer=self.finalizer,
            preload=preload,
            title=title,
            report_memory=limits.memory_bytes is not None,
        )
        self._children = Children(
            self,
            child_options,
            ForkOptions(private_fds=private_fds),
            start_method=self.start_method,
            limits=limits,
            log=self.log,
        )
        self._memory: MemoryWatch | None = None
        if limits.ceiling_bytes is not None:
            self._memory = MemoryWatch(self._children.children, limits.ceiling_bytes, self._on_memory_ceiling)
        self._loop_thread: LoopThread | None = None
        self._numbers = itertools.count(1)
        self._waiting: deque[Job] = deque()
        self._idle: list[Child] = []
        self._empty = threading.Event()
        self._memory_warned = False

    # -- what it is

    @property
    def free_slots(self) -> int:
        return max(0, len(self._idle) - len(self._waiting))

    @property
    def num_processes(self) -> int:
        return len(self._children.children)

    @property
    def info(self) -> dict[str, Any]:
        children = sorted(self._children.children, key=lambda child: (child.slot.index, child.pid))
        return {
            **super().info,
            "processes": [child.pid for child in children],
            "max-tasks-per-child": self.max_tasks_per_child or "N/A",
            "max-memory-per-child": self.max_memory_per_child_bytes or "N/A",
            "max-age-per-child": self.max_age_per_child_seconds or "N/A",
            "start-method": self.start_method,
            "slots": [
                {"index": child.slot.index, "pid": child.pid, "state": str(child.state), "tasks": child.tasks_done}
                for child in children
            ],
        }

    # -- life

    def on_register(self, loop: EventLoop) -> None:
        if self._loop_thread is not None:
            self._loop_thread.stop()
            self._loop_thread = None
        self._children.move_to(loop)
        if self._memory is not None:
            self._memory.wake(loop)
        self._dispatch()

    def on_start(self) -> None:
        if self.loop is None:
            self._loop_thread = LoopThread(name="pool-prefork")
            self.loop = self._loop_thread.loop
            self._children.move_to(self.loop)
            self._loop_thread.start()
        _RUNNING_POOLS.add(self)
        gc.collect()  # children must not inherit garbage
        self._in_loop(partial(self._children.open, self.limit))

    def register_with_event_loop(self, loop: EventLoop) -> None:
        if self._loop_thread is not None:
            self.loop = None
        super().register_with_event_loop(loop)

    def on_close(self) -> None:
        self._post(self._leave_if_done)

    def on_stop(self) -> None:
        self._await_end()

    def on_terminate(self) -> None:
        if self._unattended:
            self._children.kill_all()
            return
        self._in_loop(self._end_everything)
        self._await_end()

    @property
    def _unattended(self) -> bool:
        """Nobody will turn the loop any more."""
        return self.loop is not None and self.loop.closed

    def _leave_if_done(self) -> None:
        if self.state is not PoolState.RUNNING and not self._waiting:
            self._children.dismiss()
        if self.state is not PoolState.RUNNING and not self._children.children and not self._waiting:
            self._empty.set()

    def _end_everything(self) -> None:
        self.flush()
        self._children.dismiss()
        for child in list(self._children.children):
            if child.job is not None:
                self._end_task(child, Terminated("the pool was terminated"), signal.SIGTERM)
            elif child.state is not ChildState.RETIRING:
                self._children.end(child, signal.SIGKILL)

    def _await_end(self) -> None:
        loop = self.loop
        if loop is None:  # never started
            return
        if self._unattended:
            self._children.kill_all()
        elif loop.in_thread:
            self._leave_if_done()
            while not self._empty.is_set():
                loop.run_once()
        else:
            self._post(self._leave_if_done)
            self._empty.wait()
        self._in_loop(self._children.close)
        if self._loop_thread is not None:
            self._loop_thread.stop()
        _RUNNING_POOLS.discard(self)

    # -- work

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        try:
            body = dump_task(target, args, kwargs)
        except PoolError as error:
            handle.fail(error, time.monotonic())
            return
        self._waiting.append(Job(next(self._numbers), handle, body))
        loop = self.loop
        assert loop is not None
        if loop.in_thread:
            self._dispatch()
        else:
            loop.call_soon_threadsafe(self._dispatch)

    def on_cancel(self, handle: Handle) -> bool:
        return self._in_loop(partial(self._withdraw, handle))

    def flush(self) -> list[Handle]:
        return self._in_loop(self._withdraw_all) if self.loop is not None else []

    def on_terminate_job(self, which: Handle | int, signum: int) -> bool:
        return self._in_loop(partial(self._terminate_job, which, signum))

    def on_grow(self, count: int) -> None:
        self.limit += count
        self._in_loop(partial(self._children.add_slots, count))

    def on_shrink(self, count: int) -> None:
        self.limit -= count
        self._in_loop(partial(self._children.drop_slots, count))

    def on_restart(self) -> None:
        self._in_loop(self._children.renew)

    def _dispatch(self) -> None:
        while self._waiting and self._idle:
            self._assign(self._idle.pop(), self._waiting.popleft())

    def _assign(self, child: Child, job: Job) -> None:
        handle = job.handle
        now = time.monotonic()
        try:
            self._children.send(child, job)
        except OSError:  # it is gone, and its death will be told in a moment
            self._waiting.appendleft(job)
            return
        child.take(job)
        self._busy += 1
        handle.begin(child.slot.index, child.pid, now)
        self._children.become(child, ChildState.BUSY)
        if self._memory is not None and self.loop is not None:
            self._memory.wake(self.loop)
        soft, hard = handle.soft_timeout_seconds, handle.timeout_seconds
        if soft is not None and (hard is None or soft < hard):
            self._children.deadlines.set(child, soft, partial(self._soften, child))
        elif hard is not None:
            self._children.deadlines.set(child, hard, partial(self._expire, child))
        if handle.accept_callback is not None:
            self.accepted(handle, now)
        if child.spent:
            self._children.prepare_spare(child.slot)

    def _withdraw(self, handle: Handle) -> bool:
        for job in self._waiting:
            if job.handle is handle:
                self._waiting.remove(job)
                handle.withdraw(time.monotonic())
                self._leave_if_done()
                return True
        return False

    def _withdraw_all(self) -> list[Handle]:
        handles = [job.handle for job in self._waiting]
        self._waiting.clear()
        now = time.monotonic()
        for handle in handles:
            handle.withdraw(now)
        self._leave_if_done()
        return handles

    # -- limits and ends

    def _soften(self, child: Child) -> None:
        job = child.job
        if job is None:
            return
        handle = job.handle
        soft = handle.soft_timeout_seconds or time.monotonic() - handle.started_at
        child.post(soft=job.number, seconds=soft)
        signal_process(child.pid, signal.SIGUSR1)
        if handle.timeout_seconds is not None:
            left = handle.started_at + handle.timeout_seconds - time.monotonic()
            self._children.deadlines.set(child, max(left, 0.0), partial(self._expire, child))
        self.on_soft_timeout(handle)

    def _expire(self, child: Child) -> None:
        if child.job is not None:
            handle = child.job.handle
            limit = HardTimeLimit(f"the task ran into its hard time limit of {handle.timeout_seconds:g} s")
            self._end_task(child, limit, signal.SIGTERM)
            self.on_hard_timeout(handle)

    def _terminate_job(self, which: Handle | int, signum: int) -> bool:
        for child in self._children.children:
            if child.job is not None and (child.pid == which or child.job.handle is which):
                if signum == signal.SIGUSR1:
                    self._soften(child)
                else:
                    self._end_task(child, Terminated("the task was ended on request"), signum)
                return True
        return False

    def _end_task(self, child: Child, reason: PoolError, signum: int) -> None:
        if child.job is not None and child.job.reason is None:
            child.job.reason = reason
        self._children.end(child, signum)

    # -- what the crew tells

    def on_ready(self, child: Child) -> None:
        self._idle.append(child)
        self._dispatch()

    def on_unready(self, child: Child) -> None:
        if child in self._idle:
            self._idle.remove(child)

    def on_report(self, child: Child, report: Report) -> None:
        if child.job is None or child.job.number != report.job:
            self.log.error("slot %d: child %d reports a job it has not: %r", child.slot.index, child.pid, report[:2])
            return
        job = child.give_up_job()
        self._busy -= 1
        limit = child.limits.memory_bytes
        if limit is not None and report.rss > limit and not child.leaving:
            self._on_memory_limit(child, report.rss, limit)
        self._children.settle(child)  # first the next task, then the news of this one
        self._complete(job, report)
        self._leave_if_closing()

    def on_dead(self, child: Child, exit_code: int | None) -> None:
        if child.job is not None:
            job = child.give_up_job()
            self._busy -= 1
            self._on_death(child, job, exit_code)
        self._leave_if_closing()

    def on_start_failed(self, problem: str) -> None:
        if self.state is not PoolState.RUNNING and not any(child.job for child in self._children.children):
            now = time.monotonic()
            while self._waiting:
                self._waiting.popleft().handle.withdraw(now, SlotLost(f"no slot could be started: {problem}"))
            self._leave_if_done()

    def _complete(self, job: Job, report: Report) -> None:
        handle = job.handle
        handle.started_at = report.started_at
        try:
            value = load(report.body)
        except PoolError as error:
            handle.fail(error, report.ended_at)
            return
        if report.kind == RESULT:
            handle.succeed(value, report.ended_at)
        else:
            raised, text = value
            handle.fail(job.reason or raised, report.ended_at, remote_traceback=text)

    def _on_death(self, child: Child, job: Job, exit_code: int | None) -> None:
        handle = job.handle
        job.tries += 1
        if child.inbox.unread and job.reason is None and job.tries < MOST_TRIES:
            # It died without having read all of the task: the task never began, and another child may have it.
            handle.put_back()
            self._waiting.appendleft(job)
            self._dispatch()
            return
        died = f"slot {child.slot.index} (pid {child.pid}) died while it ran the task: {exit_text(exit_code)}"
        hint = "nobody here killed it: ask the kernel's log for an out-of-memory kill" if exit_code == -9 else ""
        handle.fail(job.reason or SlotLost(died, hint=hint, exit_code=exit_code), time.monotonic())

    def _on_memory_limit(self, child: Child, rss: int, limit: int) -> None:
        if child.tasks_done == 1 and not self._memory_warned:
            self._memory_warned = True
            self.log.warning(
                "a child uses %d MiB after its first task, more than max_memory_per_child (%d MiB): a fork per task",
                rss >> 20,
                limit >> 20,
            )
        self._children.replace_soon(child.slot)

    def _on_memory_ceiling(self, child: Child, found: int) -> None:
        limit = self.max_memory_per_child_bytes or 0
        text = f"the task's process grew to {found >> 20} MiB, its limit is {limit >> 20} MiB; it was killed"
        self.log.error("slot %d: %s (pid %d)", child.slot.index, text, child.pid)
        self._end_task(child, MemoryLimit(text), signal.SIGKILL)

    def _leave_if_closing(self) -> None:
        if self.state is not PoolState.RUNNING:
            self._leave_if_done()

    # -- the thread of the loop

    def _post(self, call: Callable[[], object]) -> None:
        loop = self.loop
        if loop is None or loop.closed:
            return
        if loop.in_thread:
            call()
        else:
            loop.call_soon_threadsafe(call)

    def _in_loop(self, call: Callable[[], T]) -> T:
        """Call in the loop's thread and wait for it. From another thread this needs the loop to be turning."""
        loop = self.loop
        assert loop is not None
        if loop.in_thread or loop.closed:
            return call()
        outcome: list[T | BaseException] = []
        done = threading.Event()

        def run_task() -> None:
            try:
                outcome.append(call())
            except BaseException as error:
                outcome.append(error)
            finally:
                done.set()

        loop.call_soon_threadsafe(run_task)
        done.wait()
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]


_RUNNING_POOLS: weakref.WeakSet[PreforkPool] = weakref.WeakSet()
_OWNER = os.getpid()


@atexit.register
def _terminate_running_pools() -> None:
    """A program that forgot to stop its pools ends at once all the same, and orderly."""
    for pool in list(_RUNNING_POOLS) if os.getpid() == _OWNER else ():
        if pool._loop_thread is not None or (pool.loop is not None and pool.loop.in_thread):
            pool.terminate()
        else:  # its loop belongs to a thread that will not turn it any more
            pool._children.kill_all()


def _forget_inherited_pools() -> None:
    global _OWNER
    _OWNER = os.getpid()
    _RUNNING_POOLS.clear()


os.register_at_fork(after_in_child=_forget_inherited_pools)
