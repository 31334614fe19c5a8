"""One message in this worker's hands, from the fetch to its acknowledgement."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.broker.delivery import Delivery
from fleet.broker.message import TaskMessage
from fleet.worker.task.call import Call, Ending, Outcome, TaskPolicy
from pools.handle import Handle

Key = tuple[str, int]


@dataclass(slots=True, eq=False)
class Job:
    """A message, what is known about its task, and its progress.

    key: task id and number of retries: the same run of the same task, however often it is delivered.
    due, expires_at: Unix time, 0.0 for none.  ending: set when the task must not run (any more) and its end is to be
    reported. slot: its place in the record, -1 while it does not run.  acked: its message is acknowledged.
    settled: nothing is left to do; a late report of the pool about it is ignored.
    connection_number: of the connection it came over.  story: headers about its end, for the dead letter.
    limit_seconds: the hard limit it ran with.  signum: of the signal that ended it on request.
    delayed: it waited here for its date or its rate.  unstored: it is over, and a slot must store its result.
    """

    delivery: Delivery
    message: TaskMessage | None
    call: Call
    policy: TaskPolicy
    key: Key
    due: float = 0.0
    expires_at: float = 0.0
    ending: Ending | None = None
    detail: str = ""
    slot: int = -1
    started_at: float = 0.0
    handle: Handle | None = None
    acked: bool = False
    settled: bool = False
    revoked: bool = False
    connection_number: int = 0
    story: Mapping[str, str] | None = None
    limit_seconds: float | None = None
    signum: int | None = None
    delayed: bool = False
    unstored: Outcome | None = None

    @property
    def fetched(self) -> tuple[float, float]:
        """When it was asked for and when it came (monotonic)."""
        return (self.delivery.asked_at, self.delivery.received_at)

    def describe(self) -> dict[str, Any]:
        """As ``celery inspect`` shows a task."""
        headers, handle = self.call.headers, self.handle
        return {
            "id": self.call.id,
            "name": self.call.name,
            "args": headers.get("argsrepr") or "",
            "kwargs": headers.get("kwargsrepr") or "",
            "type": self.call.name,
            "time_start": self.started_at or None,
            "acknowledged": self.acked,
            "delivery_info": {"routing_key": self.delivery.queue, "redelivered": self.delivery.redelivered},
            "worker_pid": handle.pid if handle is not None and handle.pid else None,
        }

    def runtime_seconds(self) -> float:
        """How long it has run."""
        return time.time() - self.started_at if self.started_at else 0.0


def unreadable_job(delivery: Delivery) -> Job:
    """A message that is no task, as a job that can only go to the dead letters: its body stays as it came."""
    call = Call(delivery.tag, "", delivery.headers, delivery.body, queue=delivery.queue)
    return Job(delivery, None, call, TaskPolicy(), (delivery.tag, 0))
