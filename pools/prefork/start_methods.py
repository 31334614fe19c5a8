"""Where children come from: forked from this process, or spawned as fresh interpreters. The zygote is elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

from pools.loop import EventLoop
from pools.prefork.child import Inheritance, Runner, Upbringing
from pools.prefork.exit import reap
from pools.prefork.fork import exec_child, fork_child
from pools.prefork.fresh_interpreter import SLOT, write_letter
from pools.prefork.parent_link import Cradle, Ties, make_ties


class NewBorn(NamedTuple):
    """A process that is to become a slot. ``letter``: what it must be sent first, if anything."""

    pid: int
    ties: Ties
    letter: bytes = b""


class Nursery(Protocol):
    """One start method. ``ready``: whether ``bear`` may be called."""

    ready: bool

    def open(self, loop: EventLoop) -> None:
        """Begin. Unpicklable when the children cannot be told what they are to do."""

    def move_to(self, loop: EventLoop) -> None:
        """Be driven by another loop from now on."""

    def bear(self, index: int) -> NewBorn:
        """A child for this slot. OSError when there is none to be had now."""

    def reap(self, pid: int, *, wait: bool = False) -> tuple[bool, int | None]:
        """Whether a child is gone, and its exit code where that can be known."""

    def close(self) -> None:
        """No more children."""


def bear(birth: Callable[[Cradle], int], *, inherited: bool) -> NewBorn:
    """Both ends of the ties, and the process that ``birth`` makes of the child's ends; its pid."""
    ties, cradle = make_ties(inherited=inherited)
    try:
        pid = birth(cradle)
    except BaseException:
        ties.close()
        raise
    finally:
        cradle.close()
    ties.hold(pid)
    return NewBorn(pid, ties)


class ForkNursery:
    """Children are copies of this process."""

    ready = True

    def __init__(self, upbringing: Upbringing, inheritance: Inheritance) -> None:
        self._upbringing = upbringing
        self._inheritance = inheritance

    def open(self, loop: EventLoop) -> None:
        self.move_to(loop)

    def move_to(self, loop: EventLoop) -> None:
        self._inheritance.loop = loop

    def bear(self, index: int) -> NewBorn:
        return bear(partial(self._fork, index), inherited=True)

    def reap(self, pid: int, *, wait: bool = False) -> tuple[bool, int | None]:
        return reap(pid, wait=wait)

    def close(self) -> None:
        pass

    def _fork(self, index: int, cradle: Cradle) -> int:
        return fork_child(partial(self._live, index), cradle, index)

    def _live(self, index: int, cradle: Cradle) -> None:
        Runner(cradle, index, lambda: self._upbringing, self._inheritance).live()


class SpawnNursery:
    """Each child is a fresh interpreter."""

    ready = True

    def __init__(self, upbringing: Upbringing) -> None:
        self._upbringing = upbringing
        self._letter = b""

    def open(self, loop: EventLoop) -> None:  # noqa: ARG002
        self._letter = write_letter(self._upbringing)

    def move_to(self, loop: EventLoop) -> None:
        pass

    def bear(self, index: int) -> NewBorn:
        return bear(lambda cradle: exec_child(SLOT, cradle, index), inherited=False)._replace(letter=self._letter)

    def reap(self, pid: int, *, wait: bool = False) -> tuple[bool, int | None]:
        return reap(pid, wait=wait)

    def close(self) -> None:
        pass
