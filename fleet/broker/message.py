"""Task messages as Celery writes them (protocol 2, 1 and the hybrids between), read lazily and built.

Reading a message costs its headers only; the body is decoded once, when its arguments are needed. What cannot be
read raises :class:`BadMessage` with a reason, never a different exception.
"""

from __future__ import annotations

import json
import os
import reprlib
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import uuid4

from fleet.broker.delivery import Delivery
from fleet.broker.envelope import SENT_AT_HEADER, delivery_info_in
from fleet.broker.json_text import is_mapping
from fleet.broker.message_body import (
    ACCEPT_JSON,
    CONTENT_TYPE,
    BadMessage,
    Payload,
    decoded,
    payload_in,
    payload_of_body,
)

CONTENT_ENCODING = "utf-8"
LONGEST_LIMIT_SECONDS = 10 * 365 * 86_400.0
"""A longer time limit is taken for this one: clocks, timers and system calls overflow beyond it."""
MOST_RETRIES = 2**31 - 1
_NO_LIMITS: tuple[object, ...] = (None, [None, None])
_REPR_LENGTH = 1024
_V1_FIELDS = ("lang", "task", "id", "root_id", "parent_id", "group", "meth", "shadow", "eta", "expires", "origin")


class TaskMessage:
    """One task as it was sent. Headers are attributes; the rest is decoded when it is first used."""

    __slots__ = ("_accept", "_eta", "_expires", "_payload", "delivery", "headers", "id", "name", "utc")

    def __init__(self, delivery: Delivery, headers: Mapping[str, Any], accept: Collection[str]) -> None:
        name, task_id = headers.get("task"), headers.get("id")
        if not isinstance(name, str) or not name:
            raise BadMessage(f"the name of the task is {name!r}")
        if not isinstance(task_id, str) or not task_id:
            raise BadMessage(f"task {name}: the id is {task_id!r}")
        if not (_is_text(name) and _is_text(task_id)):
            raise BadMessage(f"its name or id is no text: task {name!a}, id {task_id!a}")
        self.delivery = delivery
        self.headers = headers
        self.name = name
        self.id = task_id
        self.utc = True
        self._accept = accept
        self._payload: Payload | None = None
        self._eta = self._expires = _UNREAD

    @classmethod
    def from_delivery(cls, delivery: Delivery, *, accept: Collection[str] = ACCEPT_JSON) -> TaskMessage:
        """Read a message. ``accept`` names serializers or content types. Raises BadMessage."""
        headers = delivery.headers
        if is_mapping(headers) and "task" in headers and "id" in headers:
            return cls(delivery, headers, accept)
        return cls._from_body(delivery, accept)

    @classmethod
    def _from_body(cls, delivery: Delivery, accept: Collection[str]) -> TaskMessage:
        """Protocol 1: everything is in the body. Headers of a hybrid replace what the body says."""
        body = decoded(delivery, accept)
        if not isinstance(body, dict) or "task" not in body:
            raise BadMessage("not a task message: neither its headers nor its body name a task")
        message = cls(delivery, _headers_of_body(body, delivery.headers), accept)
        message._payload = payload_of_body(body)
        message.utc = bool(body.get("utc", True))
        return message

    # ---- the body, decoded once

    @property
    def payload(self) -> Payload:
        """Arguments and canvas fields. Raises BadMessage."""
        if self._payload is None:
            body = decoded(self.delivery, self._accept)
            self._payload = payload_in(body)
            if isinstance(body, dict):
                self.headers = _headers_of_body(body, self.headers)
        return self._payload

    @property
    def args(self) -> Sequence[Any]:
        return self.payload.args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return self.payload.kwargs

    @property
    def embed(self) -> Mapping[str, Any]:
        """``callbacks``, ``errbacks``, ``chain``, ``chord``, as far as the message has them."""
        return self.payload.embed

    # ---- the headers

    @property
    def eta(self) -> datetime | None:
        """When it may start at the earliest; None: at once."""
        if self._eta is _UNREAD:
            self._eta = self._time("eta")
        return self._eta

    @property
    def expires(self) -> datetime | None:
        """When it may start at the latest; None: no limit."""
        if self._expires is _UNREAD:
            self._expires = self._time("expires")
        return self._expires

    @property
    def retries(self) -> int:
        """How often it was sent again after it had run."""
        return retries_in(self.headers)

    @property
    def time_limit(self) -> float | None:
        """Hard limit in seconds that the sender set; None: none."""
        return self._limit(0)

    @property
    def has_time_limits(self) -> bool:
        """Whether the sender may have set one."""
        return self.headers.get("timelimit") not in _NO_LIMITS

    @property
    def soft_time_limit(self) -> float | None:
        """Soft limit in seconds that the sender set; None: none."""
        return self._limit(1)

    @property
    def root_id(self) -> str | None:
        """Id of the first task of this workflow."""
        return self.headers.get("root_id")

    @property
    def parent_id(self) -> str | None:
        """Id of the task that sent this one."""
        return self.headers.get("parent_id")

    @property
    def group(self) -> str | None:
        """Id of the canvas group it belongs to."""
        return self.headers.get("group")

    @property
    def ignore_result(self) -> bool | None:
        """The sender's setting; None: the task's own applies."""
        return self.headers.get("ignore_result")

    @property
    def origin(self) -> str:
        """``gen<pid>@<host>`` of the sender, as Celery writes it."""
        return str(self.headers.get("origin") or "")

    @property
    def argsrepr(self) -> str:
        """Positional arguments as text for people, made by the producer."""
        return str(self.headers.get("argsrepr") or "")

    @property
    def kwargsrepr(self) -> str:
        """Keyword arguments as text for people, made by the producer."""
        return str(self.headers.get("kwargsrepr") or "")

    @property
    def properties(self) -> Mapping[str, Any]:
        """Properties of the transport: ``priority``, ``reply_to``, ``correlation_id``."""
        return self.delivery.properties

    @property
    def reply_to(self) -> str | None:
        """The queue for an rpc result."""
        return self.delivery.properties.get("reply_to")

    @property
    def correlation_id(self) -> str | None:
        """The task id, by which the sender finds an rpc result."""
        return self.delivery.properties.get("correlation_id")

    @property
    def stamps(self) -> Mapping[str, Any]:
        """Celery's stamped headers, by name."""
        stamps = self.headers.get("stamps")
        return stamps if isinstance(stamps, Mapping) else {}

    @property
    def compression(self) -> str | None:
        """Content type of the compression of the body; None: not compressed."""
        return self.headers.get("compression")

    @property
    def sent_at(self) -> float | None:
        """Unix time at which fleet sent it; None for messages of others."""
        sent = self.headers.get(SENT_AT_HEADER)
        if type(sent) is float:  # nearly always, and asked for each task
            return sent
        try:
            return float(sent) if isinstance(sent, int | float) else None
        except OverflowError:
            return None

    # ---- for Celery, and on again

    def request(self, *, hostname: str) -> dict[str, Any]:
        """The request of Celery's tracer, as its own worker builds it. Raises BadMessage."""
        args, kwargs, embed = self.payload
        properties = self.delivery.properties
        info = delivery_info_in(properties)
        return {
            **self.headers,
            "properties": properties,
            "reply_to": properties.get("reply_to"),
            "correlation_id": properties.get("correlation_id"),
            "hostname": hostname,
            "delivery_info": {
                "exchange": info.get("exchange"),
                "routing_key": info.get("routing_key"),
                "priority": properties.get("priority"),
                "redelivered": self.delivery.redelivered,
            },
            "args": args,
            "kwargs": kwargs,
            "is_eager": False,
            **embed,
        }

    def again(self, *, retries: int, eta: datetime | None) -> Built:
        """The same task to be sent once more: its encoded body is reused. Raises BadMessage."""
        delivery = self.delivery
        headers = {name: value for name, value in self.headers.items() if not name.startswith("x-")}
        headers.pop("redelivered", None)
        headers |= {"retries": retries, "eta": eta.isoformat() if eta else None, SENT_AT_HEADER: time.time()}
        if "task" in delivery.headers and self._payload is None:
            body, kind, encoding = delivery.body, delivery.content_type, delivery.content_encoding
        else:
            body, kind, encoding = serialized(list(self.payload)), CONTENT_TYPE, CONTENT_ENCODING
            headers.pop("compression", None)
        return Built(body, headers, dict(delivery.properties), kind, encoding)

    def _time(self, field: str) -> datetime | None:
        value = self.headers.get(field)
        if value is None or value == "":
            return None
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC) if self.utc else moment.astimezone()
            moment.timestamp()
        except (TypeError, ValueError, OverflowError, OSError) as error:
            raise BadMessage(f"task {self.name}[{self.id}]: {field} is {reprlib.repr(value)}") from error
        return moment

    def _limit(self, index: int) -> float | None:
        limits = self.headers.get("timelimit")
        return bounded_seconds(limits[index]) if isinstance(limits, list | tuple) and len(limits) > index else None

    def __repr__(self) -> str:
        return f"<TaskMessage {self.name}[{self.id}]>"


def bounded_seconds(value: object) -> float | None:
    """A time limit as somebody wrote it: at most ``LONGEST_LIMIT_SECONDS``; None for what is no number above 0."""
    if not isinstance(value, int | float) or not value > 0:
        return None
    return float(min(value, LONGEST_LIMIT_SECONDS))


def retries_in(headers: Mapping[str, Any]) -> int:
    """How often a message was sent again, as its headers say: at most ``MOST_RETRIES``, 0 for what is no count."""
    retries = headers.get("retries")
    return min(retries, MOST_RETRIES) if isinstance(retries, int) and retries > 0 else 0


def _is_text(text: str) -> bool:
    """Whether it can be written down: JSON can carry halves of characters."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Unread(datetime):
    """Stands for a time that was not parsed yet."""


_UNREAD: datetime | None = _Unread(1, 1, 1)


def _headers_of_body(body: Mapping[str, Any], headers: Mapping[str, Any]) -> dict[str, Any]:
    """Protocol 2 headers for a protocol 1 body."""
    found = {name: body.get(name) for name in _V1_FIELDS}
    found["group"] = body.get("group") or body.get("taskset")
    found["retries"] = body.get("retries") or 0
    found["timelimit"] = body.get("timelimit") or [None, None]
    found["argsrepr"] = body.get("argsrepr") or _short(body.get("args") or ())
    found["kwargsrepr"] = body.get("kwargsrepr") or _short(body.get("kwargs") or {})
    return {**found, **headers}


# ---- building


class Built(NamedTuple):
    """A message ready to be sent."""

    body: bytes | str
    headers: dict[str, Any]
    properties: dict[str, Any]
    content_type: str = CONTENT_TYPE
    content_encoding: str = CONTENT_ENCODING


def build(
    name: str,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    task_id: str | None = None,
    eta: datetime | None = None,
    countdown: float | None = None,
    expires: float | datetime | None = None,
    retries: int = 0,
    priority: int | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    root_id: str | None = None,
    parent_id: str | None = None,
    group: str | None = None,
    shadow: str | None = None,
    ignore_result: bool | None = None,
    reply_to: str = "",
    extra: Mapping[str, Any] | None = None,
    now: float | None = None,
) -> Built:
    """A protocol 2 message as Celery's producer makes it, in JSON.

    ``countdown`` and a number in ``expires`` are seconds from ``now`` (Unix time, default the clock's).
    ``ignore_result`` None leaves it to the task of a Celery app whether its result is kept. Raises TypeError for
    arguments that JSON cannot carry.
    """
    kwargs = kwargs or {}
    sent_at = time.time() if now is None else now
    task_id = task_id or str(uuid4())
    if countdown is not None:
        eta = datetime.fromtimestamp(sent_at, UTC) + timedelta(seconds=countdown)
    if isinstance(expires, int | float):
        expires = datetime.fromtimestamp(sent_at, UTC) + timedelta(seconds=expires)
    body = serialized([list(args), dict(kwargs), dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))])
    headers = {
        "lang": "py",
        "task": name,
        "id": task_id,
        "shadow": shadow,
        "eta": eta.isoformat() if eta else None,
        "expires": expires.isoformat() if expires else None,
        "group": group,
        "group_index": None,
        "retries": retries,
        "timelimit": [time_limit, soft_time_limit],
        "root_id": root_id or task_id,
        "parent_id": parent_id,
        "argsrepr": _short(tuple(args), size=len(body)),
        "kwargsrepr": _short(dict(kwargs), size=len(body)),
        "origin": _origin(os.getpid()),
        "ignore_result": ignore_result,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        SENT_AT_HEADER: sent_at,
        **(extra or {}),
    }
    properties: dict[str, Any] = {"correlation_id": task_id, "reply_to": reply_to}
    if priority is not None:
        properties["priority"] = priority
    return Built(body, headers, properties)


def serialized(value: Any) -> bytes:
    """JSON; with kombu's extended types (dates, decimals, UUIDs, bytes) only where plain JSON cannot."""
    try:
        return json.dumps(value).encode()
    except TypeError:
        from kombu.utils.json import dumps

        return str(dumps(value)).encode()


_bounded = reprlib.Repr()
_bounded.maxstring = _bounded.maxother = 128
_bounded.maxtuple = _bounded.maxlist = _bounded.maxdict = 32


def _short(value: Any, *, size: int | None = None) -> str:
    """Arguments as text for people, shortened; a large value is never written out in full."""
    text = repr(value) if size is not None and size < 4 * _REPR_LENGTH else _bounded.repr(value)
    return text if len(text) <= _REPR_LENGTH else text[: _REPR_LENGTH - 3] + "..."


@lru_cache(maxsize=1)
def _origin(pid: int) -> str:
    return f"gen{pid}@{socket.gethostname()}"
