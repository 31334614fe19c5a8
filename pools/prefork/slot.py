"""A slot and the children that fill it, one after the other, as the parent sees them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pools.errors import PoolError
from pools.handle import Handle
from pools.loop import Timer
from pools.prefork.parent_link import ParentLink
from pools.prefork.protocol import BEGUN, BEGUN_OFFSET, SIGNAL_PAGE, Inbox, Outbox, Report
from pools.prefork.recycle_limits import RecycleLimits
from pools.prefork.task_pipe import PACKET_BYTES, TaskPipe

NEVER = float("inf")
MOST_BEHIND = 4
"""How many quick tasks may lie in the pipe of a child behind the one that it runs; fewer where they are longer."""


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

    @property
    def expected_seconds(self) -> float:
        """How long it is expected to run; 0.0 where that is not known, or it is too large to lie in a pipe."""
        return self.handle.expected_seconds if len(self.body) <= PACKET_BYTES else 0.0


class Child:
    """One child process. It has one deadline at a time: ``on_deadline`` is called when ``due`` has come.

    job: the task that it runs.  behind: those that lie in its pipe behind that one.  late: it takes longer over its
    task than was expected; nothing is to lie behind it.  reports: what it has said and nobody has looked at.
    died_before_beginning: it is dead, and never began ``job``.
    """

    __slots__ = (
        "age_timer",
        "behind",
        "died_before_beginning",
        "due",
        "gone",
        "inbox",
        "init_error",
        "is_listed",
        "job",
        "late",
        "leaving",
        "limits",
        "link",
        "on_deadline",
        "outbox",
        "pid",
        "reports",
        "slot",
        "started_at",
        "state",
        "tasks",
        "tasks_done",
        "tasks_left",
    )

    def __init__(self, slot: Slot, pid: int, link: ParentLink, limits: RecycleLimits) -> None:
        self.slot = slot
        self.pid = pid
        self.link = link
        self.inbox = Inbox(link.socket)
        self.outbox = Outbox(link.socket)
        self.tasks = TaskPipe(link.tasks, link.tasks_unread)
        self.reports: deque[Report] = deque()
        self.state = ChildState.STARTING
        self.job: Job | None = None
        self.behind: deque[Job] = deque()
        self.late = False
        self.is_listed = False
        self.died_before_beginning = False
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

    def room(self, quick_seconds: float) -> int:
        """How many more quick tasks may lie behind the one that it runs, so that they begin within ``quick_seconds``;
        one may in any case behind a task that is expected to be done by then."""
        job = self.job
        if job is None or self.late or self.leaving or self.gone or self.state is not ChildState.BUSY:
            return 0
        seconds = job.expected_seconds
        if not 0 < seconds <= quick_seconds:
            return 0
        room = min(MOST_BEHIND, max(1, int(quick_seconds / seconds))) - len(self.behind)
        return room if self.tasks_left is None else min(room, self.tasks_left)

    def send(self, job: Job) -> bool:
        """Give it a job, which it begins at once; whether all of it is on its way. OSError when it was hung up."""
        sent = self.tasks.send(job.number, job.body)
        self.job = job
        self._count_sent()
        return sent

    def send_behind(self, job: Job) -> bool:
        """Give it a quick job to be begun after the others; False when its pipe has no room."""
        if not self.tasks.send_behind(job.number, job.body):
            return False
        self.behind.append(job)
        self._count_sent()
        return True

    def _count_sent(self) -> None:
        if self.tasks_left is not None:
            self.tasks_left -= 1

    def begin_next(self) -> Job | None:
        """Its pipe is its own affair: it has begun the first of those behind. None when there is none."""
        self.job = self.behind.popleft() if self.behind else None
        return self.job

    def take_back(self) -> list[Job]:
        """Take back what it has not read, in order. ``job`` stays what it runs, or will run, first.

        Where that is None afterwards, it was among those taken back, and the first of ``behind`` is what runs.
        """
        return self._give_up(self.tasks.take_back())

    def take_from_dead(self) -> list[Job]:
        """The same when it does nothing any more: also what it has read and died before it began it."""
        self.tasks.take_back()
        (begun,) = BEGUN.unpack_from(self.link.signal_page, BEGUN_OFFSET)
        in_hand = (*((self.job,) if self.job is not None else ()), *self.behind)
        return self._give_up({job.number for job in in_hand if job.number != begun})

    def _give_up(self, taken: set[int]) -> list[Job]:
        back = [job for job in self.behind if job.number in taken]
        self.behind = deque(job for job in self.behind if job.number not in taken)
        if self.job is not None and self.job.number in taken:
            back.insert(0, self.job)
            self.job = None
        if self.tasks_left is not None:
            self.tasks_left += len(back)
        return back

    def end_job(self) -> Job:
        """Forget its job and its deadline; the job."""
        job, self.job = self.job, None
        assert job is not None
        self.due, self.on_deadline = NEVER, None
        self.late = False
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
