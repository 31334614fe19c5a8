"""A short way through Celery's tracer, for runs of which nothing is to be done but the task itself.

Celery's tracer does what any task may need: it sends what follows, tells signals, has hooks called, stores that a task
has started. Most runs need none of it, or only that their result is stored. For those the steps that are left are made
here, in the order and with the functions of ``celery.app.trace.build_tracer`` of Celery 5.7, so that nothing that the
task, its logs or its failures show is different but the innermost frames of tracebacks. All other runs are left to
Celery's tracer: whether a task is plain is decided once in each process, whether a run of it is, with its message.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import celery
from billiard.einfo import ExceptionInfo
from celery import signals, states
from celery._state import _task_stack
from celery.app import backends, trace
from celery.app.task import Context, Task, get_actual_ignore_result
from celery.backends.base import DisabledBackend
from celery.exceptions import Ignore, Reject, Retry
from celery.loaders.base import BaseLoader
from celery.utils.saferepr import saferepr
from celery.utils.threads import _LocalStack
from kombu.exceptions import EncodeError
from kombu.utils.encoding import safe_repr

Tracer = Callable[[str, Sequence[Any], Mapping[str, Any], Mapping[str, Any]], Any]
"""(task id, args, kwargs, request) -> what Celery's tracer returns, or None: that one is to run the task."""


class PlainTracer(NamedTuple):
    """The short way for one task. may_store: its results may be stored, else they are ignored."""

    run: Tracer
    may_store: bool


PlainTracers = Mapping[str, PlainTracer]
"""By the name of the task."""

_FOLLOWED = (5, 7)
"""The version of Celery whose tracer is followed here. With another its own runs every task."""

_KNOWN = frozenset({*vars(Context), "lang", "task", "argsrepr", "kwargsrepr", "compression"})
"""Keys of a request that are no headers which its sender has added."""

_HOOKS = ("before_start", "on_success", "after_return")


def plain_tracers(app: Any, *, info: type, lasting: bool) -> PlainTracers:
    """The short way for each task of the app that has one. All have Celery's tracer.

    lasting: a thread, or greenlet, runs one task after another, so that stacks of its own may stay with it.
    """
    found = {
        name: plain_tracer(task, task.__trace__, app=app, info=info, lasting=lasting)
        for name, task in app.tasks.items()
    }
    return {name: tracer for name, tracer in found.items() if tracer is not None}


def plain_tracer(
    task: Any, usual: Callable[..., Any], *, app: Any, info: type, lasting: bool = False
) -> PlainTracer | None:
    """The short way for this task; None where it needs Celery's tracer, ``usual``.  info: the class of an end."""
    if celery.VERSION[:2] != _FOLLOWED or not (_is_plain(task, app) and _is_celerys(usual)):
        return None
    keeps_results = _keeps_results(app)
    if keeps_results is None:
        return None
    name, stack, repr_length = task.name, task.request_stack, task.resultrepr_maxsize
    listened = (signals.task_prerun.receivers, signals.task_postrun.receivers, signals.task_success.receivers)
    prerun, postrun, success = listened
    logs_success = trace.logger.isEnabledFor(logging.INFO)

    def traced(uuid: str, args: Sequence[Any], kwargs: Mapping[str, Any], request: Mapping[str, Any]) -> Any:
        follows = request.get("callbacks") or request.get("chain") or request.get("chord")
        if prerun or postrun or success or follows or type(kwargs) is not dict or task.__trace__ is not usual:
            return None
        started = time.monotonic()
        context = _context(request, args, kwargs)
        stores = keeps_results and not get_actual_ignore_result(task, context)
        if stores and task.track_started:
            return None
        try:
            tasks, contexts = _task_stack.push(task), stack.push(context)
            try:
                if len(contexts) > 1:  # within another run of this task
                    return None
                try:
                    value = _run(task, context, args, kwargs)
                except Exception as error:
                    return _ended(task, context, error, info)
                if stores:
                    try:
                        task.backend.mark_as_done(uuid, value, context, True)
                    except EncodeError as error:
                        return _ended(task, context, error, info)
                seconds = time.monotonic() - started
                if logs_success:
                    _log_success(name, context, value=saferepr(value, repr_length), seconds=seconds)
                return trace.trace_ok_t(value, None, seconds, "")
            finally:
                if lasting:  # the emptied lists stay: making them anew costs more than all else of a stack
                    tasks.pop()
                    contexts.pop()
                else:
                    _task_stack.pop()
                    stack.pop()
        except (MemoryError, Reject):
            raise
        except Exception as error:
            return _went_wrong(task, context, error, info, request=request)

    return PlainTracer(traced, may_store=keeps_results)


def _is_plain(task: Any, app: Any) -> bool:
    """Whether the app has changed nothing of how this task runs, and keeps its results where nothing else happens."""
    loader = app.loader
    hooked = any(trace.task_has_custom(task, name) for name in _HOOKS)
    loads = any(
        getattr(getattr(loader, name), "__func__", None) is not getattr(BaseLoader, name)
        for name in ("on_task_init", "on_process_cleanup")
    )
    called = getattr(Task, "_stackprotected", False) and task.__class__.__call__ is Task.__call__
    own_backend = task._backend is not None or task.__class__.backend is not Task.backend
    plain = called and not (hooked or loads or own_backend) and type(task.request_stack) is _LocalStack
    return plain and not app.conf.worker_deduplicate_successful_tasks


def _keeps_results(app: Any) -> bool | None:
    """Whether the app's backend stores results that are not ignored; None for one that may do more after a task."""
    try:
        kind, _ = backends.by_url(app.backend_cls or app.conf.result_backend, app.loader)
    except Exception:  # told by Celery itself, with each task
        return None
    if kind is DisabledBackend:
        return False
    is_redis = (kind.__module__, kind.__name__) == ("celery.backends.redis", "RedisBackend")
    return True if is_redis else None


def _is_celerys(tracer: Any) -> bool:
    """Whether this is what ``build_tracer`` makes, and not what a tool for monitoring has put around it."""
    return (tracer.__module__, tracer.__qualname__) == (trace.__name__, "build_tracer.<locals>.trace_task")


def _context(request: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Context:
    """``Context(request, args=args, called_directly=False, kwargs=kwargs)``."""
    context = Context.__new__(Context)
    context.__dict__ = fields = dict(request)
    fields["args"], fields["called_directly"], fields["kwargs"] = args, False, kwargs
    if "timelimit" in request:
        limits = request["timelimit"]
        both = limits if isinstance(limits, list | tuple) and len(limits) >= 2 else (None, None)
        fields["time_limit"], fields["soft_time_limit"] = both[0], both[1]
    if fields.get("headers") is None:
        added = not _KNOWN.issuperset(request)
        fields["headers"] = {key: value for key, value in request.items() if key not in _KNOWN} if added else None
    return context


def _run(task: Any, context: Context, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """As ``Task.__call__`` does in a worker."""
    context._protected = 1
    return task.run(*args, **kwargs)


def _ended(task: Any, context: Context, error: Exception, info: type) -> Any:
    """It has raised."""
    if isinstance(error, Reject | Ignore):
        rejects = isinstance(error, Reject)
        end: Any = info(states.REJECTED if rejects else states.IGNORED, error)
        einfo = ExceptionInfo(internal=True)
        (end.handle_reject if rejects else end.handle_ignore)(task, context)
    else:
        retries = isinstance(error, Retry)
        end = info(states.RETRY if retries else states.FAILURE, error)
        einfo = end.handle_error_state(task, context, eager=False, call_errbacks=not retries)
    trace.traceback_clear(error)
    return trace.trace_ok_t(einfo, end, None, None)


def _went_wrong(task: Any, context: Context, error: Exception, info: type, *, request: Mapping[str, Any]) -> Any:
    """Something has failed beside the task."""
    trace._signal_internal_error(task, context.id, context.args, context.kwargs, request, error)
    reported = trace.report_internal_error(task, error)
    end: Any = info(states.FAILURE, error)
    end.handle_error_state(task, context, eager=False, call_errbacks=True)
    return trace.trace_ok_t(reported, end, None, None)


def _log_success(name: str, context: Context, *, value: str, seconds: float) -> None:
    trace.info(
        trace.LOG_SUCCESS,
        {
            "id": context.id,
            "name": trace.get_task_name(context, name),
            "return_value": value,
            "runtime": seconds,
            "args": context.get("argsrepr") or safe_repr(context.args),
            "kwargs": context.get("kwargsrepr") or safe_repr(context.kwargs),
        },
    )
