"""The pipes by which tasks come to children: what is put into them, and what is taken out again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pools.prefork.child_io import ChildIO
from pools.prefork.exit import has_exited
from pools.prefork.slot import Child, Job


class PipesListener(Protocol):
    """Called in the thread of the loop."""

    def on_begun(self, child: Child, job: Job) -> None:
        """The child runs a job that lay in its pipe behind others."""

    def on_not_begun(self, job: Job) -> None:
        """A job that was to begin at once did not; it comes with ``on_taken_back``."""

    def on_taken_back(self, jobs: Sequence[Job]) -> None:
        """These lay in the pipe of a child, which has not begun them and will not."""


class Pipes:
    """Of all children of a pool. The listener knows which jobs are where; each job is in one place."""

    def __init__(self, listener: PipesListener, io: ChildIO) -> None:
        self._listener = listener
        self._io = io

    def send(self, child: Child, job: Job) -> None:
        """Give an idle child this job. OSError when it was hung up; then it has read nothing of the job."""
        if not child.send(job):
            self._io.send_rest_of_task(child)

    def begin_next(self, child: Child) -> bool:
        """The child has ended its job: the first of those behind is the one that it runs. False when there is none."""
        job = child.begin_next()
        if job is not None:
            self._listener.on_begun(child, job)
        return job is not None

    def recall(self, child: Child) -> None:
        """Take back what the child has not begun, and hear what it has said so far: ``child.job`` is then what it runs,
        whatever it was thought to run."""
        child.late = True
        if child.behind:
            self.take_back(child)
            if child.behind:  # it is further than it was thought to be
                self._io.hear(child)

    def take_back(self, child: Child) -> None:
        """Take back what the child has not read, but for its own task, which stays the first that it will do."""
        first = child.job
        jobs = child.take_back()
        if first is not None and child.job is None:
            if self.begin_next(child):
                self._listener.on_not_begun(first)
            else:  # it is stopped, or has not come to it yet
                jobs.remove(first)
                self.send(child, first)
        if jobs:
            self._listener.on_taken_back(jobs)

    def take_from_dead(self, child: Child) -> None:
        """Take back what the child has not begun. Its own task stays with it: the listener is told of its death."""
        first = child.job
        jobs = child.take_from_dead() if has_exited(child.pid, child.link.pidfd) else child.take_back()
        if first is None:
            self.begin_next(child)
        elif child.job is None:
            child.job, child.died_before_beginning = first, True
            jobs.remove(first)
        if jobs:
            self._listener.on_taken_back(jobs)
