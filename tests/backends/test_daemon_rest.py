"""When supervisord may sleep, and what wakes it."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from supervisor.states import ProcessStates, SupervisorStates

from fleet.backends.supervisor.daemon_rest import REST_SECONDS, SETTLED_SECONDS, RestingPoller, Signals, rests

NOW = 1000.0


def process(state: int, *, started: float = 5.0, stopped: float = 0.0, autostart: bool = True) -> Any:
    config = SimpleNamespace(autostart=autostart)
    return SimpleNamespace(get_state=lambda: state, laststart=started, laststop=stopped, config=config)


def daemon(*more: Any, mood: int = SupervisorStates.RUNNING, signals: tuple[int, ...] = ()) -> Any:
    every = dict(enumerate([process(ProcessStates.RUNNING), process(ProcessStates.STOPPED), *more]))
    receiver = SimpleNamespace(_signals_recvd=list(signals))
    options = SimpleNamespace(mood=mood, signal_receiver=receiver)
    return SimpleNamespace(options=options, process_groups={"a": SimpleNamespace(processes=every)})


RESTS = {
    "all as they stay": (daemon(), True),
    "given up": (daemon(process(ProcessStates.FATAL)), True),
    "starting": (daemon(process(ProcessStates.STARTING)), False),
    "stopping, to be killed in time": (daemon(process(ProcessStates.STOPPING)), False),
    "to be tried again": (daemon(process(ProcessStates.BACKOFF)), False),
    "ended, to be started again": (daemon(process(ProcessStates.EXITED, stopped=NOW - 1)), False),
    "ended for good": (daemon(process(ProcessStates.EXITED, stopped=NOW - SETTLED_SECONDS - 1)), True),
    "added, not started yet": (daemon(process(ProcessStates.STOPPED, started=0)), False),
    "added, not to be started": (daemon(process(ProcessStates.STOPPED, started=0, autostart=False)), True),
    "shutting down": (daemon(mood=SupervisorStates.SHUTDOWN), False),
    "a second signal waits": (daemon(signals=(15,)), False),
}


@pytest.mark.parametrize(("there", "expected"), RESTS.values(), ids=RESTS)
def test_it_sleeps_while_nothing_is_due(there: Any, expected: bool) -> None:
    assert rests(there, {}, now=NOW) is expected


def test_it_does_not_sleep_over_an_answer_that_waits_for_the_clock() -> None:
    quiet, waiting = SimpleNamespace(delay=False), SimpleNamespace(delay=0.1)
    assert rests(daemon(), {1: quiet, 2: object()}, now=NOW)
    assert not rests(daemon(), {1: quiet, 2: waiting}, now=NOW)


def test_the_poller_waits_longer_only_at_rest() -> None:
    asked: list[float] = []
    own = SimpleNamespace(poll=asked.append, register_readable="its own")
    at_rest = [True]
    poller = RestingPoller(own, lambda: at_rest[0])

    poller.poll(1)
    at_rest[0] = False
    poller.poll(1)

    assert asked == [REST_SECONDS, 1]
    assert poller.register_readable == "its own"


def test_signals_are_taken_all_at_once() -> None:
    listen, wake = os.pipe2(os.O_NONBLOCK)
    try:
        os.write(wake, b"\x11" * 1024)
        signals = Signals(listen)
        assert signals.readable()
        assert not signals.writable()
        signals.handle_read_event()
        with pytest.raises(BlockingIOError):
            os.read(listen, 1)
    finally:
        os.close(listen)
        os.close(wake)
