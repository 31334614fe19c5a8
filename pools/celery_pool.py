"""A pool class that was written for Celery's ``BasePool``, used unchanged. Celery itself is not needed here.

The class is made and driven as by a Celery worker that has no event loop (``threads=True``, and nobody calls its
``register_with_event_loop``): such a worker exists for every broker without descriptors, so every class works with
one. What the class can do is read from what it defines: ``grow`` and ``shrink``, ``terminate_job``, ``restart``, and
the time limits that its ``on_apply`` names. It is never given more tasks than it has slots; what waits, waits here.
"""

from __future__ import annotations

import heapq
import inspect
import os
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from pools.base import BasePool
from pools.errors import HardTimeLimit, PoolError, SlotLost, Terminated
from pools.handle import Handle, HandleState
from pools.hooks import Target
from pools.options import check_slots
from pools.traits import TRAITS, Traits

_REQUIRED = ("start", "stop", "close", "terminate", "apply_async")
_BASE_MODULE = "celery.concurrency.base"

Job = tuple[Target, Sequence[Any], Mapping[str, Any]]
Report = tuple[int, Any, Any]
"""As Celery's own tasks report: (failed, value or error, seconds or traceback)."""


def is_celery_pool(found: object) -> bool:
    """Whether this is a class with the methods of Celery's ``BasePool``."""
    return isinstance(found, type) and all(callable(getattr(found, name, None)) for name in _REQUIRED)


def adapt(found: type) -> type[BasePool]:
    """A subclass of ``CeleryPool`` for this class, with its name and module."""
    return type(found.__name__, (CeleryPool,), {"foreign_class": found, "__module__": found.__module__})


class CeleryPool(BasePool):
    """Drives an instance of ``foreign_class``.

    app, hostname: passed on to the class as Celery does; None and empty where the program has no Celery app.
    """

    foreign_class: ClassVar[type]

    def __init__(self, limit: int = 1, *, app: Any = None, hostname: str = "", **options: Any) -> None:
        super().__init__(limit, **options)
        self.celery: Any = self._make(app, hostname)
        self.limit = int(self.celery.limit or limit)
        self.traits = traits_of(self.celery)
        self._lock = threading.Lock()
        self._waiting: OrderedDict[Handle, Job] = OrderedDict()
        self._runs: dict[Handle, _Run] = {}
        self._occupied: set[_Run] = set()
        self._started = False
        self._free = list(range(self.limit))
        self._numbered = self.limit

    @property
    def busy_slots(self) -> int:
        return len(self._occupied)

    @property
    def free_slots(self) -> int:
        return max(0, self.limit - len(self._occupied) - len(self._waiting))

    @property
    def num_processes(self) -> int:
        return int(self.celery.num_processes or self.limit)

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, **(self.celery.info or {})}

    # -- start and end

    def on_start(self) -> None:
        if self.initializer is not None:
            self.initializer(*self.initargs)
        self.celery.start()
        self._started = True
        if not getattr(self.celery, "did_start_ok", lambda: True)():
            raise PoolError(f"the pool {self.celery!r} says that it could not start")
        self.traits = traits_of(self.celery)  # some classes make their methods when they start

    def on_stop(self) -> None:
        while pending := [*self._runs, *self._waiting]:
            for handle in pending:
                self.wait(handle)
        self._end_celery(self.celery.stop)
        if self.finalizer is not None:
            self.finalizer()

    def on_terminate(self) -> None:
        self.flush()
        self._end_celery(self.celery.terminate)
        for handle in list(self._runs):
            handle.abandoned = True  # the class may have ended it or not: it does not say
            self._tell(handle, error=Terminated("the pool was terminated while the task ran"))

    def _end_celery(self, end: Callable[[], object]) -> None:
        if self._started:
            self.celery.close()
            end()

    # -- slots

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        with self._lock:
            self._waiting[handle] = (target, args, kwargs)
        self._fill_slots()

    def on_cancel(self, handle: Handle) -> bool:
        with self._lock:
            if self._waiting.pop(handle, None) is None:
                return False
        handle.withdraw(time.monotonic())
        return True

    def flush(self) -> list[Handle]:
        return [handle for handle in list(self._waiting) if self.on_cancel(handle)]

    def on_grow(self, count: int) -> None:
        self.celery.grow(count)
        with self._lock:
            self.limit += count
            for slot in range(self._numbered, self.limit):
                heapq.heappush(self._free, slot)
            self._numbered = max(self._numbered, self.limit)
        self._fill_slots()

    def on_shrink(self, count: int) -> None:
        with self._lock:
            self.limit -= count
        self.celery.shrink(count)

    def on_restart(self) -> None:
        self.celery.restart()

    def on_terminate_job(self, which: Handle | int, signum: int) -> bool:
        with self._lock:
            run = next((run for run in self._runs.values() if which is run.handle or which == run.handle.pid), None)
            if run is None:
                return False
            run.end_reason = Terminated("the task was ended on request")
        self.celery.terminate_job(run.handle.pid, signum)
        return True

    def _fill_slots(self) -> None:
        while (taken := self._take()) is not None:
            run, job = taken
            try:
                self._submit(run, job)
            except Exception as error:
                self._end(run, error=error)

    def _take(self) -> tuple[_Run, Job] | None:
        with self._lock:
            if not self._waiting or len(self._occupied) >= self.limit:
                return None
            handle, job = self._waiting.popitem(last=False)
            run = self._runs[handle] = _Run(handle, heapq.heappop(self._free))
            self._occupied.add(run)
            return run, job

    def _submit(self, run: _Run, job: Job) -> None:
        handle = run.handle
        limits = {"soft_timeout": handle.soft_timeout_seconds, "timeout": handle.timeout_seconds}
        self.celery.apply_async(
            run_task,
            args=job,
            kwargs={},
            accept_callback=partial(self._on_accepted, run),
            timeout_callback=partial(self._on_timeout, run),
            callback=partial(self._on_report, run),
            error_callback=partial(self._on_error, run),
            correlation_id=handle.id,
            **{name: seconds for name, seconds in limits.items() if seconds is not None},
        )

    # -- what the class calls back, from whatever thread

    def _on_accepted(self, run: _Run, pid: int | None = None, started: float | None = None, *_: Any, **__: Any) -> None:
        handle = run.handle
        if handle.state is not HandleState.WAITING:
            return
        now = time.monotonic() if started is None else started
        handle.begin(run.slot, pid or os.getpid(), now)
        self.accepted(handle, now)
        self.tell_slot(run.slot, handle.pid, "busy")

    def _on_report(self, run: _Run, report: Any = None, *_: Any, **__: Any) -> None:
        """``callback``: what ``run_task`` returned, or an ExceptionInfo for what even it could not catch."""
        self._on_accepted(run)
        if isinstance(report, tuple) and len(report) == 3:
            failed, found, detail = report
            if not failed:
                self._end(run, value=found)
            else:
                self._end(run, error=found, remote_traceback="" if found.__traceback__ else detail)
        else:
            self._on_error(run, report)

    def _on_error(self, run: _Run, info: Any = None, *_: Any, **__: Any) -> None:
        """``error_callback``, with an ExceptionInfo: the pool itself ended the task."""
        self._on_accepted(run)
        error = getattr(info, "exception", info)
        error = getattr(error, "exc", error)
        if not isinstance(error, BaseException):
            error = SlotLost(f"the pool says no more about the task than {info!r}")
        self._end(run, error=_translate(error))

    def _on_timeout(self, run: _Run, soft: bool = False, seconds: float | None = None, *_: Any, **__: Any) -> None:
        if soft:
            self.on_soft_timeout(run.handle)
        else:
            limit = run.handle.timeout_seconds or seconds
            self._end(run, error=HardTimeLimit(f"the task ran into its hard time limit of {limit:g} s"))

    def _end(
        self, run: _Run, *, value: Any = None, error: BaseException | None = None, remote_traceback: str = ""
    ) -> None:
        handle = run.handle
        self._tell(handle, value=value, error=run.end_reason or error, remote_traceback=remote_traceback)
        with self._lock:
            if run not in self._occupied:
                return
            self._occupied.remove(run)
            heapq.heappush(self._free, run.slot)
        self.tell_slot(run.slot, handle.pid, "idle")
        self._fill_slots()

    def _tell(
        self, handle: Handle, *, value: Any = None, error: BaseException | None, remote_traceback: str = ""
    ) -> None:
        """Complete the handle, once: later reports about it are dropped."""
        with self._lock:
            if self._runs.pop(handle, None) is None:
                return
        now = time.monotonic()
        if error is None:
            handle.succeed(value, now)
        else:
            handle.fail(error, now, remote_traceback=remote_traceback)
            if isinstance(error, HardTimeLimit):
                self.on_hard_timeout(handle)

    # -- the instance of the class

    def _make(self, app: Any, hostname: str) -> Any:
        memory = self.max_memory_per_child_bytes
        return self.foreign_class(
            self.limit,
            app=app,
            initargs=(app, hostname),
            maxtasksperchild=self.max_tasks_per_child,
            max_memory_per_child=None if memory is None else memory // 1024,
            timeout=None,
            soft_timeout=None,
            putlocks=True,
            threads=True,
            forking_enable=self.start_method == "fork",
            callbacks_propagate=(),
        )

    def _check_options(self) -> None:
        """Other options are not checked: only the class knows what it does with them."""
        check_slots(self.limit)


class _Run:
    """A task that was given to the class. end_reason: the error its handle gets, whatever the class reports."""

    __slots__ = ("end_reason", "handle", "slot")

    def __init__(self, handle: Handle, slot: int) -> None:
        self.handle = handle
        self.slot = slot
        self.end_reason: PoolError | None = None


def run_task(target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Report:
    """Call the target for the class. Never raises: some classes lose exceptions, others end the worker with them."""
    started = time.monotonic()
    try:
        return 0, target(*args, **kwargs), time.monotonic() - started
    except BaseException as error:
        return 1, error, traceback.format_exc()


def traits_of(instance: Any) -> Traits:
    """What an instance can do, from what its class defines beyond Celery's base."""
    limits = _parameters(instance.on_apply) if hasattr(instance, "on_apply") else _parameters(instance.apply_async)
    return replace(
        TRAITS["custom"],
        is_green=bool(getattr(instance, "is_green", False)),
        signal_safe=bool(getattr(instance, "signal_safe", False)),
        soft_limit="soft_timeout" in limits,
        hard_limit="timeout" in limits,
        terminate=_defines(instance, "terminate_job"),
        resize=_defines(instance, "grow") and _defines(instance, "shrink"),
        recycle_tasks=_defines(instance, "restart"),
    )


def _parameters(function: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return frozenset()


def _defines(instance: Any, name: str) -> bool:
    """Whether there is more than the method of Celery's base, which only raises NotImplementedError."""
    if name in getattr(instance, "__dict__", {}):
        return True
    owner = next((cls for cls in type(instance).__mro__ if name in vars(cls)), None)
    return owner is not None and owner.__module__ != _BASE_MODULE


def _translate(error: BaseException) -> BaseException:
    """Our error for one of billiard's and Celery's, found by the name of its class; others unchanged."""
    for cls in type(error).__mro__:
        if cls.__name__ in _OURS:
            ours = _OURS[cls.__name__](str(error))
            ours.__cause__ = error
            return ours
    return error


_OURS: Mapping[str, type[PoolError]] = {
    "WorkerLostError": SlotLost,
    "TimeLimitExceeded": HardTimeLimit,
    "Terminated": Terminated,
}
