"""The children of a pool and their slots: which child serves which slot, when it is replaced, and how it ends."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from functools import partial
from typing import Protocol

from pools.loop import EventLoop
from pools.prefork.age_watch import AgeWatch
from pools.prefork.child import ChildOptions, ForkOptions
from pools.prefork.child_io import ChildIO
from pools.prefork.deadlines import Deadlines
from pools.prefork.exit import has_exited, kill_and_wait, signal_group, signal_process
from pools.prefork.filling import Filling, make_start_method
from pools.prefork.pipes import Pipes, PipesListener
from pools.prefork.protocol import INIT_FAILED, WORKER_UP, Report, load
from pools.prefork.recycle_limits import RecycleLimits
from pools.prefork.slot import Child, ChildState, Slot, drop_order

LEAVE_SECONDS = 5.0
"""How long a retired child may take, with its finalizer, before it is killed."""
END_SECONDS = 1.0
"""How long a child may take to end after TERM, before it is killed."""
ABANDON_SECONDS = 5.0
"""How long to wait for a killed child (it may hang in the kernel) before its slot is filled anyway."""


class ChildrenListener(PipesListener, Protocol):
    """Called in the thread of the loop."""

    def on_ready(self, child: Child) -> None:
        """The child may be given a task."""

    def on_unready(self, child: Child) -> None:
        """The child may not be given a task any more."""

    def on_report(self, child: Child, report: Report) -> None:
        """The child has finished a task. Must call ``Children.after_task(child)``."""

    def on_dead(self, child: Child, exit_code: int | None) -> None:
        """The child is gone; ``child.job`` is the task it ran, if any."""

    def on_start_failed(self, problem: str, *, attempts: int) -> None:
        """A slot could not be filled; another attempt follows. attempts: see ``Filling``."""

    def tell_slot(self, index: int, pid: int, state: str) -> None:
        """A child of this slot has changed its state."""


class Children:
    """All slots and all children of one pool. Every method belongs to the thread of the pool's loop.

    alive: the children that have not been removed.  deadlines: one per child.  pipes: what their tasks come by.
    """

    def __init__(
        self,
        listener: ChildrenListener,
        options: ChildOptions,
        fork_options: ForkOptions,
        *,
        start_method: str,
        limits: RecycleLimits,
        log: logging.Logger,
        on_start: Callable[[], object],
    ) -> None:
        self._listener = listener
        self._log = log
        self._slots: dict[int, Slot] = {}
        self._abandoned_pids: set[int] = set()
        self.alive: set[Child] = set()
        self.deadlines = Deadlines(self.alive)
        start_method_of = partial(make_start_method, start_method, options, fork_options)
        self.filling = Filling(
            self, self._slots, start_method_of, deadlines=self.deadlines, limits=limits, log=log, on_start=on_start
        )
        self._io = ChildIO(self)
        self.pipes = Pipes(listener, self._io)
        self._ages = AgeWatch(self.renew)

    def open(self, count: int) -> None:
        """Make the first slots. Unpicklable when the children cannot be told what they are to do."""
        self.filling.open()
        self.add_slots(count)

    def close(self) -> None:
        """All children are gone, and no more are started."""
        self.filling.start_method.close()

    def move_to(self, loop: EventLoop) -> None:
        """Use this loop from now on."""
        self._io.move_to(loop, self.alive)
        self.filling.move_to(loop)
        self.deadlines.move_to(loop)
        self._ages.move_to(loop, self.alive)

    # -- slots

    def add_slots(self, count: int) -> None:
        """New slots under the lowest free indexes."""
        index = 0
        for _ in range(count):
            while index in self._slots:
                index += 1
            self._slots[index] = Slot(index)
            self.filling.fill(self._slots[index])

    def drop_slots(self, count: int) -> None:
        """Give up slots: idle ones first, then starting ones, then busy ones after their task; highest index first."""
        wanted = sorted((slot for slot in self._slots.values() if not slot.dropped), key=drop_order)
        for slot in wanted[:count]:
            self._drop(slot)

    def drop_all_slots(self) -> None:
        """Give up all slots, each after its task."""
        self.filling.active = False
        for slot in list(self._slots.values()):
            self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        slot.dropped = True
        self.filling.cancel_retry(slot)
        for child in (slot.spare, slot.child):
            if child is not None:
                self.retire(child)
        self._forget_if_empty(slot)

    def _forget_if_empty(self, slot: Slot) -> None:
        empty = slot.dropped and slot.child is None and slot.spare is None
        if empty and self._slots.get(slot.index) is slot:  # a new slot may have its index already
            del self._slots[slot.index]

    def _leave_slot(self, slot: Slot, child: Child) -> None:
        if slot.spare is child:
            slot.spare = None
        if slot.child is child:
            self._promote_spare(slot)
        self.filling.fill(slot)
        self._forget_if_empty(slot)

    def _promote_spare(self, slot: Slot) -> None:
        slot.child, slot.spare = slot.spare, None
        slot.renew = False
        if slot.child is not None and slot.child.state is ChildState.IDLE:
            self._listener.on_ready(slot.child)

    # -- replacing

    def renew_all(self) -> None:
        """Put fresh children in all slots, a few at a time."""
        for slot in self._slots.values():
            slot.renew = True
        self.filling.renew_some()

    def renew(self, slot: Slot) -> None:
        """Put a fresh child in this slot; the present one goes on until the fresh one is ready."""
        slot.renew = True
        self.filling.renew_some()

    # -- a child at work

    def after_task(self, child: Child) -> None:
        """The child has ended its job: it has begun the next one in its pipe, is idle again, or leaves."""
        if child.gone:
            return
        if child.state is ChildState.KILLING:
            self._io.hang_up(child)
            return
        ready_spare = child.slot.spare is not None and child.slot.spare.state is ChildState.IDLE
        if child.behind:
            if child.leaving or ready_spare:
                self.pipes.take_back(child)
            if self.pipes.begin_next(child):
                return
        self.set_state(child, ChildState.IDLE)
        if child.leaving or child.spent or ready_spare:
            self.retire(child)
        else:
            self._listener.on_ready(child)

    def set_state(self, child: Child, state: ChildState) -> None:
        """Change the state of a child and tell the listener."""
        child.state = state
        self._listener.tell_slot(child.slot.index, child.pid, state)

    # -- called by filling and io

    def on_started(self, child: Child, start_message: bytes) -> None:
        self.alive.add(child)
        if start_message:
            self._io.send_start_message(child, start_message)
        self._io.watch(child)
        if child.limits.seconds is not None:
            self._ages.start(child, child.limits.seconds)
        self.set_state(child, ChildState.STARTING)

    def on_start_failed(self, problem: str, *, attempts: int) -> None:
        self._listener.on_start_failed(problem, attempts=attempts)

    def on_report(self, child: Child, report: Report) -> None:
        if report.kind == WORKER_UP:
            self._on_up(child)
        elif report.kind == INIT_FAILED:
            error, text = load(report.body)
            child.init_error = f"{type(error).__name__}: {error}\n{text}"
        else:
            child.tasks_done += 1
            child.slot.failures = 0
            self._listener.on_report(child, report)

    def on_hang_up(self, child: Child) -> None:
        self._listener.on_unready(child)
        if child.state is not ChildState.KILLING:
            # It is about to exit, or its task closed the socket and nothing can be heard of it any more.
            self.deadlines.set(child, END_SECONDS, partial(self._kill, child))

    def on_exit(self, child: Child) -> None:
        self._remove_dead(child)

    def _on_up(self, child: Child) -> None:
        slot = child.slot
        if child.state is not ChildState.STARTING:  # retired while it started
            return
        self.deadlines.clear(child)
        self.set_state(child, ChildState.IDLE)
        if slot.child is child:
            self._listener.on_ready(child)
        elif slot.child is None or slot.child.state is ChildState.KILLING:
            self._promote_spare(slot)
        else:
            self.retire(slot.child)
        self.filling.renew_some()

    # -- ends

    def retire(self, child: Child) -> None:
        """The child leaves as soon as it has no task; if its slot stays, another child takes its place."""
        child.leaving = True
        if child.job is not None or child.state not in (ChildState.STARTING, ChildState.IDLE):
            if child.behind:
                self.pipes.take_back(child)
            return
        self._listener.on_unready(child)
        self.set_state(child, ChildState.RETIRING)
        self.deadlines.set(child, LEAVE_SECONDS, partial(self._kill, child))
        self._io.hang_up(child)
        self._leave_slot(child.slot, child)

    def terminate_child(self, child: Child, signum: int = signal.SIGTERM) -> None:
        """Send a signal to the child and all processes that its task started; ``END_SECONDS`` later KILL."""
        if child.state in (ChildState.KILLING, ChildState.DEAD):
            return
        self._listener.on_unready(child)
        busy = child.job is not None
        self.set_state(child, ChildState.KILLING)
        child.write_signal_page(end=child.job.number if child.job is not None else 0)
        if not busy:
            self._io.hang_up(child)
        signal_group(child.pid, signum)
        self.deadlines.set(child, END_SECONDS, partial(self._kill, child))
        if child.slot.child is child:
            self.filling.fill(child.slot)

    def kill_all(self) -> None:
        """End all children now and wait for it, without the loop: for the end of a program."""
        for child in list(self.alive):
            kill_and_wait(child.pid, child.link.pidfd, ABANDON_SECONDS)
            child.link.close()
            self.filling.start_method.reap(child.pid, wait=True)
        self.alive.clear()
        self.close()

    def _kill(self, child: Child) -> None:
        self.set_state(child, ChildState.KILLING)
        signal_group(child.pid, signal.SIGKILL)
        signal_process(child.pid, signal.SIGKILL)
        self.deadlines.set(child, ABANDON_SECONDS, partial(self._abandon, child))

    def _abandon(self, child: Child) -> None:
        self._log.error("slot %d: child %d does not die; it is left alone", child.slot.index, child.pid)
        self._abandoned_pids.add(child.pid)
        self._remove_dead(child)

    def _remove_dead(self, child: Child) -> None:
        state = child.state
        self._listener.on_unready(child)
        self.pipes.take_from_dead(child)
        exit_code = self._release(child)
        self.set_state(child, ChildState.DEAD)
        self.filling.note_death(child, state, exit_code)
        self._leave_slot(child.slot, child)
        self._listener.on_dead(child, exit_code)

    def _release(self, child: Child) -> int | None:
        """Reap the child and give up everything that belongs to it; its exit code, None when unknown."""
        self.alive.discard(child)
        self.deadlines.clear(child)
        self._ages.stop(child)
        self._io.unwatch(child)
        # Before reaping: while it is a zombie no other process can have its number. Its tasks' processes go with it.
        if has_exited(child.pid, child.link.pidfd):
            signal_group(child.pid, signal.SIGKILL)
        start_method = self.filling.start_method
        _, exit_code = start_method.reap(child.pid)
        child.link.close()
        self._abandoned_pids = {pid for pid in self._abandoned_pids if not start_method.reap(pid)[0]}
        return exit_code
