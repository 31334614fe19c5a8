"""A ``fleet.Tasks`` registry as an app: run the function, and decide what becomes of a message whose task raised."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from fleet import signals
from fleet.broker.message import retries_in
from fleet.broker.message_body import BadMessage, Payload, payload_of
from fleet.tasks import CURRENT, Current, Retry, Task, Tasks
from fleet.worker.apps import registry_signals
from fleet.worker.task.call import SHUTDOWNS, Call, ChildLimits, EncodedResult, Ending, Outcome, Stage, TaskPolicy
from fleet.worker.task.listeners import TaskListener
from pools.errors import HardTimeLimit, SoftTimeLimit, Terminated
from pools.traits import TRAITS

log = logging.getLogger("fleet.task")

_MOST_TRACEBACK = 8_000
"""Characters of a traceback kept in a header: the last ones, which say more than the first."""
_FOR_THE_POOL = (HardTimeLimit, Terminated, SystemExit, KeyboardInterrupt)
"""Goes on to the pool, which may have raised it itself, to end the task."""


class RegistryApplication:
    """Runs plain functions."""

    kind = "tasks"
    records_ends = False

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.accept = tasks.accept
        self._green_pool = ""
        self._node = ""

    def prepare_worker(self, node: str, *, pool: str, concurrency: int, broker_url: str) -> None:  # noqa: ARG002
        """Keep the arguments, and send ``worker_init``."""
        self._node = node
        self._green_pool = pool if pool in TRAITS and TRAITS[pool].is_green else ""
        signals.worker_init.send(node)

    def complete(self) -> None:
        """Nothing to do: the named module is imported."""

    def import_tasks(self) -> None:
        """Nothing to do: the named module is imported."""

    def prepare_process(self, node: str) -> None:
        """Send ``worker_process_init``. Raises what a receiver raised."""
        self._node = node
        for error in signals.worker_process_init.send(node):
            raise error

    def finish_process(self) -> None:
        """Send ``worker_process_shutdown``."""
        signals.worker_process_shutdown.send(self._node, pid=os.getpid(), exitcode=0)

    def transport_options(self, visibility_timeout_seconds: float | None) -> Mapping[str, Any]:
        """Only the manifest's visibility timeout."""
        return {} if visibility_timeout_seconds is None else {"visibility_timeout": visibility_timeout_seconds}

    def child_limits(self) -> ChildLimits:
        """None: the manifest sets them."""
        return ChildLimits()

    def rate_limits(self) -> Mapping[str, object]:
        """Empty: the manifest sets them."""
        return {}

    def default_queues(self) -> Sequence[str]:
        """The registry's own queue."""
        return [self.tasks.queue]

    def default_broker_url(self) -> str:
        """What the registry was made with."""
        return self.tasks.broker or ""

    def queue_entities(self) -> Mapping[str, Any]:
        """Empty: a registry defines no queues."""
        return {}

    def remote(self) -> None:
        """None: there is no remote control; ``fleet status`` reads the record."""

    def announce(self, what: Stage) -> None:
        """Send the signals of a worker's stages."""
        if what == "ready":
            signals.worker_ready.send(self._node)
        elif what == "stopped":
            signals.worker_shutdown.send(self._node)
        else:
            signals.worker_shutting_down.send(self._node, **SHUTDOWNS[what])

    def listener(self) -> TaskListener:
        """The sender of signals that only the worker's process can send."""
        return registry_signals.SignalListener(self.tasks, self._node)

    def on_pool_lifecycle(self, what: str, pool: Any, **facts: Any) -> None:  # noqa: ARG002
        """The signal before a child of a prefork pool; a registry has none of the others."""
        if what == "before_create_process":
            signals.worker_before_create_process.send(self._node)

    def task_names(self) -> Sequence[str]:
        """All names, sorted."""
        return self.tasks.names()

    def knows(self, name: str) -> bool:
        """Whether a function is registered under that name."""
        return self.tasks.get(name) is not None

    def policy(self, name: str) -> TaskPolicy:
        """Late acknowledgement unless the task says otherwise."""
        task = self.tasks.get(name)
        if task is None:
            return TaskPolicy()
        return TaskPolicy(task.acks != "early", task.time_limit_seconds, task.soft_time_limit_seconds)

    def after_end(self, call: Call, ending: Ending, detail: str) -> Outcome:
        """A time limit is an error like any other; an unknown or a lost task goes to the dead letters."""
        if ending in ("unknown", "lost", "raised", "unstartable"):
            return Outcome("dead", error=detail)
        task = self.tasks.get(call.name)
        if ending == "timeout" and task is not None:
            pause = task.retry.pause_seconds(HardTimeLimit(detail), retries_of(call))
            return Outcome("dead" if pause is None else "retry", error=detail, after_seconds=pause)
        return Outcome("ignored", error=detail)

    def record_end(self, call: Call, ending: Ending, detail: str, *, limit_seconds: float | None = None) -> None:
        """Does nothing: there are no results."""

    def result_store(self) -> None:
        """None: there are no results."""

    def store_result(self, result: EncodedResult) -> None:
        """Nothing: there are no results."""

    def mark_revoked(self, ids: Sequence[str]) -> None:
        """Nobody waits for a result."""

    def is_async(self, name: str) -> bool:
        """Whether it is an ``async def`` function."""
        task = self.tasks.get(name)
        return task is not None and task.is_async

    def run(self, call: Call) -> Outcome:
        """Call the function. What it returns is dropped."""
        attempt = self._attempt(call)
        if isinstance(attempt, Outcome):
            return attempt
        with attempt:
            attempt.result = attempt.call_function()
        return attempt.outcome

    async def run_async(self, call: Call) -> Outcome:
        """Await the function. What it returns is dropped."""
        attempt = self._attempt(call)
        if isinstance(attempt, Outcome):
            return attempt
        with attempt:
            attempt.result = await attempt.start_function()
        return attempt.outcome

    def _attempt(self, call: Call) -> _Attempt | Outcome:
        """The run, or the outcome where it cannot run."""
        task = self.tasks.get(call.name)
        if task is None:
            return Outcome("dead", error=f"unknown task {call.name!r}")
        if task.is_async and self._green_pool:
            # asyncio allows one running loop per thread, and all greenlets share theirs: two such tasks would collide.
            error = f"an async def task cannot run in a {self._green_pool} pool; asyncio, threads or prefork run it"
            log.error("Task %s[%s] is refused: %s", call.name, call.id, error)
            return Outcome("dead", error=error)
        try:
            return _Attempt(task, call, payload_of(call, self.accept))
        except BadMessage as error:
            log.error("Task %s[%s] cannot be read: %s", call.name, call.id, error)
            return Outcome("dead", error=str(error))


class _Attempt:
    """One run of a function, as a context around it that decides what becomes of the message."""

    def __init__(self, task: Task[..., Any], call: Call, payload: Payload) -> None:
        self.task = task
        self.call = call
        self.payload = payload
        self.result: object = None
        self.outcome = Outcome("ignored")
        self._started = time.monotonic()

    def start_function(self) -> Any:
        """Call the function; an ``async def`` one returns a coroutine."""
        return self.task.function(*self.payload.args, **self.payload.kwargs)

    def call_function(self) -> object:
        """Call the function; a coroutine is run to its end."""
        if not self.task.is_async:
            return self.start_function()
        from pools.asyncio import complete

        return complete(self.start_function())

    def __enter__(self) -> None:
        self._token = CURRENT.set(_current_of(self.call))
        registry_signals.before(self.task, self.call, self.payload)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> bool:
        try:
            if isinstance(error, _FOR_THE_POOL):
                return False
            runtime = time.monotonic() - self._started
            if error is None:
                self.outcome = _after_success(self.call, runtime)
            else:
                self.outcome = _after_error(self.task, self.call, error, runtime)
            registry_signals.after(self.task, self.call, self.payload, self.outcome, result=self.result, error=error)
            return True
        finally:
            CURRENT.reset(self._token)


def _current_of(call: Call) -> Current:
    return Current(call.id, call.name, call.queue, retries_of(call), call.redelivered)


def retries_of(call: Call) -> int:
    """How often this message was retried before."""
    return retries_in(call.headers)


def _after_success(call: Call, runtime: float) -> Outcome:
    log.info("Task %s[%s] succeeded in %.3fs", call.name, call.id, runtime)
    return Outcome("success", runtime)


def _after_error(task: Task[..., Any], call: Call, error: BaseException, runtime: float) -> Outcome:
    """A retry, or the dead letters."""
    retries = retries_of(call)
    pause = task.retry.pause_seconds(error, retries)
    text = _describe(error)
    if pause is None:
        log.error(
            "Task %s[%s] failed for good after %d tries: %s", call.name, call.id, retries + 1, text, exc_info=error
        )
        return Outcome("dead", runtime, text, _traceback(error))
    log.warning("Task %s[%s] failed, retry %d in %.1fs: %s", call.name, call.id, retries + 1, pause, text)
    return Outcome("retry", runtime, text, _traceback(error), pause)


def _describe(error: BaseException) -> str:
    if isinstance(error, (Retry, SoftTimeLimit)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-_MOST_TRACEBACK:]
