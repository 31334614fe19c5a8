"""Ends of Celery tasks that its tracer cannot see: results, errbacks, hooks and signals, as its own worker has them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery import signals, states
from celery.app.task import Context
from celery.exceptions import InvalidTaskError, NotRegistered

from fleet.broker.envelope import delivery_info_in
from fleet.broker.message_body import Payload
from fleet.worker.task.call import Call, Ending

log = logging.getLogger("fleet.task")

NOTHING = Payload((), {}, {})
_UNSTARTED = frozenset({states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED})


@dataclass(frozen=True, slots=True)
class EndedTask:
    """One run of a task that is over. task: Celery's task, None where the app has none of this name."""

    app: Any
    task: Any
    call: Call
    body: Payload
    node: str

    def mark_unknown(self) -> None:
        """Nobody knows the task."""
        self.app.backend.mark_as_failure(self.call.id, NotRegistered(self.call.name), request=self._context())

    def mark_revoked(self, ending: Ending) -> None:
        """It did not run, or was ended on request."""
        self.task.backend.mark_as_revoked(
            self.call.id, ending, request=self._context(), store_result=self._stores_errors()
        )

    def mark_failure(self, error: BaseException, *, hooks: bool = False) -> None:
        """It failed. hooks: whether ``on_failure`` and ``after_return`` of the task have yet to be called."""
        task, call, body, context = self.task, self.call, self.body, self._context()
        task.backend.mark_as_failure(call.id, error, request=context, store_result=self._stores_errors())
        einfo = _einfo_of(error)
        task.request_stack.push(context)
        try:
            if hooks:
                self._call_hooks(error, einfo)
            signals.task_failure.send(
                sender=task,
                task_id=call.id,
                exception=error,
                args=body.args,
                kwargs=body.kwargs,
                traceback=error.__traceback__,
                einfo=einfo,
            )
        finally:
            task.request_stack.pop()

    def success_was_stored(self) -> bool:
        """Whether the task had stored its result before its process was lost."""
        if not self._stores_results():
            return False
        try:
            return bool(self.task.backend.get_state(self.call.id) == states.SUCCESS)
        except Exception:
            return False

    def _call_hooks(self, error: BaseException, einfo: Any) -> None:
        task, call, body = self.task, self.call, self.body
        try:
            task.on_failure(error, call.id, body.args, body.kwargs, einfo)
            task.after_return(states.FAILURE, error, call.id, body.args, body.kwargs, einfo)
        except Exception:
            log.exception("on_failure or after_return of %s[%s] raised", call.name, call.id)

    def _context(self) -> Any:
        return Context(request_of(self.call, self.body, self.node))

    def _stores_results(self) -> bool:
        return not ignores_result(self.call, self.task)

    def _stores_errors(self) -> bool:
        return self._stores_results() or bool(self.task.store_errors_even_if_ignored)


def mark_unstarted_as_revoked(app: Any, ids: Sequence[str]) -> None:
    """REVOKED, for those of these tasks that nobody has begun. Errors are logged."""
    for task_id in ids:
        try:
            if app.backend.get_state(task_id) in _UNSTARTED:
                app.backend.mark_as_revoked(task_id, reason="revoked", store_result=True)
        except Exception as error:
            log.warning("it could not be stored that task %s is revoked: %r", task_id, error)


def ignores_result(call: Call, task: Any) -> bool:
    """The message's word goes before the task's."""
    ignored = call.headers.get("ignore_result")
    return bool(task.ignore_result if ignored is None else ignored)


def request_of(call: Call, body: Payload, node: str) -> dict[str, Any]:
    """The request as ``celery.worker.request.Request`` builds it."""
    properties = call.properties
    info = delivery_info_in(properties)
    return {
        **call.headers,
        "id": call.id,
        "task": call.name,
        "properties": dict(properties),
        "reply_to": properties.get("reply_to"),
        "correlation_id": properties.get("correlation_id"),
        "hostname": node,
        "delivery_info": {
            "exchange": info.get("exchange"),
            "routing_key": info.get("routing_key") or call.queue,
            "priority": properties.get("priority"),
            "redelivered": call.redelivered,
        },
        "args": body.args,
        "kwargs": body.kwargs,
        "is_eager": False,
        **body.embed,
    }


def error_of(ending: Ending, detail: str, *, limit_seconds: float | None) -> Exception:
    """The exception that stands for an end in results and signals. limit_seconds: the hard limit that was reached."""
    if ending == "timeout":
        return TimeLimitExceeded(detail if limit_seconds is None else limit_seconds)  # type: ignore[no-any-return]
    if ending == "terminated":
        return Terminated(detail)  # type: ignore[no-any-return]
    if ending == "unstartable":
        return InvalidTaskError(detail)  # type: ignore[no-any-return]
    return WorkerLostError(detail)  # type: ignore[no-any-return]


def _einfo_of(error: BaseException) -> Any:
    """With a traceback also for an error that was never raised: receivers print it."""
    if error.__traceback__ is None:
        try:
            raise error
        except BaseException as raised:
            error = raised
    return ExceptionInfo((type(error), error, error.__traceback__))
