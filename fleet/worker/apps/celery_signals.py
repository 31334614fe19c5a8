"""Celery's signals about the worker and its tasks, as its own worker sends them from its main process."""

from __future__ import annotations

import logging
from typing import Any

from celery import signals
from celery.app.task import Context
from celery.exceptions import InvalidTaskError, NotRegistered

from fleet.broker.message_body import BadMessage, Payload
from fleet.worker.apps.celery_ends import NOTHING, request_of
from fleet.worker.apps.celery_request import CeleryRequest
from fleet.worker.task.call import Outcome
from fleet.worker.task.job import Job
from fleet.worker.task.listeners import TaskEvent

_STARTED, _SUCCEEDED = TaskEvent.STARTED, TaskEvent.SUCCEEDED


def let_the_app_log() -> None:
    """An app may set up logging itself, or add to ours, with the same signals as under Celery's worker."""
    root = logging.getLogger()
    known = {"loglevel": root.level, "logfile": None, "format": "", "colorize": False}
    signals.setup_logging.send(sender=None, **known)
    signals.after_setup_logger.send(sender=None, logger=root, **known)
    signals.after_setup_task_logger.send(sender=None, logger=logging.getLogger("celery.task"), **known)


class Sender:
    """What stands for the worker in Celery's signals: the attributes that receivers use (Django's fixup is one)."""

    def __init__(self, app: Any, hostname: str, pool: str, concurrency: int) -> None:
        self.app = app
        self.hostname = hostname
        self.pool_cls = pool
        self.concurrency = concurrency


class SignalListener:
    """Sends the signals that Celery's consumer sends. What the tracer sends from the slot is not repeated."""

    def __init__(self, app: Any, worker: Sender, node: str) -> None:
        self._app = app
        self._worker = worker
        self._node = node

    def on_event(self, event: TaskEvent, job: Job, outcome: Outcome | None = None) -> None:
        """One thing happened to one task."""
        if event is _SUCCEEDED or event is _STARTED:  # first: most of what is told
            return
        if event is TaskEvent.RECEIVED:
            if signals.task_received.receivers:
                signals.task_received.send(sender=self._worker, request=self._request(job))
        elif event is TaskEvent.REVOKED:
            self._revoked(job)
        elif event is TaskEvent.UNKNOWN:
            name, error = job.call.name, NotRegistered(job.call.name)
            signals.task_unknown.send(sender=self._worker, message=job.delivery, exc=error, name=name, id=job.call.id)
        elif event is TaskEvent.FAILED and job.message is None:
            error = InvalidTaskError(outcome.error if outcome is not None else "")
            signals.task_rejected.send(sender=self._worker, message=job.delivery, exc=error)

    def _request(self, job: Job) -> CeleryRequest:
        return CeleryRequest(job, app=self._app, hostname=self._node, task=self._app.tasks.get(job.call.name))

    def _revoked(self, job: Job) -> None:
        """The request is what the task would have seen, as under Celery's worker."""
        signals.task_revoked.send(
            sender=self._app.tasks.get(job.call.name),
            request=Context(request_of(job.call, _readable(job), self._node)),
            terminated=job.ending == "terminated",
            signum=job.signum,
            expired=job.ending == "expired",
        )


def _readable(job: Job) -> Payload:
    try:
        return job.message.payload if job.message is not None else NOTHING
    except BadMessage:
        return NOTHING
