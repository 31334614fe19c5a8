"""A Celery app as an app: its tasks run through Celery's own tracer, so that results, canvas and signals stay Celery's.

What Celery's worker does around the tracer (``celery.worker.request``) is in ``celery_ends``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from billiard.exceptions import SoftTimeLimitExceeded
from celery import signals, states
from celery._state import _set_task_join_will_block, set_default_app
from celery.app import backends
from celery.app.trace import TraceInfo, build_tracer, setup_worker_optimizations
from celery.exceptions import InvalidTaskError, Reject

from fleet.broker.connection import scheme
from fleet.broker.message_body import BadMessage, Payload, payload_of
from fleet.worker.apps.base import ResultStore
from fleet.worker.apps.celery_coroutines import let_body_finish
from fleet.worker.apps.celery_ends import NOTHING, EndedTask, error_of, mark_unstarted_as_revoked, request_of
from fleet.worker.apps.celery_plain import PlainTracers, plain_tracers
from fleet.worker.apps.celery_policy import child_limits, policy_of
from fleet.worker.apps.celery_queues import AppQueues
from fleet.worker.apps.celery_remote import CeleryRemote
from fleet.worker.apps.celery_settings import warnings_for
from fleet.worker.apps.celery_signals import Sender, SignalListener, let_the_app_log
from fleet.worker.apps.celery_storing import import_what_stores, result_store, store_results_at_once, traced
from fleet.worker.task.call import SHUTDOWNS, Call, ChildLimits, EncodedResult, Ending, Outcome, Stage, TaskPolicy
from fleet.worker.task.listeners import TaskEvent, TaskListener
from pools.errors import SoftTimeLimit
from pools.traits import TRAITS

log = logging.getLogger("fleet.task")

_STARTED, _SUCCEEDED = TaskEvent.STARTED, TaskEvent.SUCCEEDED


class CeleryApplication:
    """Runs the tasks of a Celery app."""

    kind = "celery"
    records_ends = True

    def __init__(self, app: Any) -> None:
        self.app = app
        self._node, self._worker_pid = "", 0
        self._green, self._defers, self._queues = False, False, AppQueues(app)
        self._plain: PlainTracers = {}
        self._worker: Any = None
        self.accept: tuple[str, ...] = tuple(app.conf.accept_content)

    # -- the worker's side

    def prepare_worker(self, node: str, *, pool: str, concurrency: int, broker_url: str) -> None:
        """As ``celery worker`` does before it makes its pool: import the tasks, send ``worker_init``, finalize."""
        self._node, self._worker_pid = node, os.getpid()
        self._defers = pool in TRAITS and pool != "custom"  # of which nobody knows how it hands back what slots return
        self._green = pool in TRAITS and TRAITS[pool].is_green
        app = self.app
        # As `celery -b` does: what tasks send (retries, chains, chords) must go to the broker this worker consumes.
        os.environ["CELERY_BROKER_URL"] = app.conf.broker_url = broker_url
        app.loader.init_worker()
        setup_worker_optimizations(app, node)
        self._worker = Sender(app, node, pool, concurrency)
        signals.celeryd_init.send(sender=node, instance=self._worker, conf=app.conf, options={})
        signals.worker_init.send(sender=self._worker)
        let_the_app_log()
        self._finalize()
        for text in warnings_for(app, transport=scheme(broker_url), pool=pool):
            log.warning("%s", text)
        signals.celeryd_after_setup.send(sender=node, instance=self._worker, conf=app.conf)

    def transport_options(self, visibility_timeout_seconds: float | None) -> Mapping[str, Any]:
        """The app's own; the manifest's visibility timeout replaces its."""
        options = dict(self.app.conf.broker_transport_options or {})
        if visibility_timeout_seconds is not None:
            options["visibility_timeout"] = visibility_timeout_seconds
        return options

    def child_limits(self) -> ChildLimits:
        """``worker_max_tasks_per_child`` and ``worker_max_memory_per_child``, which Celery counts in KiB."""
        return child_limits(self.app.conf)

    def rate_limits(self) -> Mapping[str, object]:
        """``rate_limit`` of the tasks, which falls back to the app's."""
        if self.app.conf.worker_disable_rate_limits:
            return {}
        return {name: task.rate_limit for name, task in self.app.tasks.items() if task.rate_limit}

    def default_queues(self) -> Sequence[str]:
        """All of ``task_queues``, else ``task_default_queue``."""
        return list(self._queues)

    def default_broker_url(self) -> str:
        """``broker_read_url``, else ``broker_url``."""
        url = self.app.conf.broker_read_url or self.app.conf.broker_url or ""
        return url if isinstance(url, str) else ";".join(url)

    def queue_entities(self) -> Mapping[str, Any]:
        """Every queue as the app itself would declare it."""
        return self._queues

    def remote(self) -> CeleryRemote | None:
        """What ``celery inspect`` and monitors ask for; None where the app switched remote control off."""
        return CeleryRemote(self.app) if self.app.conf.worker_enable_remote_control else None

    def announce(self, what: Stage) -> None:
        """Send Celery's signals of a worker's stages."""
        if what == "ready":
            signals.worker_ready.send(sender=self._worker)
        elif what == "stopped":
            signals.worker_shutdown.send(sender=self._worker)
        else:
            signals.worker_shutting_down.send(sender=self._node, **SHUTDOWNS[what])

    def listener(self) -> TaskListener:
        """Celery's signals about tasks that its worker sends from the worker's process."""
        return SignalListener(self.app, self._worker, self._node)

    def on_pool_lifecycle(self, what: str, pool: Any, **facts: Any) -> None:
        """Celery's signals for the life of an eventlet pool, and for each child of a prefork pool."""
        name = f"worker_{what}" if what == "before_create_process" else f"eventlet_pool_{what}"
        getattr(signals, name).send(sender=pool, **facts)

    @cached_property
    def tasks(self) -> Mapping[str, Any]:
        """By name. Finalizes the app."""
        return self.app.tasks  # type: ignore[no-any-return]

    def task_names(self) -> Sequence[str]:
        """All names, sorted."""
        return sorted(self.tasks)

    def knows(self, name: str) -> bool:
        """Whether the app has such a task."""
        return name in self.tasks

    def policy(self, name: str) -> TaskPolicy:
        """The task's own settings, which fall back to the app's."""
        task = self.tasks.get(name)
        return TaskPolicy(late=False) if task is None else policy_of(task)

    def after_end(self, call: Call, ending: Ending, detail: str) -> Outcome:
        """The result says what happened; only what cannot be run again goes to the dead letters."""
        if ending in ("unknown", "lost", "unstartable"):
            return Outcome("dead", error=detail)
        if ending == "raised":
            return Outcome("failure", error=detail)
        if ending == "timeout":
            return Outcome("requeue" if self.policy(call.name).requeue_on_timeout else "failure", error=detail)
        return Outcome("ignored", error=detail)

    # -- the slot's side

    def _finalize(self) -> None:
        """Make the tasks, and import the module of the result backend: within the first task, that would be a part of
        its time limit, and each forked process would do it for itself."""
        self.app.finalize()
        _make_soft_limits_catchable()
        with suppress(Exception):  # a backend that does not exist is told by Celery itself, when a task needs it
            backends.by_url(self.app.conf.result_backend, self.app.loader)
            import_what_stores(self.app)

    def complete(self) -> None:
        """What ``imports`` and autodiscovery name."""
        self.app.loader.init_worker()
        self._finalize()

    def import_tasks(self) -> None:
        """What ``imports`` and autodiscovery name; and what the app wants to log."""
        self.app.loader.init_worker()
        let_the_app_log()
        self._finalize()

    def prepare_process(self, node: str) -> None:
        """As Celery's pool does in a fresh process: no inherited connections, this app the default, tracers built."""
        app, self._node = self.app, node
        if os.getpid() != self._worker_pid:
            app._after_fork()
            app.loader.init_worker()
        _set_task_join_will_block(not self._green)
        if self._green:  # else Celery makes a backend, with a connection of its own, for each greenlet: for each task
            app.conf.result_backend_thread_safe = True
        app.loader.init_worker_process()
        setup_worker_optimizations(app, node)
        set_default_app(app)
        _make_soft_limits_catchable()
        store_results_at_once(app)
        for name, task in app.tasks.items():
            let_body_finish(task, green=self._green)
            task.__trace__ = build_tracer(name, task, app.loader, node, Info=_TraceInfo, app=app)
        self._plain = plain_tracers(app, info=_TraceInfo, lasting=not self._green)
        for _, answer in signals.worker_process_init.send(sender=node):
            if isinstance(answer, Exception):  # Celery logs it and goes on, with connections that were not opened
                raise answer

    def finish_process(self) -> None:
        """As Celery's prefork pool does in its children; here for every pool."""
        signals.worker_process_shutdown.send(sender=self._node, pid=os.getpid(), exitcode=0)

    def is_async(self, name: str) -> bool:  # noqa: ARG002
        """Never: the tracer is called, also around an ``async def`` task."""
        return False

    async def run_async(self, call: Call) -> Outcome:
        """As ``run``."""
        return self.run(call)

    def run(self, call: Call) -> Outcome:
        """Trace the task. Its result is stored, its callbacks are sent, before this returns."""
        started = time.monotonic()
        task = self.tasks.get(call.name)
        if task is None:
            self.record_end(call, "unknown", call.name)
            return Outcome("dead", error=f"unknown task {call.name!r}")
        try:
            body = payload_of(call, self.accept)
        except BadMessage as error:
            return self._refuse(call, task, InvalidTaskError(str(error)))
        return self._trace(call, task, body, started)

    def _trace(self, call: Call, task: Any, body: Payload, started: float) -> Outcome:
        request = request_of(call, body, self._node)
        try:
            told, unstored = traced(task, call, body, request, plain=self._plain, defers=self._defers)
            value, info, runtime, shown = told
        except Reject as error:
            return _after_reject(error)
        except MemoryError as error:
            log.error("Task %s[%s] raised %r", call.name, call.id, error, exc_info=error)
            return self._fail(call, task, body, error)
        seconds = runtime if runtime is not None else time.monotonic() - started
        if info is None:
            return Outcome("success", seconds, result=shown if call.report else "", unstored=unstored)
        outcome = self._after(call, task, body, info, seconds)
        return outcome._replace(traceback=str(getattr(value, "traceback", "") or "")) if call.report else outcome

    def _after(self, call: Call, task: Any, body: Payload, info: Any, seconds: float) -> Outcome:
        error = info.retval
        if info.state == states.RETRY:
            return Outcome("retry", seconds, str(error))
        if info.state == states.IGNORED:
            return Outcome("ignored", seconds)
        if info.state == states.REJECTED:
            if not error.requeue:  # it will never run again: callers that wait for it must know
                self._ended(call, task, body).mark_failure(error)
            return _after_reject(error)
        return Outcome("failure", seconds, repr(error))

    def _refuse(self, call: Call, task: Any, error: Exception) -> Outcome:
        log.error("Task %s[%s] cannot be read: %s", call.name, call.id, error)
        return self._fail(call, task, NOTHING, error, state="dead")

    def _fail(self, call: Call, task: Any, body: Payload, error: Exception, *, state: Any = "failure") -> Outcome:
        self._ended(call, task, body).mark_failure(error)
        return Outcome(state, error=repr(error))

    # -- ends that the task could not tell

    def record_end(self, call: Call, ending: Ending, detail: str, *, limit_seconds: float | None = None) -> None:
        """Store the end, fire the errbacks, break the chord, send the signal: as Celery's worker does."""
        ended = self._ended(call, self.tasks.get(call.name), self._readable_body(call))
        if ended.task is None:
            ended.mark_unknown()
        elif ending in ("expired", "revoked", "terminated"):
            ended.mark_revoked(ending)
        elif ending == "lost" and ended.success_was_stored():
            log.warning("Task %s[%s] had stored its result before its process was lost", call.name, call.id)
        else:
            error = error_of(ending, detail, limit_seconds=limit_seconds)
            ended.mark_failure(error, hooks=ending == "timeout")

    def _ended(self, call: Call, task: Any, body: Payload) -> EndedTask:
        return EndedTask(self.app, task, call, body, self._node)

    def result_store(self) -> ResultStore | None:
        """Where slots leave their results to the worker's process."""
        return result_store(self.app) if self._defers else None

    def store_result(self, result: EncodedResult) -> None:
        """As Celery's backend stores it, with its retries."""
        self.app.backend.set(result.key, result.value)

    def mark_revoked(self, ids: Sequence[str]) -> None:
        """REVOKED at once, also for tasks in the queue or with a date; not for those that somebody has begun."""
        mark_unstarted_as_revoked(self.app, ids)

    def _readable_body(self, call: Call) -> Payload:
        try:
            return payload_of(call, self.accept)
        except BadMessage:
            return NOTHING


class _TraceInfo(TraceInfo):  # type: ignore[misc]
    """Stores a soft limit under the name that Celery's producers know."""

    __slots__ = ()

    def __init__(self, state: str, retval: Any = None) -> None:
        if isinstance(retval, SoftTimeLimit):
            translated = SoftTimeLimitExceeded(*retval.args)
            retval = translated.with_traceback(retval.__traceback__)
        super().__init__(state, retval)


def _make_soft_limits_catchable() -> None:
    """Let ``except SoftTimeLimitExceeded`` in a task catch the soft limit of our pools, which know no billiard."""
    if SoftTimeLimitExceeded not in SoftTimeLimit.__mro__:
        SoftTimeLimit.__bases__ = (*SoftTimeLimit.__bases__, SoftTimeLimitExceeded)


def _after_reject(error: Any) -> Outcome:
    return Outcome("requeue" if error.requeue else "dead", error=str(error.reason or error))
