"""One thread per slot. Tasks share the process: good for waiting, no gain for computing.

A thread cannot be ended from outside. At the hard limit the handle fails at once with ``HardTimeLimit`` and
``on_hard_timeout`` is called, so that the owner can replace the process; the slot stays busy until the task returns,
and what it returns is dropped.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pools.base import BasePool, Target
from pools.errors import HardTimeLimit
from pools.handle import Handle
from pools.traits import TRAITS
from pools.watchdog import Watchdog

_Job = tuple[Handle, Target, Sequence[Any], Mapping[str, Any]]


class ThreadsPool(BasePool):
    """Hands tasks to ``limit`` threads through one queue. The threads are daemons: they never keep a process alive."""

    traits = TRAITS["threads"]

    def __init__(self, limit: int = 1, **options: Any) -> None:
        super().__init__(limit, **options)
        self._lock = threading.Lock()
        self._wanted = 0
        self._waiting: dict[Handle, bool] = {}
        self._running: set[Handle] = set()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: dict[int, threading.Thread] = {}
        self._watchdog = Watchdog(self._on_deadline, name="pool-threads-watchdog")

    @property
    def free_slots(self) -> int:
        return max(0, self.limit - self._busy - len(self._waiting))

    @property
    def num_processes(self) -> int:
        return len(self._threads)

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, "threads": len(self._threads)}

    def on_start(self) -> None:
        if self.initializer is not None:
            self.initializer(*self.initargs)
        self._fill()

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        with self._lock:
            self._waiting[handle] = True
        self._jobs.put((handle, target, args, kwargs))

    def on_cancel(self, handle: Handle) -> bool:
        with self._lock:
            if handle not in self._waiting:
                return False
            del self._waiting[handle]
        handle.withdraw(time.monotonic())
        return True

    def flush(self) -> list[Handle]:
        return [handle for handle in list(self._waiting) if self.on_cancel(handle)]

    def on_grow(self, count: int) -> None:
        self.limit += count
        self._fill()

    def on_shrink(self, count: int) -> None:
        self.limit -= count
        with self._lock:
            self._wanted = self.limit
        for _ in range(count):
            self._jobs.put(None)

    def on_stop(self) -> None:
        self._dismiss()
        for thread in list(self._threads.values()):
            self._join(thread)
        self._watchdog.close()
        if self.finalizer is not None:
            self.finalizer()

    def on_terminate(self) -> None:
        self.flush()
        self._dismiss()
        self._watchdog.close()

    # -- the slots

    def _fill(self) -> None:
        with self._lock:
            self._wanted = self.limit
            index = 0
            while len(self._threads) < self._wanted:
                if index not in self._threads:
                    thread = threading.Thread(target=self._serve, args=(index,), name=f"pool-{index}", daemon=True)
                    self._threads[index] = thread
                    thread.start()
                index += 1

    def _dismiss(self) -> None:
        with self._lock:
            self._wanted = 0
            leaving = len(self._threads)
        for _ in range(leaving):
            self._jobs.put(None)

    def _join(self, thread: threading.Thread) -> None:
        # What a task waits for may be done by the loop of this thread, so it must go on turning.
        loop = self.loop
        while loop is not None and loop.in_thread and not loop.closed and thread.is_alive():
            loop.run_once(0.05)
        thread.join()
        if loop is not None and loop.in_thread and not loop.closed:
            loop.run_once(0)

    def _serve(self, index: int) -> None:
        self.tell_slot(index, os.getpid(), "idle")
        while True:
            job = self._jobs.get()
            if job is not None:
                self._run(index, *job)
                del job
            elif self._leaves(index):
                break
        self.tell_slot(index, os.getpid(), "dead")

    def _leaves(self, index: int) -> bool:
        """Whether this thread is one too many; after a shrink and a grow in a row it is not."""
        with self._lock:
            if len(self._threads) <= self._wanted:
                return False
            del self._threads[index]
            return True

    # -- one task, in its thread

    def _run(self, index: int, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if not self._begin(index, handle):
            return
        value, failure = None, None
        try:
            value = target(*args, **kwargs)
        except BaseException as error:
            failure = error
        self._end(index, handle, value, failure)

    def _begin(self, index: int, handle: Handle) -> bool:
        with self._lock:
            if self._waiting.pop(handle, False) is False:
                return False
            self._busy += 1
            self._running.add(handle)
        now = time.monotonic()
        handle.begin(index, os.getpid(), now)
        if handle.timeout_seconds is not None:
            self._watchdog.watch(index, handle, now + handle.timeout_seconds)
        if handle.accept_callback is not None:
            self.accepted(handle, now)
        self.tell_slot(index, os.getpid(), "busy")
        return True

    def _end(self, index: int, handle: Handle, value: Any, failure: BaseException | None) -> None:
        self._watchdog.forget(index)
        with self._lock:
            self._busy -= 1
        if not self._claim(handle):
            self.log.warning("%r returned after its hard time limit; its result is dropped", handle)
        elif failure is None:
            handle.succeed(value, time.monotonic())
        else:
            handle.fail(failure, time.monotonic())
        self.tell_slot(index, os.getpid(), "idle")

    def _on_deadline(self, handle: Handle) -> None:
        if self._claim(handle):
            handle.abandoned = True
            limit = handle.timeout_seconds
            handle.fail(HardTimeLimit(f"the task ran into its hard time limit of {limit} s"), time.monotonic())
            self.on_hard_timeout(handle)

    def _claim(self, handle: Handle) -> bool:
        """The thread of the task and the watchdog may both want to end it; the first one does."""
        with self._lock:
            if handle not in self._running:
                return False
            self._running.discard(handle)
            return True
