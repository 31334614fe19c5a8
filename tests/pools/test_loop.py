"""The event loop on its own."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from pools.loop import EventLoop


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def test_timers_are_called_in_the_order_of_their_times(loop: EventLoop) -> None:
    called: list[int] = []
    now = time.monotonic()
    for number in (3, 1, 2):
        loop.call_at(now + number / 1000, lambda number=number: called.append(number))

    while len(called) < 3:
        loop.run_once(1)

    assert called == [1, 2, 3]


def test_a_cancelled_timer_is_not_called(loop: EventLoop) -> None:
    called: list[str] = []
    first = loop.call_later(0, lambda: called.append("first"))
    second = loop.call_later(0, lambda: called.append("second"))
    first.cancel()
    first.cancel()

    while second.pending:
        loop.run_once(1)

    assert called == ["second"]


def test_cancelled_timers_do_not_pile_up(loop: EventLoop) -> None:
    kept = loop.call_later(3600, lambda: None)
    for _ in range(10_000):
        loop.call_later(3600, lambda: None).cancel()

    assert len(loop._timers) < 200
    assert kept.pending


def test_a_descriptor_is_served_until_it_is_removed(loop: EventLoop, pair: tuple[socket.socket, socket.socket]) -> None:
    got: list[bytes] = []
    loop.add_reader(pair[0].fileno(), lambda: got.append(pair[0].recv(10)))
    pair[1].send(b"one")
    loop.run_once(1)
    assert loop.remove_reader(pair[0].fileno())
    assert not loop.remove_reader(pair[0].fileno())
    pair[1].send(b"two")
    loop.run_once(0)

    assert got == [b"one"]


def test_reader_and_writer_of_one_descriptor_are_independent(
    loop: EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    called: list[str] = []
    fd = pair[0].fileno()
    loop.add_reader(fd, lambda: called.append("read"))
    loop.add_writer(fd, lambda: called.append("write"))
    loop.run_once(1)
    loop.remove_writer(fd)
    pair[1].send(b"x")
    loop.run_once(1)

    assert called == ["write", "read"]


def test_an_event_of_a_descriptor_removed_meanwhile_is_dropped(loop: EventLoop) -> None:
    called: list[int] = []
    pairs = [socket.socketpair() for _ in range(2)]

    def read(number: int) -> None:
        called.append(number)
        loop.remove_reader(pairs[1 - number][0].fileno())

    for number, (reader, writer) in enumerate(pairs):
        loop.add_reader(reader.fileno(), lambda number=number: read(number))
        writer.send(b"x")
    loop.run_once(1)

    assert len(called) == 1
    for ends in pairs:
        for end in ends:
            end.close()


def test_a_call_from_another_thread_ends_the_wait(loop: EventLoop) -> None:
    called: list[bool] = []
    thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(lambda: called.append(loop.in_thread)))
    thread.start()
    while not called:
        loop.run_once(None)
    thread.join()

    assert called == [True]


def test_no_call_from_another_thread_is_ever_missed(loop: EventLoop) -> None:
    total = 4 * 5000
    called: list[int] = []

    def send() -> None:
        for number in range(5000):
            loop.call_soon_threadsafe(lambda number=number: called.append(number))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    while len(called) < total:
        loop.run_once(None)  # without a bound: a missed wake-up hangs here
    for thread in threads:
        thread.join()

    assert len(called) == total


def test_a_signal_handler_ends_the_wait(loop: EventLoop) -> None:
    caught: list[int] = []

    def handle(signum: int, frame: FrameType | None) -> None:
        caught.append(signum)
        loop.wake()

    earlier = signal.signal(signal.SIGUSR2, handle)
    sender = threading.Thread(target=signal.pthread_kill, args=(threading.get_ident(), signal.SIGUSR2))
    try:
        sender.start()
        loop.run_once(None)  # returns because of the signal, and of nothing else
        sender.join()
    finally:
        signal.signal(signal.SIGUSR2, earlier)

    assert caught == [signal.SIGUSR2]


def test_an_exception_goes_to_on_error_and_the_loop_goes_on() -> None:
    errors: list[Exception] = []
    called: list[bool] = []
    loop = EventLoop(on_error=errors.append)
    loop.call_soon_threadsafe(lambda: 1 / 0)
    loop.call_soon_threadsafe(lambda: called.append(True))
    loop.run_once(1)
    loop.close()

    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert called == [True]


def test_without_on_error_an_exception_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    loop = EventLoop()
    loop.call_soon_threadsafe(lambda: 1 / 0)
    loop.run_once(1)
    loop.close()

    assert "ZeroDivisionError" in caplog.text


def test_an_exception_that_is_no_error_of_a_callback_passes(loop: EventLoop) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    loop.call_soon_threadsafe(interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.run_once(1)


def test_a_callback_that_calls_itself_does_not_starve_the_others(
    loop: EventLoop, pair: tuple[socket.socket, socket.socket]
) -> None:
    got: list[bytes] = []

    def again() -> None:
        loop.call_soon_threadsafe(again)

    loop.call_soon_threadsafe(again)
    loop.add_reader(pair[0].fileno(), lambda: got.append(pair[0].recv(1)))
    pair[1].send(b"x")
    for _ in range(3):
        loop.run_once(1)

    assert got == [b"x"]


def test_a_turn_within_a_turn_is_allowed(loop: EventLoop) -> None:
    called: list[str] = []

    def outer() -> None:
        while "inner" not in called:
            loop.run_once(1)
        called.append("outer")

    loop.call_soon_threadsafe(outer)
    loop.call_soon_threadsafe(lambda: called.append("inner"))
    loop.run_once(1)

    assert called == ["inner", "outer"]


def test_closing_twice_is_fine() -> None:
    loop = EventLoop()
    loop.close()
    loop.close()
    loop.wake()

    assert loop.closed
