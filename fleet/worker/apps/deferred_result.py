"""A result that a slot encodes and leaves to the worker's process to store."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Self

from fleet.worker.task.call import EncodedResult


class Deferral:
    """One run of a task whose success is not to be stored within the block, but encoded. result: that, once there is
    one."""

    __slots__ = ("_token", "result", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.result: EncodedResult | None = None

    def __enter__(self) -> Self:
        self._token: Token[Deferral | None] = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


_current: ContextVar[Deferral | None] = ContextVar("fleet_deferred_result", default=None)


def deferral_of(task_id: object) -> Deferral | None:
    """That of this task, where its success is not to be stored here."""
    deferral = _current.get()
    return deferral if deferral is not None and deferral.task_id == task_id else None
