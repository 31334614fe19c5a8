"""The jobs of a pool of Celery's, seen where every one of them passes: at the pool's ``apply_async`` and its callbacks.

Celery's signals of a task are sent in the pool's children, so the worker itself does not see them; the callbacks of a
job are called in the worker, for every pool and in every version of Celery.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from celery.exceptions import Ignore, Reject, Retry, Terminated, WorkerLostError
from celery.worker import state as celery_state

from fleet.broker.envelope import SENT_AT_HEADER, waits_since
from fleet.replica.record import Record
from fleet.replica.task_counters import TaskCounters, TaskEnd

_LIMITED = frozenset({"prefork", "gevent"})
"""Pools of Celery's that end a task at its hard time limit."""
_GONE_SECONDS = 5.0
Guard = Callable[[Callable[..., None]], Callable[..., None]]


class End(Enum):
    """How the run of a job ended. AGAIN: its message is on its way to somebody else."""

    DONE = "done"
    FAILED = "failed"
    RETRIED = "retried"
    LOST = "lost"
    AGAIN = "again"


_ENDS: Mapping[End, TaskEnd] = {
    End.DONE: "done",
    End.FAILED: "failed",
    End.RETRIED: "retried",
    End.LOST: "lost",
}


@dataclass(slots=True, eq=False)
class Job:
    """A job on its way through a pool. ``slot`` None: it has not started, or there is no room for it in the record.

    request: Celery's request; None where the caller of the pool is not one.  result: what the pool returned.
    gone_at: since when Celery does not count it as running (monotonic), 0.0 while it does.  began_at: monotonic, 0.0
    before it started.
    """

    id: str
    name: str
    request: Any = None
    limit_seconds: float = 0.0
    slot: int | None = None
    started: bool = False
    ended: bool = False
    result: Any = None
    gone_at: float = 0.0
    began_at: float = 0.0


class Jobs:
    """Keeps the slots and the counts of a record by the jobs of one pool.

    Callbacks come from any thread, so every change of the record is made under ``lock``. ``counters``: by task; None
    where they are switched off or cannot be kept.
    """

    def __init__(
        self, record: Record, lock: threading.RLock, *, guard: Guard, counters: TaskCounters | None = None
    ) -> None:
        self._record = record
        self._counters = counters
        self._lock = lock
        self._jobs: set[Job] = set()
        self._slots: dict[int, Job] = {}
        self._pool_name = ""
        self._add, self._begin = guard(self.add), guard(self.begin)
        self._end, self._forget = guard(self.end), guard(self.forget)

    @property
    def unstarted(self) -> list[Job]:
        """Jobs that the pool has and has not begun."""
        with self._lock:
            return [job for job in self._jobs if not job.started]

    def watch(self, pool: Any) -> None:
        """See every job of this pool from now on."""
        self._pool_name = type(pool).__module__.rpartition(".")[2]
        apply_async = pool.apply_async

        def watched(target: Any, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
            job = job_of(args, options)
            self._add(job)
            try:
                job.result = apply_async(target, args, kwargs, **self._wrapped(job, options))
            except BaseException:
                self._forget(job)
                raise
            return job.result

        pool.apply_async = watched

    def _wrapped(self, job: Job, options: Mapping[str, Any]) -> dict[str, Any]:
        accept, done = options.get("accept_callback"), options.get("callback")
        failed, timeout = options.get("error_callback"), options.get("timeout_callback")

        def on_accept(pid: Any, *more: Any, **named: Any) -> Any:
            self._begin(job, pid)
            return accept(pid, *more, **named) if accept else None

        def on_done(result: Any, *more: Any, **named: Any) -> Any:
            try:
                return done(result, *more, **named) if done else None
            finally:
                self._end(job, result)

        def on_failed(error: Any, *more: Any, **named: Any) -> Any:
            try:
                return failed(error, *more, **named) if failed else None
            finally:
                self._end(job, error)

        def on_timeout(soft: Any, *more: Any, **named: Any) -> Any:
            try:
                return timeout(soft, *more, **named) if timeout else None
            finally:
                if not soft:
                    self._end(job, TimeoutError())

        callbacks = {"accept_callback": on_accept, "callback": on_done, "error_callback": on_failed}
        return {**options, **callbacks, "timeout_callback": on_timeout}

    def add(self, job: Job) -> None:
        """It is on its way into the pool."""
        with self._lock:
            self._jobs.add(job)

    def begin(self, job: Job, pid: Any) -> None:
        """The pool has started it. ``pid``: of its child, or whatever a pool without children calls one."""
        with self._lock:
            job.started = True
            if job.ended:
                return
            job.began_at = time.monotonic()
            self._count_wait(job)
            job.slot = next((slot for slot in range(self._record.capacity) if slot not in self._slots), None)
            if job.slot is None:
                return
            self._slots[job.slot] = job
            until = time.time() + job.limit_seconds if job.limit_seconds and self._pool_name in _LIMITED else 0.0
            child = int(pid) if self._pool_name == "prefork" and pid else 0
            self._record.begin(job.slot, task_id=job.id, task_name=job.name, until=until, pid=child)

    def end(self, job: Job, result: Any) -> None:
        """Its run is over, with what the pool says of it. Told twice, as of a task that ran into its limit, the first
        word holds."""
        with self._lock:
            if job.ended:
                return
            how = end_of(result, job.request)
            self._record.retried += how is End.RETRIED
            self._record.processed += how in (End.DONE, End.FAILED, End.LOST)
            self._record.failed += how in (End.FAILED, End.LOST)
            if self._counters is not None and how in _ENDS:
                run_seconds = time.monotonic() - job.began_at if job.began_at and how is not End.LOST else None
                self._counters.ended(job.name, _ENDS[how], run_seconds)
            self.forget(job)

    def _count_wait(self, job: Job) -> None:
        """Only where the message says since when it waits."""
        message = getattr(job.request, "message", None)
        headers = getattr(message, "headers", None)
        if self._counters is None or not isinstance(headers, Mapping):
            return
        since = waits_since(headers.get(SENT_AT_HEADER), headers.get("eta"))
        if since is not None:
            self._counters.waited(job.name, max(0.0, time.time() - since))

    def forget(self, job: Job) -> None:
        """It is not in the pool any more."""
        with self._lock:
            job.ended = True
            self._jobs.discard(job)
            if job.slot is not None:
                self._slots.pop(job.slot, None)
                self._record.end(job.slot)
                job.slot = None

    def count(self, *, failed: bool, name: str = "") -> None:
        """A message came to its end without having been in the pool. name: of a task that the app has."""
        with self._lock:
            self._record.processed += 1
            self._record.failed += failed
            if self._counters is None:
                return
            end: TaskEnd = "dead" if failed else "revoked"
            if name:
                self._counters.ended(name, end, None)
            else:
                self._counters.ended_unknown(end)

    def reconnected(self) -> None:
        """There is a connection to the broker again."""
        with self._lock:
            if self._counters is not None:
                self._counters.reconnected()

    def publish(self) -> None:
        """Let readers see what was counted by task."""
        with self._lock:
            if self._counters is not None:
                self._counters.publish()

    def look(self, now: float) -> None:
        """Forget what runs no more although the pool never said so: what was terminated may end without a word."""
        with self._lock:
            for job in list(self._slots.values()):
                if job.request is None or job.request in celery_state.active_requests:
                    job.gone_at = 0.0
                elif not job.gone_at:
                    job.gone_at = now
                elif now - job.gone_at > _GONE_SECONDS:
                    self.forget(job)


def job_of(args: Any, options: Mapping[str, Any]) -> Job:
    """The job that these arguments of ``apply_async`` describe."""
    request = getattr(options.get("accept_callback"), "__self__", None)
    name, task_id = (*(args or ()), "", "")[:2]
    limit = options.get("timeout")
    return Job(
        id=str(getattr(request, "id", "") or options.get("correlation_id") or task_id),
        name=str(getattr(request, "name", "") or name),
        request=request,
        limit_seconds=float(limit) if isinstance(limit, (int, float)) else 0.0,
    )


def waiting() -> int:
    """Messages that Celery has taken and not started; those that wait for a date or under a rate are not among them."""
    return max(0, len(celery_state.reserved_requests) - len(celery_state.active_requests))


def end_of(result: Any, request: Any) -> End:
    """From what a callback of the pool got: ``(failed, value, runtime)``, an exception or Celery's note of one."""
    failed, value = (result[0], result[1]) if isinstance(result, tuple) and len(result) >= 2 else (True, result)
    if not failed:
        return End.DONE
    error = getattr(value, "exception", value)
    error = getattr(error, "exc", None) if type(error).__name__ == "ExceptionWithTraceback" else error
    if isinstance(error, Retry):
        return End.RETRIED
    if isinstance(error, Reject):
        return End.AGAIN if error.requeue else End.FAILED
    if isinstance(error, (Ignore, Terminated)):
        return End.DONE
    if isinstance(error, WorkerLostError):
        return _end_of_lost(getattr(request, "task", None))
    return End.FAILED


def _end_of_lost(task: Any) -> End:
    if getattr(task, "retry_on_worker_lost", False):
        return End.RETRIED
    late = getattr(task, "acks_late", False)
    return End.AGAIN if late and getattr(task, "reject_on_worker_lost", False) else End.LOST
