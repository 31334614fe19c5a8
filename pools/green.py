"""What gevent and eventlet pools share: one greenlet per task, all in one thread.

A task runs until it waits for something; then the others run. How limits and ``terminate_job`` reach a task, and which
task they do not reach, is told in :mod:`pools.green_limits`. A killed task is reported once, with the reason of its
end, and not with what its code made of that.
"""

from __future__ import annotations

import heapq
import itertools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from greenlet import getcurrent

from pools import logging_locks
from pools.base import BasePool
from pools.errors import Terminated
from pools.green_limits import Cancel, GreenLimits, GreenRun, perform
from pools.handle import DoneCallback, Handle
from pools.hooks import Target
from pools.patching import require_patched, unpatched

FIRST_PID = 1 << 30
"""Slots have numbers in the place of pids, far above every real one, so that a signal sent there reaches no process."""

_TERMINATE_SECONDS = 1.0
_WITH_NEW_HUBS: set[type] = set()
"""Pools whose forked children have been seen to."""


class GreenPool(BasePool):
    """The base of both pools. What the libraries do in their own ways stands at its end.

    on_blocked(handle): a task blocks the whole process and cannot be ended; called in a native thread, at most once.
    patience_seconds: how long a task that was told to end may go on before it is given up.
    """

    patience_seconds = 5.0

    def __init__(self, limit: int = 1, *, on_blocked: DoneCallback | None = None, **options: Any) -> None:
        require_patched(self.traits.name)
        super().__init__(limit, **options)
        self._waiting: dict[Handle, GreenRun] = {}
        self._runs: dict[Handle, GreenRun] = {}
        self._free = list(range(limit))
        self._started = itertools.count()
        self._limits = GreenLimits(self, self._runs, on_blocked)

    # -- what it is

    @property
    def busy_slots(self) -> int:
        return len(self._runs)

    @property
    def free_slots(self) -> int:
        return max(0, self.limit - len(self._runs) - len(self._waiting))

    @property
    def lost_threads(self) -> Sequence[str]:
        return ["block detector"] if self._limits.is_lost else []

    # -- start and end

    def on_start(self) -> None:
        super().on_start()
        self._limits.start()
        kind = type(self)
        if kind not in _WITH_NEW_HUBS:
            _WITH_NEW_HUBS.add(kind)
            os.register_at_fork(after_in_child=kind.take_new_hub)

    def on_stop(self) -> None:
        for handle in [*self._runs, *self._waiting]:
            self.wait(handle)
        self._leave()

    def on_terminate(self) -> None:
        self.flush()
        for run in list(self._runs.values()):
            self._limits.end_soon(run, Terminated("the pool was terminated"))
        end = time.monotonic() + _TERMINATE_SECONDS
        while any(not handle.done for handle in self._runs) and time.monotonic() < end:
            self._let_run(0.05)
        for run in list(self._runs.values()):
            self._limits.abandon(run, Terminated("the pool was terminated, and the task goes on"))
        self._leave()

    def _leave(self) -> None:
        self._let_run(0)
        self._limits.close()
        if self.finalizer is not None:
            self.finalizer()

    def _let_run(self, seconds: float) -> None:
        """Let the tasks run for a moment. What they wait for may be done by the loop of this thread."""
        loop = self.loop
        if loop is not None and loop.in_thread and not loop.closed:
            loop.run_once(seconds)
        self._join(seconds)

    # -- work

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        run = GreenRun(handle, target, args, kwargs)
        if self._waiting or len(self._runs) >= self.limit:
            self._waiting[handle] = run
        else:
            self._start(run)

    def on_cancel(self, handle: Handle) -> bool:
        if self._waiting.pop(handle, None) is None and (handle not in self._runs or handle.started_at):
            return False
        handle.withdraw(time.monotonic())  # where its greenlet is on the way already, it finds it done
        return True

    def flush(self) -> list[Handle]:
        return [handle for handle in [*self._runs, *self._waiting] if handle.cancel()]

    def on_grow(self, count: int) -> None:
        taken = {run.slot for run in self._runs.values()}
        for slot in range(self.limit, self.limit + count):
            if slot not in taken:
                heapq.heappush(self._free, slot)
        self.limit += count
        self._start_waiting()

    def on_shrink(self, count: int) -> None:
        self.limit -= count
        self._free = [slot for slot in self._free if slot < self.limit]
        heapq.heapify(self._free)

    def on_terminate_job(self, which: Handle | int, signum: int) -> bool:  # noqa: ARG002
        for run in self._runs.values():
            if (run.handle is which or run.pid == which) and run.end_reason is None and not run.handle.done:
                self._limits.end_soon(run, Terminated("the task was ended on request"))
                return True
        return False

    def interrupt_blocking_task(self) -> None:
        """End the task that keeps the main thread, where a signal reaches it. From a native thread."""
        self._limits.interrupt(Terminated("the task was ended: it kept its process from stopping"))

    # -- slots

    def _start_waiting(self) -> None:
        while self._waiting and len(self._runs) < self.limit:
            handle = next(iter(self._waiting))
            self._start(self._waiting.pop(handle))

    def _start(self, run: GreenRun) -> None:
        run.slot = heapq.heappop(self._free)
        self._runs[run.handle] = run
        self._spawn(self._serve, run)

    def _serve(self, run: GreenRun) -> None:
        """Run one task in its greenlet, from begin to end."""
        value, failure = None, None
        try:
            if not run.handle.done:
                self._begin(run)
                value = perform(run)
        except BaseException as error:
            failure = error
        run.inside = False
        self._finish(run, value, failure)

    def _begin(self, run: GreenRun) -> None:
        handle, now = run.handle, time.monotonic()
        run.greenlet = getcurrent()
        run.pid = FIRST_PID + next(self._started) % FIRST_PID
        handle.begin(run.slot, run.pid, now)
        if handle.accept_callback is not None:
            self.accepted(handle, now)
        self.tell_slot(run.slot, run.pid, "busy")
        self._limits.begin(run)

    def _finish(self, run: GreenRun, value: Any, failure: BaseException | None) -> None:
        self._limits.end(run)
        self._runs.pop(run.handle, None)
        if run.slot < self.limit:
            heapq.heappush(self._free, run.slot)
        self._complete(run, value, failure)
        if run.pid:
            self.tell_slot(run.slot, run.pid, "idle")
        self._start_waiting()

    def _complete(self, run: GreenRun, value: Any, failure: BaseException | None) -> None:
        handle, now = run.handle, time.monotonic()
        if run.soft_raised or run.end_reason is not None:
            logging_locks.release_own()
        if handle.done:
            if handle.abandoned:
                self.log.warning("%r returned after it was given up; its result is dropped", handle)
        elif run.end_reason is not None:
            handle.fail(run.end_reason, now)
        elif failure is not None:
            handle.fail(failure, now)
        else:
            handle.succeed(value, now)

    # -- callbacks

    def _in_loop_thread(self, handle: Handle, callback: Callable[..., object], *args: Any) -> None:
        if self._is_hub() and (self.loop is None or self.loop.closed):
            self._spawn(self._call_back, handle, callback, *args)  # a callback may wait, the hub may not
        else:
            super()._in_loop_thread(handle, callback, *args)

    def original_thread(self) -> Any:
        """The ``_thread`` module as it was: ``start_new_thread``, ``allocate_lock``, ``get_ident``."""
        names = ("start_new_thread", "allocate_lock", "get_ident")
        return SimpleNamespace(**{name: unpatched("_thread", name) for name in names})

    # -- the library

    def _spawn(self, function: Callable[..., object], *args: Any) -> None:
        """Run it in a greenlet of its own, soon."""
        raise NotImplementedError

    def in_hub_after(self, seconds: float, function: Callable[[], object]) -> Cancel:
        """Call it in the hub; what calls it off."""
        raise NotImplementedError

    def _is_hub(self) -> bool:
        """Whether the caller is the hub, which must never wait."""
        raise NotImplementedError

    def _join(self, timeout_seconds: float) -> None:
        """Let greenlets run until all tasks are over, at most this long; 0: one round."""
        raise NotImplementedError

    @staticmethod
    def take_new_hub() -> None:
        """In a forked child: the copied greenlets stay behind, else the child would go on as a second worker."""
        raise NotImplementedError
