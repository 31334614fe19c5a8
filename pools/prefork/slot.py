"""A slot and the children that fill it, one after the other, as the parent sees them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pools.errors import PoolError
from pools.handle import Handle
from pools.loop import Timer
from pools.prefork.parent_link import ParentLink
from pools.prefork.protocol import SIGNAL_PAGE, TASK_HEAD, Inbox, Outbox
from pools.prefork.recycle_limits import RecycleLimits

NEVER = float("inf")


class ChildState(StrEnum):
    """The states of a child.

    STARTING: until it reports WORKER_UP.  IDLE, BUSY: without and with a task.  RETIRING: the parent hung up, and the
    child leaves by itself.  KILLING: it was sent a signal, and will be sent KILL.  DEAD: reaped, or given up.
    """

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    RETIRING = "retiring"
    KILLING = "killing"
    DEAD = "dead"


@dataclass(slots=True, eq=False)
class Job:
    """One task on its way. ``reason``: why it is being ended, once it is."""

    number: int
    handle: Handle
    body: bytes
    reason: PoolError | None = None
    tries: int = 0


class Child:
    """One child process. It has one deadline at a time: ``on_deadline`` is called when ``due`` has come."""

    __slots__ = (
        "age_timer",
        "due",
        "gone",
        "inbox",
        "init_error",
        "job",
        "leaving",
        "limits",
        "link",
        "on_deadline",
        "outbox",
        "pid",
        "slot",
        "started_at",
        "state",
        "tasks_done",
        "tasks_left",
    )

    def __init__(self, slot: Slot, pid: int, link: ParentLink, limits: RecycleLimits) -> None:
        self.slot = slot
        self.pid = pid
        self.link = link
        self.inbox = Inbox(link.socket)
        self.outbox = Outbox(link.socket)
        self.state = ChildState.STARTING
        self.job: Job | None = None
        self.limits = limits
        self.tasks_left = limits.tasks
        self.tasks_done = 0
        self.leaving = False
        self.gone = False
        self.init_error = ""
        self.started_at = time.monotonic()
        self.due = NEVER
        self.on_deadline: Callable[[], object] | None = None
        self.age_timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<Child {self.pid} in slot {self.slot.index}: {self.state}>"

    @property
    def spent(self) -> bool:
        """Whether it has run all the tasks it may."""
        return self.tasks_left == 0

    def describe(self) -> dict[str, Any]:
        """Facts for people: index of the slot, pid, state, tasks done."""
        return {"index": self.slot.index, "pid": self.pid, "state": str(self.state), "tasks": self.tasks_done}

    def send(self, job: Job) -> bool:
        """Write a job to it; whether all of it is on its way. OSError when the child is gone."""
        return self.outbox.send(TASK_HEAD.pack(len(job.body), job.number), job.body)

    def begin_job(self, job: Job) -> None:
        """It has been sent this job."""
        self.job = job
        if self.tasks_left is not None:
            self.tasks_left -= 1

    def end_job(self) -> Job:
        """Forget its job and its deadline; the job."""
        job, self.job = self.job, None
        assert job is not None
        self.due, self.on_deadline = NEVER, None
        return job

    def write_signal_page(self, *, soft: int = 0, end: int = 0, seconds: float = 0.0) -> None:
        """Write which job a signal is meant for, before the signal is sent. ``seconds``: its soft limit."""
        SIGNAL_PAGE.pack_into(self.link.signal_page, 0, soft, end, seconds)


@dataclass(slots=True, eq=False)
class Slot:
    """One place for one task at a time. Its index is never changed while it exists.

    child: the one that runs its tasks.  spare: the one that will, as soon as the child leaves.  renew: the child is to
    be replaced by a fresh one.  dropped: no other child comes after this one.  failures: failed starts in a row.
    next_try: the timer of the next start after a failure.
    """

    index: int
    child: Child | None = None
    spare: Child | None = None
    renew: bool = False
    dropped: bool = False
    failures: int = 0
    next_try: Timer | None = None


def drop_order(slot: Slot) -> tuple[int, int]:
    """The slots that are easiest to give up first: idle, starting, busy; the highest index first among equals."""
    child = slot.child
    if child is not None and child.job is not None:
        return 2, -slot.index
    return int(child is None or child.state is ChildState.STARTING), -slot.index
