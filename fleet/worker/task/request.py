"""A task as receivers of signals see it: those attributes of Celery's request that need no decoding."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from fleet.worker.task.job import Job

_OF_MESSAGE = {
    name: name
    for name in (
        "id",
        "name",
        "headers",
        "properties",
        "args",
        "kwargs",
        "argsrepr",
        "kwargsrepr",
        "root_id",
        "parent_id",
        "group",
        "correlation_id",
        "reply_to",
        "retries",
    )
} | {"task_id": "id", "task_name": "name", "request_dict": "headers"}
"""Attribute -> the attribute of the task message. ``args`` and ``kwargs`` decode the body, and raise BadMessage."""


class Request:
    """Read-only. ``job`` holds a task message: what cannot be read has no request."""

    __slots__ = ("_job", "hostname", "task")

    def __init__(self, job: Job, *, hostname: str, task: Any = None) -> None:
        self._job = job
        self.hostname = hostname
        self.task = task

    def __repr__(self) -> str:
        return f"<Request {self._job.call.name}[{self._job.call.id}]>"

    def __getattr__(self, name: str) -> Any:
        if name not in _OF_MESSAGE:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return getattr(self._job.message, _OF_MESSAGE[name])

    @property
    def message(self) -> Any:
        """As it was delivered: headers, properties, body."""
        return self._job.delivery

    @property
    def eta(self) -> datetime | None:
        """When it may start at the earliest, in local time; None: at once."""
        return _moment(self._job.due)

    @property
    def expires(self) -> datetime | None:
        """When it may start at the latest, in local time; None: no limit."""
        return _moment(self._job.expires_at)

    @property
    def delivery_info(self) -> Mapping[str, Any]:
        """routing_key (the queue), redelivered, priority."""
        call = self._job.call
        return {
            "routing_key": call.queue,
            "redelivered": call.redelivered,
            "priority": call.properties.get("priority"),
        }

    @property
    def acknowledged(self) -> bool:
        """Whether its message is acknowledged."""
        return self._job.acked

    @property
    def time_start(self) -> float | None:
        """Unix seconds; None before it starts."""
        return self._job.started_at or None


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds).astimezone() if seconds else None
