"""Keeps the end of a stop in a native thread: a task of a green pool may keep the loop of its worker from running.

A greenlet that blocks in the kernel or in C code stops the hub, and with it the signals, the drain and its deadline.
This thread sees the signals that nobody takes, and counts. It runs no code of the patched library: raw threads, locks
and sockets only.
"""

from __future__ import annotations

import _socket
import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet.worker.lifecycle import State
from fleet.worker.os_signals import STOPS
from pools.patching import BLOCKING_SELECTOR

if TYPE_CHECKING:
    from fleet.worker.loop.consumer import Consumer

LOOK_SECONDS = 0.25
REST_SECONDS = 2.0
"""Between two looks while no signal waits and nothing asks the worker to go: a remote command may, without a signal."""
INTERRUPT_SECONDS = 1.5
"""After the end of a stop: from then on the task that keeps the main thread is told to end.

The loop itself looks at its deadline once a second."""
EXIT_SECONDS = 5.0
"""After the end of a stop: then the process goes. Supervisors give it 15 s before they kill it."""

_STOPS = frozenset(STOPS)


@dataclass(slots=True)
class StopClock:
    """When a stop has to be over; all times in monotonic seconds. PURE.

    asked_at: since when a first request to stop waits to be heard.  cold_at: since when a cold stop is due.
    """

    drain_seconds: float
    asked_at: float | None = None
    cold_at: float | None = None
    _over_at: float | None = None

    def over_at(self, now: float, *, waiting: Sequence[int], state: State, deadline: float | None) -> float | None:
        """None where nothing asks the worker to go. waiting: signals that came and were not heard; deadline: of the
        drain that has begun."""
        stops = [number for number in waiting if number in _STOPS]
        if state is State.STOPPED:  # what it still closes has the rest of the drain's time
            self._over_at = self._over_at or now + self.drain_seconds
            return self._over_at
        if state is State.COLD or signal.SIGQUIT in stops or len(stops) + (state is State.DRAINING) > 1:
            self.cold_at = self.cold_at or now
            return self.cold_at
        if state is State.DRAINING:
            self._over_at = deadline
        elif stops:
            self.asked_at = self.asked_at or now
            self._over_at = self.asked_at + self.drain_seconds
        return self._over_at


class StopWatch:
    """Looks every quarter of a second, in a native thread; while all is quiet, when a signal comes.

    box_fd: where signals wait.  look: the state and the deadline of the
    drain.  interrupt: end the task that keeps the main thread, if a signal reaches it.  leave: end the process.
    """

    def __init__(
        self,
        clock: StopClock,
        *,
        box_fd: int,
        look: Callable[[], tuple[State, float | None]],
        interrupt: Callable[[], object],
        leave: Callable[[], object],
    ) -> None:
        self.clock = clock
        self._look = look
        self._interrupt = interrupt
        self._leave = leave
        self._box = _socket.socket(fileno=os.dup(box_fd))
        self._selector = BLOCKING_SELECTOR()
        self._selector.register(self._box.fileno(), selectors.EVENT_READ)
        self._may_rest = hasattr(self._selector, "fileno")  # else it is a cooperative one, which is not for this thread
        self._rests = False

    def start(self, thread: Any) -> None:
        """For as long as the process lives. thread: the original ``_thread`` functions."""
        pause = thread.allocate_lock()
        pause.acquire()
        thread.start_new_thread(self._run, (pause,))

    def close(self) -> None:
        """Without a thread."""
        self._selector.close()
        self._box.close()

    def check(self, now: float) -> None:
        """One look."""
        state, deadline = self._look()
        over_at = self.clock.over_at(now, waiting=self._waiting(), state=state, deadline=deadline)
        self._rests = self._may_rest and over_at is None
        if over_at is None or now < over_at + INTERRUPT_SECONDS:
            return
        self._interrupt()
        if now >= over_at + EXIT_SECONDS:
            self._leave()

    def _waiting(self) -> bytes:
        try:
            return self._box.recv(4096, _socket.MSG_PEEK | _socket.MSG_DONTWAIT)
        except OSError:
            return b""

    def _run(self, pause: Any) -> None:
        while True:
            heard = not self._rests or bool(self._selector.select(REST_SECONDS))
            with suppress(Exception):  # nothing can be told from here: the next look comes soon
                self.check(time.monotonic())
            if heard:
                pause.acquire(True, LOOK_SECONDS)


def keep_deadline(consumer: Consumer, pool: Any, *, box_fd: int) -> None:
    """Watch over the stop of this worker. pool: one of the green ones, whose modules not every process may import."""
    parts = consumer.parts
    clock = StopClock(parts.options.spec.drain_timeout_seconds)
    consumer.stop_asked_at = lambda: clock.asked_at
    watch = StopWatch(
        clock,
        box_fd=box_fd,
        look=lambda: (parts.life.state, consumer.deadline),
        interrupt=pool.interrupt_blocking_task,
        leave=parts.forced_exit.at_end_of_stop,
    )
    watch.start(pool.original_thread())
