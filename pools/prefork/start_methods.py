"""Ways to start a child: forked from this process, or spawned as a fresh interpreter. The zygote is in ``zygote``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from pools.loop import EventLoop
from pools.prefork.child import ChildOptions, ChildProcess, ForkOptions
from pools.prefork.exit import reap
from pools.prefork.fork import exec_child, fork_child
from pools.prefork.fresh_interpreter import SLOT, make_start_message
from pools.prefork.parent_link import ChildEnds, ParentLink, make_link


class StartedProcess(NamedTuple):
    """A process that was just started. start_message: what it must be sent first; empty when nothing."""

    pid: int
    link: ParentLink
    start_message: bytes = b""


class StartMethod(Protocol):
    """How children are started. ready: whether ``start_child`` may be called."""

    ready: bool

    def open(self, loop: EventLoop) -> None:
        """Get ready; ``ready`` may become true later. Unpicklable when the options cannot be sent to children."""

    def move_to(self, loop: EventLoop) -> None:
        """Use this loop from now on."""

    def start_child(self, index: int) -> StartedProcess:
        """Start a child for the slot with this index. OSError when the system refuses, or when not ready."""

    def reap(self, pid: int, *, wait: bool = False) -> tuple[bool, int | None]:
        """Whether a child has exited, and its exit code, negative for a signal; None when that cannot be known."""

    def close(self) -> None:
        """Start no more children; release what ``open`` made."""


def start_process(create: Callable[[ChildEnds], int], *, inherited: bool) -> StartedProcess:
    """Make both ends of a link and a process that has the child's ends. ``create(child_ends)`` returns its pid."""
    link, child_ends = make_link(inherited=inherited)
    try:
        pid = create(child_ends)
    except BaseException:
        link.close()
        raise
    finally:
        child_ends.close()
    link.watch_pid(pid)
    return StartedProcess(pid, link)


class Fork:
    """Children are copies of this process."""

    ready = True

    def __init__(self, options: ChildOptions, fork_options: ForkOptions) -> None:
        self._options = options
        self._fork_options = fork_options

    def open(self, loop: EventLoop) -> None:
        self.move_to(loop)

    def move_to(self, loop: EventLoop) -> None:
        self._fork_options.loop = loop

    def start_child(self, index: int) -> StartedProcess:
        return start_process(partial(self._fork, index), inherited=True)

    def reap(self, pid: int, *, wait: bool = False) -> tuple[bool, int | None]:
        return reap(pid, wait=wait)

    def close(self) -> None:
        pass

    def _fork(self, index: int, child_ends: ChildEnds) -> int:
        return fork_child(partial(self._run_child, index), child_ends, index)

    def _run_child(self, index: int, child_ends: ChildEnds) -> None:
        ChildProcess(child_ends, index, lambda: self._options, self._fork_options).run()


class Spawn:
    """Each child is a fresh interpreter."""

    ready = True

    def __init__(self, options: ChildOptions) -> None:
        self._options = options
        self._start_message = b""

    def open(self, loop: EventLoop) -> None:  # noqa: ARG002
        self._start_message = make_start_message(self._options)

    def move_to(self, loop: EventLoop) -> None:
        pass

    def start_child(self, index: int) -> StartedProcess:
        process = start_process(lambda child_ends: exec_child(SLOT, child_ends, index), inherited=False)
        return process._replace(start_message=self._start_message)

    def reap(self, pid: int, *, wait: bool = False) -> tuple[bool, int | None]:
        return reap(pid, wait=wait)

    def close(self) -> None:
        pass
