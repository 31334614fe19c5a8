"""Jobs that wait for a child, and children that wait for a job."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from pools.errors import PoolError
from pools.handle import Handle
from pools.prefork.slot import Child, Job


class WaitingJobs:
    """Gives the oldest job to the child that was idle last, as long as there are both.

    assign(child, job): hand it over; False when the child is gone, and the job then stays first in the queue. All
    methods but ``append`` belong to the thread of the pool's loop.
    """

    def __init__(self, assign: Callable[[Child, Job], bool]) -> None:
        self._assign = assign
        self._jobs: deque[Job] = deque()
        self._idle: list[Child] = []

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def free_slots(self) -> int:
        """How many more jobs would start at once."""
        return max(0, len(self._idle) - len(self._jobs))

    def append(self, job: Job) -> None:
        """A new job, from any thread; ``assign_jobs`` must follow in the loop's thread."""
        self._jobs.append(job)

    def put_back(self, job: Job) -> None:
        """The first job again: it was assigned and did not begin."""
        self._jobs.appendleft(job)
        self.assign_jobs()

    def add_idle(self, child: Child) -> None:
        """The child may be given a job."""
        self._idle.append(child)
        if self._jobs:
            self.assign_jobs()

    def remove_idle(self, child: Child) -> None:
        """The child may not be given a job any more. Does nothing for one that is not idle."""
        if child in self._idle:
            self._idle.remove(child)

    def assign_jobs(self) -> None:
        """Hand over jobs until there are no more jobs or no more idle children."""
        while self._jobs and self._idle:
            child, job = self._idle.pop(), self._jobs.popleft()
            if not self._assign(child, job):
                self._jobs.appendleft(job)

    def withdraw(self, handle: Handle) -> bool:
        """Take this handle back; False when it does not wait."""
        for job in self._jobs:
            if job.handle is handle:
                self._jobs.remove(job)
                handle.withdraw(time.monotonic())
                return True
        return False

    def withdraw_all(self, error: PoolError | None = None) -> list[Handle]:
        """Take back all handles that wait, with this error; the handles, in order."""
        handles = [job.handle for job in self._jobs]
        self._jobs.clear()
        now = time.monotonic()
        for handle in handles:
            handle.withdraw(now, error)
        return handles
