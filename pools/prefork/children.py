"""The children of a pool: born, watched, recycled, ended and buried. What they work on is the pool's business."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import time
from functools import partial
from typing import Protocol

from pools.errors import PoolUnavailable
from pools.loop import EventLoop
from pools.prefork import backoff
from pools.prefork.child import ChildOptions, ForkOptions
from pools.prefork.deadlines import Deadlines
from pools.prefork.exit import await_exit, exit_text, has_exited, signal_group, signal_process
from pools.prefork.fresh_interpreter import start_message_head
from pools.prefork.protocol import INIT_FAILED, WORKER_UP, Report, load
from pools.prefork.recycle_limits import RecycleLimits
from pools.prefork.slot import Child, ChildState, Job, Slot
from pools.prefork.start_methods import Fork, Spawn, StartMethod
from pools.prefork.zygote import ForkServer

SLOW_START_SECONDS = 10.0
LEAVE_SECONDS = 5.0
"""How long a child that was let go may take, with its finalizer, before it is killed."""
END_SECONDS = 1.0
"""How long a child may take to end after TERM, before it is killed."""
ABANDON_SECONDS = 5.0
"""How long to wait for a killed child (it may hang in the kernel) before its slot is filled anyway."""
POLL_SECONDS = 0.2
"""How often to look for the death of a child where the system has no pidfd."""


class ChildrenListener(Protocol):
    """What the crew tells the pool."""

    def on_ready(self, child: Child) -> None:
        """The child may be given a task."""

    def on_unready(self, child: Child) -> None:
        """The child may not be given a task any more."""

    def on_report(self, child: Child, report: Report) -> None:
        """The child has finished a task. Ends with ``crew.settle(child)``."""

    def on_dead(self, child: Child, exit_code: int | None) -> None:
        """The child is gone; ``child.job`` is what it left behind."""

    def on_start_failed(self, problem: str) -> None:
        """A slot could not be filled; another try follows."""

    def tell_slot(self, index: int, pid: int, state: str) -> None:
        """A child of this slot changed its state."""


class Children:
    """All slots and all children of one pool. Everything happens in the thread of ``loop``."""

    def __init__(
        self,
        hooks: ChildrenListener,
        options: ChildOptions,
        fork_options: ForkOptions,
        *,
        start_method: str,
        limits: RecycleLimits,
        log: logging.Logger,
    ) -> None:
        self._hooks = hooks
        self._start_method = self._make_start_method(start_method, options, fork_options)
        self._limits = limits
        self._log = log
        self._abandoned: set[int] = set()
        self.loop: EventLoop | None = None
        self.slots: dict[int, Slot] = {}
        self.children: set[Child] = set()
        self.deadlines = Deadlines(self.children)
        self.filling = True

    def _make_start_method(self, start_method: str, options: ChildOptions, fork_options: ForkOptions) -> StartMethod:
        if start_method == "fork":
            return Fork(options, fork_options)
        if start_method == "spawn":
            return Spawn(options)
        if start_method == "forkserver":
            return ForkServer(self, options)
        raise PoolUnavailable(
            f"the prefork pool knows no start method {start_method!r}", hint="known: fork, forkserver, spawn"
        )

    def open(self, count: int) -> None:
        """The first slots."""
        assert self.loop is not None
        self._start_method.open(self.loop)
        self.add_slots(count)

    def close(self) -> None:
        """All children are gone."""
        self._start_method.close()

    # -- slots

    def add_slots(self, count: int) -> None:
        """New slots under the lowest free indexes."""
        index = 0
        for _ in range(count):
            while index in self.slots:
                index += 1
            self.slots[index] = Slot(index)
            self._fill(self.slots[index])

    def drop_slots(self, count: int) -> None:
        """Give up slots: idle ones first, then starting ones, then busy ones after their task; highest index first."""
        wanted = sorted((slot for slot in self.slots.values() if not slot.dropped), key=_ease_of_dropping)
        for slot in wanted[:count]:
            self._drop(slot)

    def dismiss(self) -> None:
        """Give up all slots, each after its task."""
        self.filling = False
        for slot in list(self.slots.values()):
            self._drop(slot)

    def renew(self) -> None:
        """Put fresh children in all slots, a few at a time."""
        for slot in self.slots.values():
            slot.renew = True
        self._renew_some()

    def _drop(self, slot: Slot) -> None:
        slot.dropped = True
        self._forget_next_try(slot)
        for child in (slot.spare, slot.child):
            if child is not None:
                self.retire(child)
        self._forget_if_empty(slot)

    def _forget_if_empty(self, slot: Slot) -> None:
        empty = slot.dropped and slot.child is None and slot.spare is None
        if empty and self.slots.get(slot.index) is slot:  # a new slot may have its index already
            del self.slots[slot.index]

    # -- birth

    def _fill(self, slot: Slot) -> None:
        """Give the slot the children it lacks; after failures, later."""
        if slot.dropped or not self.filling or not self._start_method.ready or slot.next_try is not None:
            return
        if slot.failures:
            assert self.loop is not None
            pause_seconds = backoff.pause_seconds(slot.failures)
            slot.next_try = self.loop.call_later(pause_seconds, partial(self._try_again, slot))
            return
        self._start_missing(slot)

    def _try_again(self, slot: Slot) -> None:
        slot.next_try = None
        if self._start_method.ready:
            self._start_missing(slot)

    def _start_missing(self, slot: Slot) -> None:
        if slot.child is None:
            slot.child = self._start_child(slot)
        elif slot.spare is None and (slot.renew or slot.child.spent or slot.child.state is ChildState.KILLING):
            slot.spare = self._start_child(slot)

    def _start_child(self, slot: Slot) -> Child | None:
        try:
            pid, link, start_message = self._start_method.start_child(slot.index)
        except OSError as error:
            if self._start_method.ready:
                self._on_failed_start(slot, f"no process could be started: {error}")
                self._fill(slot)
            return None
        child = Child(slot, pid, link, self._limits.for_one_child())
        self.children.add(child)
        if start_message:
            with contextlib.suppress(OSError):  # its death is told elsewhere
                child.outbox.send(start_message_head(start_message), start_message)
        self._watch(child)
        self._let_age(child, child.limits.seconds)
        self.become(child, ChildState.STARTING)
        self.deadlines.set(child, SLOW_START_SECONDS, partial(self._on_slow_start, child))
        return child

    def on_start_method_ready(self) -> None:
        """Fill what could not be filled."""
        for slot in list(self.slots.values()):
            self._fill(slot)

    def on_start_method_failed(self, problem: str, *, again_in_seconds: float) -> None:
        """The children there are go on; new ones have to wait."""
        self._log.error("%s; next try in %.1f s", problem, again_in_seconds)
        self._hooks.on_start_failed(problem)

    def _on_slow_start(self, child: Child) -> None:
        seconds = time.monotonic() - child.started_at
        self._log.warning("slot %d: child %d is still starting after %.0f s", child.slot.index, child.pid, seconds)
        self.deadlines.set(child, seconds, partial(self._on_slow_start, child))

    def _on_up(self, child: Child) -> None:
        slot = child.slot
        if child.state is not ChildState.STARTING:  # let go while it started
            return
        self.deadlines.clear(child)
        self.become(child, ChildState.IDLE)
        if slot.child is child:
            self._hooks.on_ready(child)
        elif slot.child is None or slot.child.state is ChildState.KILLING:
            self._promote(slot)
        else:
            self.retire(slot.child)
        self._renew_some()

    def _promote(self, slot: Slot) -> None:
        slot.child, slot.spare = slot.spare, None
        slot.renew = False
        if slot.child is not None and slot.child.state is ChildState.IDLE:
            self._hooks.on_ready(slot.child)

    # -- recycling

    def prepare_spare(self, slot: Slot) -> None:
        """Its child leaves soon: start the next one already."""
        self._fill(slot)

    def replace_soon(self, slot: Slot) -> None:
        """Its child goes on, until a fresh one is there."""
        slot.renew = True
        self._renew_some()

    def _let_age(self, child: Child, seconds: float | None) -> None:
        if seconds is not None:
            assert self.loop is not None
            child.aging = self.loop.call_later(seconds, partial(self._on_old, child))

    def _on_old(self, child: Child) -> None:
        if child.slot.child is child:
            self.replace_soon(child.slot)
        else:  # a spare that has grown old: its turn may come yet
            self._let_age(child, SLOW_START_SECONDS)

    def _renew_some(self) -> None:
        # A quarter at a time: starts cost memory and processors. A spare that only waits for its turn does not count.
        starting = sum(1 for child in self.children if child.state is ChildState.STARTING)
        wanting = [slot for slot in self.slots.values() if slot.renew and slot.spare is None and slot.next_try is None]
        for slot in sorted(wanting, key=_ease_of_dropping)[: max(0, max(1, len(self.slots) // 4) - starting)]:
            self._fill(slot)

    # -- traffic

    def send(self, child: Child, job: Job) -> None:
        """Give it a job. OSError when it is gone; then it has read nothing of it."""
        assert self.loop is not None
        if not child.send(job):
            self.loop.add_writer(child.link.socket.fileno(), partial(self._on_writable, child))

    def _on_writable(self, child: Child) -> None:
        assert self.loop is not None
        with contextlib.suppress(OSError):  # its death is told elsewhere
            if not child.outbox.flush():
                return
        self.loop.remove_writer(child.link.socket.fileno())

    def _watch(self, child: Child) -> None:
        loop = self.loop
        assert loop is not None
        loop.add_reader(child.link.socket.fileno(), partial(self._on_readable, child))
        if child.link.pidfd >= 0:
            loop.add_reader(child.link.pidfd, partial(self._on_exit, child))
        else:
            loop.call_later(POLL_SECONDS, partial(self._poll, child, loop))
        if child.outbox.pending:
            loop.add_writer(child.link.socket.fileno(), partial(self._on_writable, child))

    def move_to(self, loop: EventLoop) -> None:
        """Be driven by another loop from now on."""
        self.loop = loop
        self._start_method.move_to(loop)
        self.deadlines.move_to(loop)
        for child in self.children:
            self._watch(child)
            if child.aging is not None and child.aging.pending:
                child.aging = loop.call_at(child.aging.when, partial(self._on_old, child))
        for slot in self.slots.values():
            if slot.next_try is not None:
                slot.next_try = loop.call_at(slot.next_try.when, partial(self._try_again, slot))

    def _on_readable(self, child: Child) -> None:
        reports = child.inbox.receive()
        if child.inbox.ended:
            self._on_hang_up(child)
        for report in reports:
            self._on_report(child, report)

    def _on_hang_up(self, child: Child) -> None:
        assert self.loop is not None
        child.gone = True
        self.loop.remove_reader(child.link.socket.fileno())
        self._hooks.on_unready(child)
        if child.state is not ChildState.KILLING:
            # It is on its way out, or its task closed the socket and nothing can be heard of it any more.
            self.deadlines.set(child, END_SECONDS, partial(self._kill, child))

    def _on_report(self, child: Child, report: Report) -> None:
        if report.kind == WORKER_UP:
            self._on_up(child)
        elif report.kind == INIT_FAILED:
            error, text = load(report.body)
            child.init_error = f"{type(error).__name__}: {error}\n{text}"
        else:
            child.tasks_done += 1
            child.slot.failures = 0
            self._hooks.on_report(child, report)

    def settle(self, child: Child) -> None:
        """The child has no job any more: it is idle again, or leaves."""
        if child.gone:
            return
        if child.state is ChildState.KILLING:
            self._hang_up(child)
            return
        self.become(child, ChildState.IDLE)
        ready_spare = child.slot.spare is not None and child.slot.spare.state is ChildState.IDLE
        if child.leaving or child.spent or ready_spare:
            self.retire(child)
        else:
            self._hooks.on_ready(child)

    # -- leaving

    def retire(self, child: Child) -> None:
        """It leaves as soon as it has no task, and somebody takes its place if there is to be anybody."""
        child.leaving = True
        if child.job is not None or child.state not in (ChildState.STARTING, ChildState.IDLE):
            return
        slot = child.slot
        self._hooks.on_unready(child)
        self.become(child, ChildState.RETIRING)
        self.deadlines.set(child, LEAVE_SECONDS, partial(self._kill, child))
        self._hang_up(child)
        self._vacate(slot, child)

    def end(self, child: Child, signum: int = signal.SIGTERM) -> None:
        """It has to end now, with all processes that its task started."""
        if child.state in (ChildState.KILLING, ChildState.DEAD):
            return
        self._hooks.on_unready(child)
        busy = child.job is not None
        self.become(child, ChildState.KILLING)
        child.post(end=child.job.number if child.job is not None else 0)
        if not busy:
            self._hang_up(child)
        signal_group(child.pid, signum)
        self.deadlines.set(child, END_SECONDS, partial(self._kill, child))
        if child.slot.child is child:
            self.prepare_spare(child.slot)

    def _kill(self, child: Child) -> None:
        self.become(child, ChildState.KILLING)
        signal_group(child.pid, signal.SIGKILL)
        signal_process(child.pid, signal.SIGKILL)
        self.deadlines.set(child, ABANDON_SECONDS, partial(self._abandon, child))

    def _abandon(self, child: Child) -> None:
        self._log.error("slot %d: child %d does not die; it is left alone", child.slot.index, child.pid)
        self._abandoned.add(child.pid)
        self._remove_dead(child)

    def kill_all(self) -> None:
        """Without a loop, and without ceremony: for the end of a program."""
        for child in list(self.children):
            signal_group(child.pid, signal.SIGKILL)
            if child.link.pidfd >= 0:
                await_exit(child.link.pidfd, ABANDON_SECONDS)
            child.link.close()
            self._start_method.reap(child.pid, wait=True)
        self.children.clear()
        self._start_method.close()

    def _hang_up(self, child: Child) -> None:
        with contextlib.suppress(OSError):
            child.link.socket.shutdown(socket.SHUT_WR)

    def _vacate(self, slot: Slot, child: Child) -> None:
        if slot.spare is child:
            slot.spare = None
        if slot.child is child:
            slot.child = None
            slot.renew = False
            if slot.spare is not None:
                self._promote(slot)
        self._fill(slot)
        self._forget_if_empty(slot)

    # -- death

    def _poll(self, child: Child, loop: EventLoop) -> None:
        if child.state is ChildState.DEAD or loop is not self.loop:
            return
        if has_exited(child.pid):
            self._on_exit(child)
        else:
            loop.call_later(POLL_SECONDS, partial(self._poll, child, loop))

    def _on_exit(self, child: Child) -> None:
        child.gone = True
        for report in child.inbox.drain():  # what it had finished before it died counts
            self._on_report(child, report)
        self._remove_dead(child)

    def _remove_dead(self, child: Child) -> None:
        state = child.state
        self._hooks.on_unready(child)
        exit_code = self._take_leave(child)
        self.become(child, ChildState.DEAD)
        self._learn_from(child, state, exit_code)
        self._vacate(child.slot, child)
        self._hooks.on_dead(child, exit_code)

    def _take_leave(self, child: Child) -> int | None:
        assert self.loop is not None
        self.children.discard(child)
        self.deadlines.clear(child)
        if child.aging is not None:
            child.aging.cancel()
        self.loop.remove_reader(child.link.socket.fileno())
        self.loop.remove_writer(child.link.socket.fileno())
        if child.link.pidfd >= 0:
            self.loop.remove_reader(child.link.pidfd)
        # Before reaping: while it is a zombie no other process can have its number. Its tasks' processes go with it.
        if has_exited(child.pid, child.link.pidfd):
            signal_group(child.pid, signal.SIGKILL)
        _, exit_code = self._start_method.reap(child.pid)
        child.link.close()
        self._abandoned = {pid for pid in self._abandoned if not self._start_method.reap(pid)[0]}
        return exit_code

    def _learn_from(self, child: Child, state: ChildState, exit_code: int | None) -> None:
        """A child that came to nothing is not replaced at once: a broken start must not become a storm of forks."""
        slot = child.slot
        if child.tasks_done:
            return
        if time.monotonic() - child.started_at > backoff.SHORT_LIFE_SECONDS:
            slot.failures = 0
        elif state is ChildState.STARTING:
            cause = child.init_error or "it said nothing"
            self._on_failed_start(slot, f"child {child.pid} died while starting ({exit_text(exit_code)}): {cause}")
        elif state is ChildState.IDLE:
            slot.failures += 1
            self._log.warning("slot %d: idle child %d died (%s)", slot.index, child.pid, exit_text(exit_code))

    def _on_failed_start(self, slot: Slot, problem: str) -> None:
        slot.failures += 1
        again = f"; next try in about {backoff.most_pause_seconds(slot.failures):.1f} s" if self.filling else ""
        self._log.error("slot %d: %s%s", slot.index, problem, again)
        self._hooks.on_start_failed(problem)

    # -- words

    def become(self, child: Child, state: ChildState) -> None:
        """Change the state of a child and tell the world."""
        child.state = state
        self._hooks.tell_slot(child.slot.index, child.pid, state)

    def _forget_next_try(self, slot: Slot) -> None:
        if slot.next_try is not None:
            slot.next_try.cancel()
            slot.next_try = None


def _ease_of_dropping(slot: Slot) -> tuple[int, int]:
    child = slot.child
    if child is not None and child.job is not None:
        return 2, -slot.index
    return int(child is None or child.state is ChildState.STARTING), -slot.index
