"""A task on its way, as receivers of signals see it: the attributes of Celery's request that can be had for nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from fleet.worker.application import Call
from fleet.worker.job import Job


class Request:
    """Read-only."""

    __slots__ = ("_job", "hostname", "task")

    def __init__(self, job: Job, *, hostname: str, task: Any = None) -> None:
        self._job = job
        self.hostname = hostname
        self.task = task

    def __repr__(self) -> str:
        return f"<Request {self.name}[{self.id}]>"

    @property
    def _call(self) -> Call:
        return self._job.call

    @property
    def id(self) -> str:
        """Of the task."""
        return self._call.id

    task_id = id

    @property
    def name(self) -> str:
        """Of the task."""
        return self._call.name

    task_name = name

    @property
    def message(self) -> Any:
        """As it was delivered: headers, properties, body."""
        return self._job.delivery

    @property
    def headers(self) -> Mapping[str, Any]:
        """Of the message."""
        return self._call.headers

    request_dict = headers

    @property
    def properties(self) -> Mapping[str, Any]:
        """Of the message."""
        return self._call.properties

    @property
    def argsrepr(self) -> str:
        """Its positional arguments, as the producer wrote them down."""
        return str(self.headers.get("argsrepr") or "")

    @property
    def kwargsrepr(self) -> str:
        """Its keyword arguments, as the producer wrote them down."""
        return str(self.headers.get("kwargsrepr") or "")

    @property
    def args(self) -> Sequence[Any]:
        """Its positional arguments, decoded when they are asked for. Raises BadMessage."""
        return () if self._job.message is None else self._job.message.payload.args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Its keyword arguments, decoded when they are asked for. Raises BadMessage."""
        return {} if self._job.message is None else self._job.message.payload.kwargs

    @property
    def retries(self) -> int:
        """How often it was retried before."""
        return self._job.key[1]

    @property
    def eta(self) -> datetime | None:
        """Not before."""
        return _moment(self._job.due)

    @property
    def expires(self) -> datetime | None:
        """Not after."""
        return _moment(self._job.expires_at)

    @property
    def root_id(self) -> str | None:
        """The first task of its workflow."""
        return self.headers.get("root_id")

    @property
    def parent_id(self) -> str | None:
        """The task that sent it."""
        return self.headers.get("parent_id")

    @property
    def group(self) -> str | None:
        """The group it belongs to."""
        return self.headers.get("group")

    @property
    def correlation_id(self) -> str | None:
        """Of the message."""
        return self.properties.get("correlation_id")

    @property
    def reply_to(self) -> str | None:
        """Of the message."""
        return self.properties.get("reply_to")

    @property
    def delivery_info(self) -> Mapping[str, Any]:
        """Where it came from."""
        return {
            "routing_key": self._call.queue,
            "redelivered": self._call.redelivered,
            "priority": self.properties.get("priority"),
        }

    @property
    def acknowledged(self) -> bool:
        """Whether the broker was told already."""
        return self._job.acked

    @property
    def time_start(self) -> float | None:
        """When it began, Unix seconds."""
        return self._job.started_at or None


def _moment(seconds: float) -> datetime | None:
    return datetime.fromtimestamp(seconds).astimezone() if seconds else None
