"""When a stop must be over, as a native thread sees it that hears what the loop does not."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from fleet.worker.lifecycle import State
from fleet.worker.loop.stop_watch import EXIT_SECONDS, INTERRUPT_SECONDS, StopClock, StopWatch

TERM, QUIT, STACKS = signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1
DRAIN = 60.0


@pytest.mark.parametrize(
    ("state", "waiting", "deadline", "over_at"),
    [
        (State.READY, [], None, None),
        (State.READY, [STACKS], None, None),
        (State.READY, [TERM], None, 100.0 + DRAIN),
        (State.STARTING, [TERM], None, 100.0 + DRAIN),
        (State.HELD, [TERM], None, 100.0 + DRAIN),
        (State.READY, [TERM, STACKS], None, 100.0 + DRAIN),
        (State.READY, [TERM, TERM], None, 100.0),
        (State.READY, [signal.SIGINT, TERM], None, 100.0),
        (State.READY, [QUIT], None, 100.0),
        (State.DRAINING, [], 130.0, 130.0),
        (State.DRAINING, [TERM], 130.0, 100.0),
        (State.COLD, [], None, 100.0),
        (State.STOPPED, [], None, 100.0 + DRAIN),
    ],
)
def test_the_end_of_a_stop(state: State, waiting: list[int], deadline: float | None, over_at: float | None) -> None:
    assert StopClock(DRAIN).over_at(100.0, waiting=waiting, state=state, deadline=deadline) == over_at


def test_what_began_to_wait_waits_since_then() -> None:
    clock = StopClock(DRAIN)
    for now in (100.0, 101.0, 150.0):
        assert clock.over_at(now, waiting=[TERM], state=State.READY, deadline=None) == 100.0 + DRAIN
    assert clock.asked_at == 100.0
    assert clock.over_at(151.0, waiting=[TERM, TERM], state=State.READY, deadline=None) == 151.0
    assert clock.over_at(152.0, waiting=[TERM, TERM], state=State.READY, deadline=None) == 151.0


def test_what_a_stopped_worker_still_closes_has_the_rest_of_the_time() -> None:
    clock = StopClock(DRAIN)
    assert clock.over_at(100.0, waiting=[], state=State.DRAINING, deadline=150.0) == 150.0
    assert clock.over_at(120.0, waiting=[], state=State.STOPPED, deadline=150.0) == 150.0


@pytest.fixture
def box() -> Iterator[tuple[socket.socket, socket.socket]]:
    read, write = socket.socketpair()
    with read, write:
        yield read, write


def test_a_signal_that_nobody_takes_interrupts_and_then_ends(box: tuple[socket.socket, socket.socket]) -> None:
    read, write = box
    did: list[str] = []
    watch = StopWatch(
        StopClock(DRAIN),
        box_fd=read.fileno(),
        look=lambda: (State.READY, None),
        interrupt=lambda: did.append("interrupt"),
        leave=lambda: did.append("leave"),
    )
    with closing(watch):
        watch.check(100.0)
        write.send(bytes([TERM, TERM]))
        watch.check(101.0)
        watch.check(101.0 + INTERRUPT_SECONDS - 0.1)
        assert did == []
        watch.check(101.0 + INTERRUPT_SECONDS)
        assert did == ["interrupt"]
        watch.check(101.0 + EXIT_SECONDS)
        assert did == ["interrupt", "interrupt", "leave"]
        assert read.recv(10) == bytes([TERM, TERM]), "what waits is left to the loop"
