"""Jobs handed to the pool, and handed back by it."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from fleet.worker.loop.inflight import InFlight
from fleet.worker.loop.look_ahead import LookAhead
from fleet.worker.task.job import Job
from pools.base import BasePool
from pools.errors import PoolError
from pools.handle import AcceptCallback, Handle, HandleState

log = logging.getLogger("fleet.worker")

INLINE_POOLS = frozenset({"solo", "custom"})
"""They run a task in the thread that hands it to them: the main thread."""


class NotStarted(PoolError):
    """The pool did not take a task, or taking it failed."""


def _nothing() -> None:
    pass


def _ignore(_job: Job) -> None:
    pass


class Submission:
    """``done``: what the pool has finished and is not settled yet.

    ``on_begun`` is called for a job that has begun in the slot where it waited.

    ``before_inline`` is called before the main thread goes into a task, ``after_inline`` when it is back; while it is
    there, ``lock`` is free. After a quick task ``after_quick`` is called instead, and ``after_inline`` once, after all
    quick ones that follow each other: see ``look_after_quick``.
    """

    def __init__(self, pool: BasePool, inflight: InFlight, *, look_ahead: LookAhead, lock: threading.RLock) -> None:
        self._pool = pool
        self._inflight = inflight
        self._look_ahead = look_ahead
        self._lock = lock
        self.is_inline = pool.name in INLINE_POOLS
        self.done: deque[tuple[Job, Handle]] = deque()
        self.on_begun: Callable[[Job], object] = _ignore
        self._taking_back: frozenset[Handle] = frozenset()
        self.before_inline: Callable[[], object] = _nothing
        self.after_inline: Callable[[], object] = _nothing
        self.after_quick: Callable[[], object] = _nothing
        self._is_unlooked = False

    def submit(
        self, job: Job, target: Any, arguments: tuple[Any, ...], *, soft: float | None, hard: float | None
    ) -> None:
        """Let the pool call ``target``, within these limits in seconds."""
        try:
            self._inflight.begin(job, limit_seconds=hard)
        except Exception as error:
            self._on_unstarted(job, error)
            return
        if self.is_inline:
            self._run_inline(job, target, arguments, soft, hard)
            return
        self._apply(job, target, arguments, soft, hard)
        if job.handle is not None and not job.handle.done:
            self._inflight.publish(job, limit_seconds=hard)  # the process that runs it is known now

    def put_behind(
        self, job: Job, target: Any, arguments: tuple[Any, ...], *, soft: float | None, hard: float | None
    ) -> None:
        """Let it wait in a slot behind another task. Limits run from its beginning."""
        self._inflight.in_slots[job] = None
        self._apply(job, target, arguments, soft, hard, on_begun=partial(self._on_begun, job, hard))

    def take_from_slots(self) -> None:
        """Take back what waits in slots and has not begun: it waits here again, before what came later."""
        in_slots = self._inflight.in_slots
        if not in_slots:
            return
        handles = {job.handle: job for job in in_slots if job.handle is not None}
        self._taking_back = frozenset(handles)
        try:
            taken = [handles[handle] for handle in self._pool.take_back(list(handles))]
        finally:
            self._taking_back = frozenset()
        for job in taken:
            del in_slots[job]
            job.handle = None
        self._inflight.waiting.extendleft(reversed(taken))

    def _run_inline(self, job: Job, target: Any, args: tuple[Any, ...], soft: float | None, hard: float | None) -> None:
        """Run it here. Meanwhile the lock is free, and the housekeeping thread does the loop's housekeeping."""
        self._inflight.inline_job = job
        is_quick = self._look_ahead.is_quick(job.call.name)
        self.before_inline()
        self._lock.release()
        try:
            self._apply(job, target, args, soft, hard)
        except KeyboardInterrupt:
            log.error("Task %s[%s] raised KeyboardInterrupt", job.call.name, job.call.id)
        finally:
            self._is_unlooked = is_quick
            if is_quick:
                self.after_quick()
            else:
                self.after_inline()
            self._lock.acquire()
            self._inflight.inline_job = None

    def look_after_quick(self) -> None:
        """Before a task that is not quick starts here, and before the loop goes on."""
        if self._is_unlooked:
            self._is_unlooked = False
            self.after_inline()

    def _apply(
        self,
        job: Job,
        target: Any,
        args: tuple[Any, ...],
        soft: float | None,
        hard: float | None,
        on_begun: AcceptCallback | None = None,
    ) -> None:
        try:
            job.handle = self._pool.apply_async(
                target,
                args,
                id=job.call.id,
                accept_callback=on_begun,
                callback=partial(self._on_done, job),
                soft_timeout_seconds=soft,
                timeout_seconds=hard if self._pool.traits.hard_limit else None,
                expected_seconds=self._look_ahead.expected_seconds(job.call.name) if job.ending is None else 0.0,
            )
        except Exception as error:
            self._on_unstarted(job, error)

    def _on_unstarted(self, job: Job, error: Exception) -> None:
        """Only this task fails. Where its message still belongs to the broker, that is one attempt."""
        log.error("Task %s[%s] cannot be started", job.call.name, job.call.id, exc_info=error)
        handle = Handle(self._pool, job.call.id, None, None, None, None)
        handle.fail(NotStarted(f"it could not be started: {type(error).__name__}: {error}"), time.monotonic())
        self._on_done(job, handle)

    def _on_begun(self, job: Job, limit_seconds: float | None, _pid: int, _now: float) -> None:
        self._inflight.begin(job, limit_seconds=limit_seconds)
        self.on_begun(job)

    def _on_done(self, job: Job, handle: Handle) -> None:
        if handle in self._taking_back and handle.state is HandleState.CANCELLED:
            return
        if handle.started_at and job.ending is None:
            self._look_ahead.note(job.call.name, handle.run_seconds)
        self.done.append((job, handle))
