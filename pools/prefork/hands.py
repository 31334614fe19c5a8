"""Jobs in the hands of children: given to those that are idle or have room, and taken back from there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pools.errors import PoolError
from pools.handle import Handle
from pools.loop import EventLoop
from pools.prefork.children import Children
from pools.prefork.late_watch import LateWatch
from pools.prefork.slot import Child, ChildState, Job
from pools.prefork.task_limits import TaskLimits
from pools.prefork.waiting import WaitingJobs


class Hands:
    """Of one pool. waiting: the jobs in no hand.  busy: how many run."""

    def __init__(
        self, children: Children, task_limits: TaskLimits, *, accepted: Callable[[Handle, float], object]
    ) -> None:
        self._children = children
        self._task_limits = task_limits
        self._accepted = accepted
        self._late = LateWatch(children.alive, children.pipes.recall)
        self.waiting = WaitingJobs(self._assign, self._send_behind)
        self.busy = 0
        self._loop: EventLoop | None = None

    def move_to(self, loop: EventLoop) -> None:
        """Use this loop from now on."""
        self._loop = loop
        self._late.move_to(loop)

    @property
    def holds_behind(self) -> bool:
        """Whether a job lies in a pipe behind another one."""
        return any(child.behind for child in self._children.alive)

    @property
    def room_for_quick(self) -> int:
        """How many quick jobs could be put behind others now, from any thread; 0 while each busy child has some and
        there is room for a few more only: what is fetched for them together costs less than one by one."""
        quick_seconds = self.waiting.quick_seconds
        if not quick_seconds:
            return 0
        room = held = 0
        runs_dry = False
        for child in list(self._children.alive):
            if (one := child.room(quick_seconds)) > 0:
                room += one
                held += len(child.behind)
                runs_dry = runs_dry or not child.behind
        return max(0, room - len(self.waiting)) if runs_dry or room >= held else 0

    def on_begun(self, child: Child, job: Job) -> None:
        """The child runs this job from now on."""
        handle, now = job.handle, time.monotonic()
        self.busy += 1
        handle.begin(child.slot.index, child.pid, now)
        self._task_limits.begin(child, handle)
        if handle.accept_callback is not None:
            self._accepted(handle, now)
        if child.spent:
            self._children.filling.fill(child.slot)
        self.waiting.add_busy(child)

    def on_not_begun(self, job: Job) -> None:
        """It was thought to run."""
        self.busy -= 1
        job.handle.put_back()

    def on_taken_back(self, jobs: Sequence[Job]) -> None:
        """They wait again, and soon go to other children. Not at once: some may be on their way out of the pool."""
        self.waiting.put_back(jobs)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.waiting.assign_jobs)

    def withdraw(self, handles: Sequence[Handle]) -> list[Handle]:
        """Take back those that have not begun; which they are, in order."""
        wanted = set(handles)
        for child in list(self._children.alive):
            if any(job.handle in wanted for job in child.behind):
                self._children.pipes.recall(child)
        withdrawn = self.waiting.withdraw(wanted)
        self.waiting.assign_jobs()
        return withdrawn

    def withdraw_all(self, error: PoolError | None = None) -> list[Handle]:
        """Take back all that have not begun, with this error; which they are, in order."""
        for child in list(self._children.alive):
            self._children.pipes.recall(child)
        return self.waiting.withdraw_all(error)

    def _assign(self, child: Child, job: Job) -> bool:
        """Give the child this job; False when the child is gone, which is told in a moment."""
        try:
            self._children.pipes.send(child, job)
        except OSError:
            return False
        self._children.set_state(child, ChildState.BUSY)
        self.on_begun(child, job)
        return True

    def _send_behind(self, child: Child, job: Job) -> bool:
        """Put the job into the pipe of a busy child; False when there is no room."""
        if not child.send_behind(job):
            return False
        self._late.watch(self.waiting.quick_seconds)
        if child.spent:
            self._children.filling.fill(child.slot)
        return True
