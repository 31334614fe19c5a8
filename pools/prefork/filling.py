"""Fills slots with children: starts those that are missing, a few at a time, and waits after starts that failed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from pools.errors import PoolUnavailable
from pools.loop import EventLoop
from pools.prefork import backoff
from pools.prefork.child import ChildOptions, ForkOptions
from pools.prefork.deadlines import Deadlines
from pools.prefork.exit import exit_text
from pools.prefork.recycle_limits import RecycleLimits
from pools.prefork.slot import Child, ChildState, Slot, drop_order
from pools.prefork.start_methods import Fork, Spawn, StartMethod
from pools.prefork.zygote import ForkServer, StartMethodListener

SLOW_START_SECONDS = 10.0
"""When the log mentions a child that is still starting, for the first time; then again each time it has doubled."""


class FillingListener(Protocol):
    """Called in the thread of the loop."""

    def on_started(self, child: Child, start_message: bytes) -> None:
        """There is a new child. ``start_message``: what it must be sent first; empty when nothing."""

    def on_start_failed(self, problem: str, *, attempts: int) -> None:
        """A slot could not be filled; another attempt follows. attempts: so many failed in each slot, one after the
        other; 0 while a slot can run tasks."""


def make_start_method(
    name: str, options: ChildOptions, fork_options: ForkOptions, listener: StartMethodListener
) -> StartMethod:
    """The start method of this name. PoolUnavailable for an unknown one."""
    if name == "fork":
        return Fork(options, fork_options)
    if name == "spawn":
        return Spawn(options)
    if name == "forkserver":
        return ForkServer(listener, options)
    raise PoolUnavailable(f"the prefork pool knows no start method {name!r}", hint="known: fork, forkserver, spawn")


class Filling:
    """Starts children for the slots of one pool.

    slots: by index; the caller adds and removes them.  active: whether slots are filled at all.  on_start: called
    before each attempt to start a child.
    """

    def __init__(
        self,
        listener: FillingListener,
        slots: Mapping[int, Slot],
        start_method_of: Callable[[StartMethodListener], StartMethod],
        *,
        deadlines: Deadlines,
        limits: RecycleLimits,
        log: logging.Logger,
        on_start: Callable[[], object],
    ) -> None:
        self._on_start = on_start
        self._listener = listener
        self._slots = slots
        self._deadlines = deadlines
        self._limits = limits
        self._log = log
        self._loop: EventLoop | None = None
        self.start_method = start_method_of(self)
        self.active = True
        self._method_failures = 0

    def open(self) -> None:
        """Get ready to start children. Unpicklable when they cannot be told what they are to do."""
        assert self._loop is not None
        self.start_method.open(self._loop)

    def move_to(self, loop: EventLoop) -> None:
        """Use this loop from now on."""
        self._loop = loop
        self.start_method.move_to(loop)
        for slot in self._slots.values():
            if slot.next_try is not None:
                slot.next_try = loop.call_at(slot.next_try.when, partial(self._try_again, slot))

    # -- starting

    def fill(self, slot: Slot) -> None:
        """Start the child that the slot lacks, if any; after failures, later."""
        if slot.dropped or not self.active or not self.start_method.ready or slot.next_try is not None:
            return
        if slot.failures:
            assert self._loop is not None
            pause_seconds = backoff.pause_seconds(slot.failures)
            slot.next_try = self._loop.call_later(pause_seconds, partial(self._try_again, slot))
            return
        self._start_missing(slot)

    def renew_some(self) -> None:
        """Start successors in slots that want a fresh child.

        A quarter of the slots at a time, because starts cost memory and processor time. A successor that is ready and
        waits for its turn is not counted.
        """
        slots = self._slots.values()
        starting = sum(
            child is not None and child.state is ChildState.STARTING
            for slot in slots
            for child in (slot.child, slot.spare)
        )
        most = max(1, len(slots) // 4) - starting
        wanting = [slot for slot in slots if slot.renew and slot.spare is None and slot.next_try is None]
        for slot in sorted(wanting, key=drop_order)[: max(0, most)]:
            self.fill(slot)

    def cancel_retry(self, slot: Slot) -> None:
        """Do not try again. Does nothing when no attempt is due."""
        if slot.next_try is not None:
            slot.next_try.cancel()
            slot.next_try = None

    def _try_again(self, slot: Slot) -> None:
        slot.next_try = None
        if self.start_method.ready:
            self._start_missing(slot)

    def _start_missing(self, slot: Slot) -> None:
        if slot.child is None:
            slot.child = self._start_child(slot)
        elif slot.spare is None and (slot.renew or slot.child.spent or slot.child.state is ChildState.KILLING):
            slot.spare = self._start_child(slot)

    def _start_child(self, slot: Slot) -> Child | None:
        self._on_start()
        try:
            pid, link, start_message = self.start_method.start_child(slot.index)
        except OSError as error:
            if self.start_method.ready:
                self._on_failed_start(slot, f"no process could be started: {error}")
                self.fill(slot)
            return None
        child = Child(slot, pid, link, self._limits.for_one_child())
        self._listener.on_started(child, start_message)
        self._deadlines.set(child, SLOW_START_SECONDS, partial(self._on_slow_start, child))
        return child

    def _on_slow_start(self, child: Child) -> None:
        seconds = time.monotonic() - child.started_at
        self._log.warning("slot %d: child %d is still starting after %.0f s", child.slot.index, child.pid, seconds)
        self._deadlines.set(child, seconds, partial(self._on_slow_start, child))

    # -- failures

    def on_start_method_ready(self) -> None:
        """Fill the slots that could not be filled before."""
        self._method_failures = 0
        for slot in list(self._slots.values()):
            self.fill(slot)

    def on_start_method_failed(self, problem: str, *, again_in_seconds: float) -> None:
        """Children that run go on; new ones have to wait."""
        self._log.error("%s; next try in %.1f s", problem, again_in_seconds)
        self._method_failures += 1
        self._listener.on_start_failed(problem, attempts=self._attempts(self._method_failures))

    def note_death(self, child: Child, state: ChildState, exit_code: int | None) -> None:
        """Count a child that died in this state before it had done a task.

        It is not replaced at once: a start that always fails must not become an endless series of forks.
        """
        slot = child.slot
        if child.tasks_done:
            return
        if time.monotonic() - child.started_at > backoff.SHORT_LIFE_SECONDS:
            slot.failures = 0
        elif state is ChildState.STARTING:
            cause = child.init_error or "it said nothing"
            self._on_failed_start(slot, f"child {child.pid} died while starting ({exit_text(exit_code)}): {cause}")
        elif state is ChildState.IDLE or child.died_before_beginning:
            slot.failures += 1
            self._log.warning("slot %d: idle child %d died (%s)", slot.index, child.pid, exit_text(exit_code))

    def _on_failed_start(self, slot: Slot, problem: str) -> None:
        slot.failures += 1
        again = f"; next try in about {backoff.most_pause_seconds(slot.failures):.1f} s" if self.active else ""
        self._log.error("slot %d: %s%s", slot.index, problem, again)
        attempts = self._attempts(min(slot.failures for slot in self._slots.values()))
        self._listener.on_start_failed(problem, attempts=attempts)

    def _attempts(self, failures: int) -> int:
        children = [child for slot in self._slots.values() for child in (slot.child, slot.spare) if child is not None]
        return 0 if any(child.state in (ChildState.IDLE, ChildState.BUSY) for child in children) else failures
