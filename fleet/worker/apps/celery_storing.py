"""Which results of a Celery app a slot stores, and which it leaves to the worker's process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from celery import Task, signals

from fleet.broker.message_body import Payload
from fleet.worker.apps.base import ResultStore
from fleet.worker.apps.celery_plain import PlainTracer, PlainTracers
from fleet.worker.apps.deferred_result import Deferral
from fleet.worker.task.call import Call, EncodedResult


def store_results_at_once(app: Any) -> None:
    """On Redis, where most apps keep them. The module is not imported by an app that keeps its results elsewhere."""
    if _keeps_results_on_redis(app):
        from fleet.worker.apps.celery_results import store_all_at_once

        store_all_at_once(app)


def result_store(app: Any) -> ResultStore | None:
    """Stores what slots leave to the worker's process; None where slots store all."""
    if not _keeps_results_on_redis(app):
        return None
    from fleet.worker.apps.celery_results import ResultWriter

    return ResultWriter(app)


def traced(
    task: Any, call: Call, body: Payload, request: Mapping[str, Any], *, plain: PlainTracers, defers: bool
) -> tuple[Any, EncodedResult | None]:
    """What Celery's tracer returns, and the result that is left to be stored. Raises what the tracer raises.

    plain: short ways, for runs of which nobody asks what they return, as text.
    defers: whether results may be left to the worker's process.
    """
    short = plain.get(call.name) if not call.report else None
    ignored = short is not None and not short.may_store
    if ignored or not (defers and _may_be_stored_later(task)):
        return _told(task, short, call, body, request), None
    with Deferral(call.id) as deferral:
        told = _told(task, short, call, body, request)
    return told, deferral.result


def _told(task: Any, short: PlainTracer | None, call: Call, body: Payload, request: Mapping[str, Any]) -> Any:
    if short is not None and (told := short.run(call.id, body.args, body.kwargs, request)) is not None:
        return told
    return task.__trace__(call.id, body.args, body.kwargs, request)


def import_what_stores(app: Any) -> None:
    """So that no forked process imports it for itself."""
    if _keeps_results_on_redis(app):
        from fleet.worker.apps import celery_results  # noqa: F401


def _keeps_results_on_redis(app: Any) -> bool:
    return str(app.conf.result_backend).startswith(("redis://", "rediss://", "redis+socket://"))


def _may_be_stored_later(task: Any) -> bool:
    """Whether nothing of the app runs in the slot after a success that might look for its result there."""
    kind = type(task)
    hooked = kind.on_success is not Task.on_success or kind.after_return is not Task.after_return
    return not (hooked or signals.task_success.receivers or signals.task_postrun.receivers)
