"""A result that a slot encodes and leaves to the worker's process to store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fleet.worker.task.call import EncodedResult


class Deferral:
    """One run of a task whose success is not to be stored, but encoded. result: that, once there is one."""

    __slots__ = ("result", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.result: EncodedResult | None = None


_current: ContextVar[Deferral | None] = ContextVar("fleet_deferred_result", default=None)


@contextmanager
def deferring(task_id: str) -> Iterator[Deferral]:
    """Keep the success of this task instead of storing it, if it is stored in here."""
    deferral = Deferral(task_id)
    token = _current.set(deferral)
    try:
        yield deferral
    finally:
        _current.reset(token)


def deferral_of(task_id: object) -> Deferral | None:
    """That of this task, where its success is not to be stored here."""
    deferral = _current.get()
    return deferral if deferral is not None and deferral.task_id == task_id else None
