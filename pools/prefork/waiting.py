"""Jobs that wait for a child, and children that wait for a job."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Container, Iterable

from pools.errors import PoolError
from pools.handle import Handle
from pools.prefork.slot import Child, Job


class WaitingJobs:
    """Gives the oldest job to the child that was idle last, as long as there are both; then quick jobs to the busy
    children in turn.

    assign(child, job): hand it over; False when the child is gone, and the job then stays first in the queue.
    send_behind(child, job): hand it over to a busy child; False when its pipe is full.  quick_seconds: jobs that are
    expected to take no longer are quick. All methods but ``append`` belong to the thread of the pool's loop.
    """

    def __init__(self, assign: Callable[[Child, Job], bool], send_behind: Callable[[Child, Job], bool]) -> None:
        self._assign = assign
        self._send_behind = send_behind
        self._jobs: deque[Job] = deque()
        self._idle: list[Child] = []
        self._busy: deque[Child] = deque()
        self.quick_seconds = 0.0

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def free_slots(self) -> int:
        """How many more jobs would start at once."""
        return max(0, len(self._idle) - len(self._jobs))

    def append(self, job: Job) -> None:
        """A new job, from any thread; ``assign_jobs`` must follow in the loop's thread."""
        self._jobs.append(job)

    def put_back(self, jobs: Iterable[Job]) -> None:
        """A child got them and did not begin them: they have their old places in the queue again. ``assign_jobs`` must
        follow."""
        self._jobs = deque(sorted([*jobs, *self._jobs], key=_number))

    def add_idle(self, child: Child) -> None:
        """The child may be given a job."""
        self._idle.append(child)
        if self._jobs:
            self.assign_jobs()

    def remove_idle(self, child: Child) -> None:
        """The child may not be given a job any more. Does nothing for one that is not idle."""
        if child in self._idle:
            self._idle.remove(child)

    def add_busy(self, child: Child) -> None:
        """The child may have room for a quick job behind the one that it runs."""
        if child.room(self.quick_seconds) > 0:
            if not child.is_listed:
                child.is_listed = True
                self._busy.append(child)
            if self._jobs:
                self.assign_jobs()

    def assign_jobs(self) -> None:
        """Hand over jobs until there are no more jobs or no more children for them."""
        while self._jobs and self._idle:
            child, job = self._idle.pop(), self._jobs.popleft()
            if not self._assign(child, job):
                self._jobs.appendleft(job)
        quick_seconds = self.quick_seconds
        while self._jobs and self._busy and 0 < self._jobs[0].expected_seconds <= quick_seconds:
            child = self._busy.popleft()
            child.is_listed = False
            if child.room(quick_seconds) > 0 and self._send_behind(child, self._jobs[0]):
                self._jobs.popleft()
                self.add_busy(child)

    def withdraw(self, handles: Container[Handle]) -> list[Handle]:
        """Take those of these handles back that wait; which they are, in order."""
        taken = [job.handle for job in self._jobs if job.handle in handles]
        self._jobs = deque(job for job in self._jobs if job.handle not in handles)
        now = time.monotonic()
        for handle in taken:
            handle.withdraw(now)
        return taken

    def withdraw_all(self, error: PoolError | None = None) -> list[Handle]:
        """Take back all handles that wait, with this error; the handles, in order."""
        handles = [job.handle for job in self._jobs]
        self._jobs.clear()
        now = time.monotonic()
        for handle in handles:
            handle.withdraw(now, error)
        return handles


def _number(job: Job) -> int:
    return job.number
