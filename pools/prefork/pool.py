"""The prefork pool: gives tasks to its children and completes their handles.

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pools.base import BasePool, PoolState
from pools.errors import PoolError, SlotLost, Terminated
from pools.handle import Handle
from pools.hooks import Target
from pools.loop import EventLoop
from pools.prefork.child import ChildOptions, ForkOptions
from pools.prefork.children import Children
from pools.prefork.exit import exit_text
from pools.prefork.hands import Hands
from pools.prefork.loop_thread import LoopThread, call_in_loop, post_to_loop
from pools.prefork.protocol import RESULT, Report, dump_task, load
from pools.prefork.recycle_limits import RecycleLimits
from pools.prefork.slot import Child, ChildState, Job
from pools.prefork.task_limits import TaskLimits
from pools.prefork.waiting import WaitingJobs
from pools.traits import TRAITS

T = TypeVar("T")


class PreforkPool(BasePool):
    """One child process per slot.

    start_method: ``fork``, ``spawn`` (each child a fresh interpreter) or ``forkserver`` (children forked from one fresh
    interpreter that has run nothing).  preload: what such an interpreter imports, once; with the last two, it and the
    initializer travel.  private_fds: names descriptors that forked children must not share with the parent; asked for
    in each child.  title: of the children's processes, with ``slot N`` behind it.  on_lifecycle: told of each start.
    """

    traits = TRAITS["prefork"]

    def __init__(
        self,
        limit: int = 1,
        *,
        preload: Callable[[], object] | None = None,
        private_fds: Callable[[], Iterable[int]] | None = None,
        title: str = "",
        on_lifecycle: Callable[..., object] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(limit, **options)
        self._tell = partial(_tell, self, on_lifecycle)
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
            on_start=partial(self._tell, "before_create_process"),
        )
        self._task_limits = TaskLimits(self, self._children, limits=limits, log=self.log)
        hands = self._hands = Hands(self._children, self._task_limits, accepted=self.accepted)
        self.on_begun, self.on_not_begun, self.on_taken_back = hands.on_begun, hands.on_not_begun, hands.on_taken_back
        self._waiting = self._hands.waiting
        self._numbers = itertools.count(1)
        self._loop_thread: LoopThread | None = None
        self._empty = threading.Event()

    # -- what it is

    @property
    def free_slots(self) -> int:
        return self._waiting.free_slots

    @property
    def busy_slots(self) -> int:
        return self._hands.busy

    @property
    def room_for_quick(self) -> int:
        return self._hands.room_for_quick

    @property
    def quick_seconds(self) -> float:
        return self._waiting.quick_seconds

    @quick_seconds.setter
    def quick_seconds(self, seconds: float) -> None:
        self._waiting.quick_seconds = seconds

    @property
    def num_processes(self) -> int:
        return len(self._children.alive)

    @property
    def info(self) -> dict[str, Any]:
        children = sorted(self._children.alive, key=lambda child: (child.slot.index, child.pid))
        return {
            **super().info,
            "processes": [child.pid for child in children],
            "max-tasks-per-child": self.max_tasks_per_child or "N/A",
            "max-memory-per-child": self.max_memory_per_child_bytes or "N/A",
            "max-age-per-child": self.max_age_per_child_seconds or "N/A",
            "start-method": self.start_method,
            "slots": [child.describe() for child in children],
        }

    # -- start and end

    def register_with_event_loop(self, loop: EventLoop) -> None:
        if self._loop_thread is not None:
            self.loop = None
        super().register_with_event_loop(loop)

    def on_register(self, loop: EventLoop) -> None:
        if self._loop_thread is not None:
            self._loop_thread.stop()
            self._loop_thread = None
        self._move_to(loop)
        self._waiting.assign_jobs()

    def on_start(self) -> None:
        if self.loop is None:
            self._loop_thread = LoopThread(name="pool-prefork")
            self.loop = self._loop_thread.loop
            self._move_to(self.loop)
            self._loop_thread.start()
        _RUNNING_POOLS.add(self)
        gc.collect()  # children must not inherit garbage
        call_in_loop(self.loop, partial(self._children.open, self.limit))

    def on_close(self) -> None:
        post_to_loop(self.loop, self._finish_closing)

    def on_terminate(self) -> None:
        if self.loop is not None and not self.loop.closed:
            self._in_loop(self._end_everything)
        self.on_stop()

    def _move_to(self, loop: EventLoop) -> None:
        self._children.move_to(loop)
        self._task_limits.move_to(loop)
        self._hands.move_to(loop)

    def _finish_closing(self) -> None:
        """Give up the slots of a pool that is closed and has nothing waiting; set ``_empty`` when all are gone."""
        if self.state is PoolState.RUNNING or self._waiting or self._hands.holds_behind:
            return
        self._children.drop_all_slots()
        if not self._children.alive:
            self._empty.set()

    def _end_everything(self) -> None:
        self.flush()
        self._children.drop_all_slots()
        for child in list(self._children.alive):
            if child.job is not None:
                self._task_limits.end_task(child, Terminated("the pool was terminated"), signal.SIGTERM)
            elif child.state is not ChildState.RETIRING:
                self._children.terminate_child(child, signal.SIGKILL)

    def on_stop(self) -> None:
        loop = self.loop
        if loop is None:  # never started
            return
        if loop.closed:  # the loop does not run any more
            self._children.kill_all()
        elif loop.in_thread:
            self._finish_closing()
            while not self._empty.is_set():
                loop.run_once()
        else:
            post_to_loop(loop, self._finish_closing)
            self._empty.wait()
        call_in_loop(loop, self._children.close)
        if self._loop_thread is not None:
            self._loop_thread.stop()
        _RUNNING_POOLS.discard(self)

    def end_with_program(self) -> None:
        """The program ends and has not stopped the pool: end all children now."""
        if self._loop_thread is not None or (self.loop is not None and self.loop.in_thread):
            self.terminate()
        else:  # its loop belongs to a thread that will not run it any more
            self._children.kill_all()

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
            self._waiting.assign_jobs()
        else:
            loop.call_soon_threadsafe(self._waiting.assign_jobs)

    def on_cancel(self, handle: Handle) -> bool:
        return bool(self.take_back((handle,)))

    def take_back(self, handles: Sequence[Handle]) -> list[Handle]:
        withdrawn = self._in_loop(partial(self._hands.withdraw, handles))
        post_to_loop(self.loop, self._finish_closing)
        return withdrawn

    def flush(self) -> list[Handle]:
        return self._in_loop(self._withdraw_all) if self.loop is not None else []

    def on_terminate_job(self, which: Handle | int, signum: int) -> bool:
        return self._in_loop(partial(self._task_limits.end_task_of, which, signum))

    def on_grow(self, count: int) -> None:
        self.limit += count
        self._in_loop(partial(self._children.add_slots, count))

    def on_shrink(self, count: int) -> None:
        self.limit -= count
        self._in_loop(partial(self._children.drop_slots, count))

    def on_restart(self) -> None:
        self._in_loop(self._children.renew_all)

    def _withdraw_all(self, error: PoolError | None = None) -> list[Handle]:
        handles = self._hands.withdraw_all(error)
        self._finish_closing()
        return handles

    def _in_loop(self, call: Callable[[], T]) -> T:
        assert self.loop is not None
        return call_in_loop(self.loop, call)

    # -- called by the children

    def on_ready(self, child: Child) -> None:
        self._waiting.add_idle(child)

    def on_unready(self, child: Child) -> None:
        self._waiting.remove_idle(child)

    def on_report(self, child: Child, report: Report) -> None:
        if child.job is None or child.job.number != report.job:
            self.log.error("slot %d: child %d reports a job it has not: %r", child.slot.index, child.pid, report[:2])
            return
        job = child.end_job()
        self._hands.busy -= 1
        if report.rss:
            self._task_limits.check_memory(child, report.rss)
        self._children.after_task(child)  # first the next task, then the callbacks of this one
        _complete(job, report)
        if self.state is not PoolState.RUNNING:
            self._finish_closing()

    def on_dead(self, child: Child, exit_code: int | None) -> None:
        if child.job is not None:
            job = child.end_job()
            self._hands.busy -= 1
            _end_with_child(self._waiting, child, job, exit_code=exit_code)
        self._finish_closing()

    def on_start_failed(self, problem: str, *, attempts: int) -> None:
        self._tell("start_failed", problem=problem, attempts=attempts)
        if self.state is not PoolState.RUNNING and not any(child.job for child in self._children.alive):
            self._withdraw_all(SlotLost(f"no slot could be started: {problem}"))


def _end_with_child(waiting: WaitingJobs, child: Child, job: Job, *, exit_code: int | None) -> None:
    """The child died with this job."""
    handle = job.handle
    if child.died_before_beginning and job.reason is None:
        # It died before it began the task: another child may have it.
        handle.put_back()
        waiting.put_back([job])
        waiting.assign_jobs()
        return
    handle.fail(job.reason or _lost(child, exit_code), time.monotonic())


def _complete(job: Job, report: Report) -> None:
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


def _tell(pool: PreforkPool, on_lifecycle: Callable[..., object] | None, what: str, **facts: Any) -> None:
    """``before_create_process`` before each child, ``start_failed`` with ``problem`` and ``attempts``."""
    if on_lifecycle is None:
        return
    try:
        on_lifecycle(what, pool, **facts)
    except Exception:
        pool.log.exception("on_lifecycle failed for %r", what)


def _lost(child: Child, exit_code: int | None) -> SlotLost:
    died = f"slot {child.slot.index} (pid {child.pid}) died while it ran the task: {exit_text(exit_code)}"
    hint = "the pool did not kill it: look in the kernel's log for an out-of-memory kill" if exit_code == -9 else ""
    return SlotLost(died, hint=hint, exit_code=exit_code)


_RUNNING_POOLS: weakref.WeakSet[PreforkPool] = weakref.WeakSet()
_OWNER = os.getpid()


@atexit.register
def _end_with_program() -> None:
    """A program that forgot to stop its pools ends at once all the same, and orderly."""
    for pool in list(_RUNNING_POOLS) if os.getpid() == _OWNER else ():
        pool.end_with_program()


def _forget_inherited_pools() -> None:
    global _OWNER
    _OWNER = os.getpid()
    _RUNNING_POOLS.clear()


os.register_at_fork(after_in_child=_forget_inherited_pools)
