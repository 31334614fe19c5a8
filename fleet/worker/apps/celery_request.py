"""A task on its way as receivers of Celery's ``task_received`` see it: every attribute of Celery's own request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from celery.worker.request import Request as OwnRequest

from fleet.broker.envelope import delivery_info_in
from fleet.worker.apps.celery_ends import ignores_result, request_of
from fleet.worker.task.job import Job
from fleet.worker.task.request import Request


class CeleryRequest(Request):
    """Read-only. What Celery's request does to the task, fleet's worker does itself; such a method raises."""

    __slots__ = ("app",)

    connection_errors = ()
    eventer = None

    def __init__(self, job: Job, *, app: Any, hostname: str, task: Any) -> None:
        super().__init__(job, hostname=hostname, task=task)
        self.app = app

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_") or not hasattr(OwnRequest, name):
                raise
            return _refuse(name)

    @property
    def _headers(self) -> Mapping[str, Any]:
        return self._job.call.headers

    def _list(self, header: str) -> Sequence[Any]:
        """What the sender wrote there, where it is a list; else nothing."""
        value = self._headers.get(header)
        return value if isinstance(value, list | tuple) else []

    # -- the message

    @property
    def type(self) -> str:
        """The name of the task."""
        return self._job.call.name

    @property
    def name(self) -> str:
        """The name to show, which the sender may have chosen."""
        return str(self._headers.get("shadow") or self._job.call.name)

    @property
    def task_name(self) -> str:
        """The same."""
        return self.name

    @property
    def request_dict(self) -> dict[str, Any]:
        """What the task sees as its request."""
        assert self._job.message is not None
        return request_of(self._job.call, self._job.message.payload, self.hostname)

    @property
    def body(self) -> Any:
        """Still encoded."""
        return self._job.call.body

    @property
    def content_type(self) -> str:
        """Of the body."""
        return self._job.call.content_type

    @property
    def content_encoding(self) -> str:
        """Of the body."""
        return self._job.call.content_encoding

    @property
    def utc(self) -> bool:
        """Whether its times are UTC."""
        return bool(self._job.message is None or self._job.message.utc)

    @property
    def tzlocal(self) -> Any:
        """The app's time zone."""
        return self.app.conf.timezone

    @property
    def delivery_info(self) -> Mapping[str, Any]:
        """exchange, routing_key, priority, redelivered."""
        exchange = delivery_info_in(self._job.call.properties).get("exchange")
        return {"exchange": exchange, **super().delivery_info}

    # -- canvas and stamps

    @property
    def chord(self) -> Any:
        """What follows its group."""
        return self.request_dict.get("chord")

    @property
    def errbacks(self) -> Any:
        """What follows its failure."""
        return self.request_dict.get("errbacks")

    @property
    def group_index(self) -> Any:
        """Its place in its group."""
        return self._headers.get("group_index")

    @property
    def groups(self) -> Sequence[Any]:
        """Ids of the groups around it."""
        return self._list("groups")

    @property
    def replaced_task_nesting(self) -> int:
        """How often ``Task.replace`` put one task in the place of another."""
        nesting = self._headers.get("replaced_task_nesting")
        return nesting if isinstance(nesting, int) else 0

    @property
    def stamped_headers(self) -> Sequence[str]:
        """Names of its stamps."""
        return [name for name in self._list("stamped_headers") if isinstance(name, str)]

    @property
    def stamps(self) -> Mapping[str, Any]:
        """Its stamps by name."""
        assert self._job.message is not None
        stamps = self._job.message.stamps
        return {name: stamps.get(name) for name in self.stamped_headers}

    # -- how it runs

    @property
    def time_limits(self) -> Sequence[Any]:
        """What the sender asked for: hard, soft."""
        return self._list("timelimit") or (None, None)

    @property
    def ignore_result(self) -> bool:
        """Whether its result is not stored."""
        return ignores_result(self._job.call, self.task)

    @property
    def store_errors(self) -> bool:
        """Whether its failure is stored."""
        return not self.ignore_result or bool(self.task.store_errors_even_if_ignored)

    @property
    def worker_pid(self) -> int | None:
        """Of the process that runs it; None before it starts."""
        handle = self._job.handle
        return handle.pid if handle is not None and handle.pid else None

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002
        """As ``celery inspect`` shows it."""
        return {**self._job.describe(), "hostname": self.hostname, "delivery_info": self.delivery_info}

    def humaninfo(self) -> str:
        """Name and id."""
        return f"{self.name}[{self._job.call.id}]"

    def revoked(self) -> bool:
        """Whether it ends without running."""
        return self._job.ending is not None

    def maybe_expire(self) -> bool:
        """Whether it has expired."""
        return self._job.ending == "expired"

    def send_event(self, type: str, **fields: Any) -> None:
        """Events are sent by fleet's worker; this one is not."""


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"{name} of a task's request: fleet's worker does this itself")

    return refuse
