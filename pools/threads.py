"""One thread per slot. Tasks share the process: good for waiting, no gain for computing.

Limits and ``terminate_job`` raise an exception in the thread of the task, at its next bytecode. A task that sits in C
code meets it when it comes back from there; see ``pools.inprocess`` for what becomes of one that does not come back.

The threads are this pool's own: those of ``concurrent.futures`` cannot become fewer, belong to no slot, and keep the
process alive when one of them is stuck.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from pools.handle import Handle
from pools.hooks import Target
from pools.inprocess import THIS_THREAD, InProcessPool, Job, Run
from pools.raise_in_thread import Interruptible
from pools.traits import TRAITS


class ThreadsPool(InProcessPool):
    """Hands tasks to ``limit`` threads through one queue. The threads are daemons: they never keep a process alive."""

    traits = TRAITS["threads"]

    def __init__(self, limit: int = 1, **options: Any) -> None:
        super().__init__(limit, **options)
        self._wanted = 0
        self._queue: queue.SimpleQueue[Handle | None] = queue.SimpleQueue()
        self._threads: dict[int, threading.Thread] = {}
        self._stuck: set[int] = set()

    @property
    def num_processes(self) -> int:
        return len(self._threads)

    @property
    def lost_threads(self) -> Sequence[str]:
        ended = [thread.name for thread in list(self._threads.values()) if not thread.is_alive()]
        return [*super().lost_threads, *ended]

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, "threads": len(self._threads)}

    def on_start(self) -> None:
        if self.initializer is not None:
            self.initializer(*self.initargs)
        self._fill()

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        with self._lock:
            self._waiting[handle] = (target, args, kwargs)
        self._queue.put(handle)

    def on_grow(self, count: int) -> None:
        self.limit += count
        self._fill()

    def on_shrink(self, count: int) -> None:
        self.limit -= count
        with self._lock:
            self._wanted = self.limit
        for _ in range(count):
            self._queue.put(None)

    def on_stop(self) -> None:
        self._dismiss()
        for index, thread in list(self._threads.items()):
            self._join(index, thread)
        self._watchdog.close()
        if self.finalizer is not None:
            self.finalizer()

    def on_terminate(self) -> None:
        super().on_terminate()
        self._dismiss()
        if self.finalizer is not None:
            self.finalizer()

    def on_abandon(self, handle: Handle) -> None:
        self._stuck.add(handle.slot)

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
            self._queue.put(None)

    def _join(self, index: int, thread: threading.Thread) -> None:
        """Wait for a thread to leave, but not for one whose task was abandoned."""
        # What a task waits for may be done by the loop of this thread, so it must go on turning.
        loop = self.loop
        turning = loop is not None and loop.in_thread and not loop.closed
        while thread.is_alive() and index not in self._stuck:
            if turning and loop is not None:
                loop.run_once(0.05)
            else:
                thread.join(0.05)
        self._turn_loop()

    def _serve(self, index: int) -> None:
        self.tell_slot(index, os.getpid(), "idle")
        thread = Interruptible()
        while True:
            handle = self._queue.get()
            if handle is not None:
                self._run(index, thread, handle)
                del handle
            elif self._leaves(index):
                break
        self.tell_slot(index, os.getpid(), "dead")

    def _leaves(self, index: int) -> bool:
        """Whether this thread has to leave; after a shrink and a grow in a row it has not."""
        with self._lock:
            if len(self._threads) <= self._wanted:
                return False
            del self._threads[index]
            return True

    # -- one task, in its thread

    def _run(self, index: int, thread: Interruptible, handle: Handle) -> None:
        run = Run(handle, partial(thread.interrupt, handle))
        job = self._take(run)
        if job is None:
            return
        thread.expect(handle)
        self._begin(index, run)
        THIS_THREAD.run = run
        value, failure = thread.call(handle, *job)
        THIS_THREAD.run = None
        self._end(run, value, failure)
        self._stuck.discard(index)
        self.tell_slot(index, os.getpid(), "idle")

    def _take(self, run: Run) -> Job | None:
        """Take the task out of the queue; None when its handle was cancelled."""
        with self._lock:
            job = self._waiting.pop(run.handle, None)
            if job is not None:
                self._busy += 1
                self._runs[run.handle] = run
            return job
