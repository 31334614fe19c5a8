"""Sends the signals of a ``Tasks`` registry: around a task in its slot, and in the worker's process for the rest."""

from __future__ import annotations

from typing import Any

from fleet import signals
from fleet.broker.message_body import Payload
from fleet.tasks import CURRENT, Task, Tasks
from fleet.worker.task.call import Call, Outcome
from fleet.worker.task.job import Job
from fleet.worker.task.listeners import TaskEvent
from fleet.worker.task.request import Request
from pools.errors import HardTimeLimit, PoolError, SlotLost

_ERRORS: dict[str, type[PoolError]] = {"timeout": HardTimeLimit, "lost": SlotLost}
_STARTED, _SUCCEEDED = TaskEvent.STARTED, TaskEvent.SUCCEEDED
_STATES = {"success": "SUCCESS", "retry": "RETRY", "dead": "FAILURE"}


def before(task: Task[..., Any], call: Call, payload: Payload) -> None:
    """In the slot, just before the function is called."""
    if signals.task_prerun.heard:
        signals.task_prerun.send(task, task_id=call.id, task=task, args=payload.args, kwargs=payload.kwargs)


def after(
    task: Task[..., Any], call: Call, payload: Payload, outcome: Outcome, *, result: object, error: BaseException | None
) -> None:
    """In the slot, when it is known what becomes of the task."""
    if outcome.state == "success":
        if signals.task_success.heard:
            signals.task_success.send(task, result=result, runtime=outcome.runtime_seconds)
    elif outcome.state == "retry":
        signals.task_retry.send(task, request=CURRENT.get(), reason=error, einfo=None)
    elif error is not None:
        signals.task_failure.send(
            task,
            task_id=call.id,
            exception=error,
            args=payload.args,
            kwargs=payload.kwargs,
            traceback=error.__traceback__,
            einfo=None,
        )
    if signals.task_postrun.heard:
        signals.task_postrun.send(
            task,
            task_id=call.id,
            task=task,
            args=payload.args,
            kwargs=payload.kwargs,
            retval=result if error is None else error,
            state=_STATES.get(outcome.state, "IGNORED"),
        )


class SignalListener:
    """Sends signals of events that only the worker's process knows."""

    def __init__(self, tasks: Tasks, node: str) -> None:
        self._tasks = tasks
        self._node = node

    def on_event(self, event: TaskEvent, job: Job, outcome: Outcome | None = None) -> None:
        """One thing happened to one task."""
        if event is _SUCCEEDED or event is _STARTED:  # first: most events are these
            return
        if event is TaskEvent.RECEIVED:
            if signals.task_received.heard:
                signals.task_received.send(self._node, request=self._request(job))
        elif event is TaskEvent.REVOKED:
            self._revoked(job)
        elif event is TaskEvent.UNKNOWN:
            name, message = job.call.name, job.delivery
            signals.task_unknown.send(self._node, message=message, exc=KeyError(name), name=name, id=job.call.id)
        elif event is TaskEvent.FAILED and job.message is None:
            error = ValueError(outcome.error if outcome is not None else "")
            signals.task_rejected.send(self._node, message=job.delivery, exc=error)
        elif job.ending is not None and outcome is not None:
            self._ended_from_outside(job, event)

    def _request(self, job: Job) -> Request:
        return Request(job, hostname=self._node, task=self._tasks.get(job.call.name))

    def _sender(self, job: Job) -> object:
        return self._tasks.get(job.call.name) or self._node

    def _revoked(self, job: Job) -> None:
        signals.task_revoked.send(
            self._sender(job),
            request=self._request(job),
            terminated=job.ending == "terminated",
            signum=job.signum,
            expired=job.ending == "expired",
        )

    def _ended_from_outside(self, job: Job, event: TaskEvent) -> None:
        """Send the signal that the slot could not: for a hard limit, a process that died, a pool that refused."""
        error = _ERRORS.get(job.ending or "", PoolError)(job.detail)
        if event is TaskEvent.RETRIED:
            signals.task_retry.send(self._sender(job), request=self._request(job), reason=error, einfo=None)
        elif event is TaskEvent.FAILED:
            signals.task_failure.send(
                self._sender(job), task_id=job.call.id, exception=error, args=(), kwargs={}, traceback=None, einfo=None
            )
