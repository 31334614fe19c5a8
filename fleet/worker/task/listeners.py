"""Listeners of what happens to tasks: events for monitors, signals for apps. The worker works without any."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from fleet.worker.task.call import Outcome
from fleet.worker.task.job import Job

log = logging.getLogger("fleet.worker")


class TaskEvent(Enum):
    """What can happen to one task, by the names of Celery's events."""

    RECEIVED = "received"
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    REJECTED = "rejected"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


class TaskListener(Protocol):
    """Called in the worker's process with the channel's lock held. Must be quick; what it raises is logged."""

    def on_event(self, event: TaskEvent, job: Job, outcome: Outcome | None = None) -> None:
        """``outcome`` is set for events that end a task."""
        ...


def tell(listeners: Iterable[TaskListener], event: TaskEvent, job: Job, outcome: Outcome | None = None) -> None:
    """Tell all of them. One that fails harms neither the task nor the others."""
    for listener in listeners:
        try:
            listener.on_event(event, job, outcome)
        except Exception:
            log.exception("a listener failed over %s of task %s[%s]", event.value, job.call.name, job.call.id)


class RateGate(Protocol):
    """Decides whether a task may start now: rate limits."""

    @property
    def full(self) -> bool:
        """Whether so many tasks wait for this gate that no more should be fetched."""
        ...

    def pause_seconds(self, job: Job) -> float:
        """How long this task must still wait; 0.0: it may start, and is counted."""
        ...

    def is_limited(self, task_name: str) -> bool:
        """Whether tasks of this name may have to wait."""
        ...

    def forget_waiting(self) -> None:
        """The tasks that waited have been given back."""
        ...


_ENDS = {
    "success": TaskEvent.SUCCEEDED,
    "failure": TaskEvent.FAILED,
    "dead": TaskEvent.FAILED,
    "retry": TaskEvent.RETRIED,
    "requeue": TaskEvent.REJECTED,
}


def end_of(job: Job, outcome: Outcome) -> TaskEvent | None:
    """How a task ended, for listeners; None for one that asked to be ignored."""
    if job.ending in ("revoked", "expired", "terminated"):
        return TaskEvent.REVOKED
    if job.ending == "unknown":
        return TaskEvent.UNKNOWN
    return _ENDS.get(outcome.state)
