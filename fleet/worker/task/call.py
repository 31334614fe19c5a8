"""One task as values: what is handed to a slot, what comes back, and the app's settings for it."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from fleet.broker.message import TaskMessage


class Call(NamedTuple):
    """One task as it is handed to a slot: small, picklable, the body still encoded."""

    id: str
    name: str
    headers: Mapping[str, Any]
    body: Any
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    properties: Mapping[str, Any] = {}
    queue: str = ""
    redelivered: bool = False
    attempts: int = 0
    report: bool = False
    """Whether the outcome carries the representation of what the task returns, for monitors."""
    tag: int = 0
    """Of its message, where the slot is to note that it succeeded."""

    @classmethod
    def of(cls, message: TaskMessage, *, report: bool, tagged: bool = False) -> Call:
        """The call that a message asks for, without what only its channel needs."""
        delivery = message.delivery
        return cls(
            id=message.id,
            name=message.name,
            headers=message.headers,
            body=delivery.body,
            content_type=delivery.content_type,
            content_encoding=delivery.content_encoding,
            properties=delivery.properties,
            queue=delivery.queue,
            redelivered=delivery.redelivered,
            attempts=delivery.attempts,
            report=report,
            tag=int(delivery.tag) if tagged else 0,
        )


State = Literal["success", "failure", "retry", "requeue", "dead", "ignored"]


class EncodedResult(NamedTuple):
    """A result as its backend is to keep it. seconds: until it expires, 0: never."""

    key: str | bytes
    value: str | bytes
    seconds: int

    def packed(self) -> bytes:
        """All of it, for a file."""
        key, value = (one if isinstance(one, bytes) else one.encode() for one in (self.key, self.value))
        return b"%b%b%b" % (_PACKED.pack(len(key), self.seconds), key, value)

    @classmethod
    def unpacked(cls, data: bytes) -> EncodedResult:
        """What ``packed`` made. Raises struct.error."""
        length, seconds = _PACKED.unpack_from(data)
        after = _PACKED.size + length
        return cls(data[_PACKED.size : after], data[after:], seconds)


_PACKED = struct.Struct("<Iq")


class Outcome(NamedTuple):
    """How one task ended, as the slot reports it. Small and picklable whatever the task returned.

    success, failure, ignored: done with the message.  retry: send it again after ``after_seconds`` (None: the app has
    sent it itself).  requeue: give the same message back.  dead: it goes to the dead letters.
    unstored: its result, which must be stored before its message is acknowledged; None where nothing is left to store.
    """

    state: State
    runtime_seconds: float = 0.0
    error: str = ""
    traceback: str = ""
    after_seconds: float | None = None
    result: str = ""
    unstored: EncodedResult | None = None


Ending = Literal["unknown", "expired", "revoked", "terminated", "timeout", "lost", "raised", "unstartable"]
"""The ends of a task that its own process cannot tell. unstartable: something in its message keeps it from starting."""


Stage = Literal["ready", "stopping", "cutting", "stopped"]
"""Stages of a worker. stopping: it drains.  cutting: what runs is ended at once."""
SHUTDOWNS: Mapping[str, Mapping[str, Any]] = {
    "stopping": {"sig": "SIGTERM", "how": "Warm", "exitcode": 0},
    "cutting": {"sig": "SIGQUIT", "how": "Cold", "exitcode": 0},
}
"""Stage -> the arguments of the signal ``worker_shutting_down``, as Celery names them."""


class ChildLimits(NamedTuple):
    """After how many tasks, and beyond how much memory, a child is replaced; None: never."""

    tasks: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class TaskPolicy:
    """The app's settings for one of its tasks, used where message and manifest set nothing."""

    late: bool = True
    time_limit_seconds: float | None = None
    soft_time_limit_seconds: float | None = None
    dead_on_failure: bool = False
    requeue_on_timeout: bool = False
    again_after_crash: bool = True
