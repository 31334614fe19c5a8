"""The rule behind ``celery control autoscale``."""

from __future__ import annotations

from fleet.worker.loop.autoscaler import IDLE_SECONDS, Autoscaler, Bounds


def test_it_grows_with_what_waits_and_doubles_at_most() -> None:
    scaler = Autoscaler(Bounds(1, 10))
    assert scaler.wanted(0, slots=2, busy=2, waiting=1) == 3
    assert scaler.wanted(1, slots=3, busy=3, waiting=100) == 6
    assert scaler.wanted(2, slots=6, busy=6, waiting=100) == 10
    assert scaler.wanted(3, slots=10, busy=10, waiting=100) == 10


def test_it_does_not_grow_while_a_slot_is_free_or_nothing_waits() -> None:
    scaler = Autoscaler(Bounds(1, 10))
    assert scaler.wanted(0, slots=3, busy=2, waiting=5) == 3
    assert scaler.wanted(1, slots=3, busy=3, waiting=0) == 3


def test_it_gives_up_what_nobody_needed_for_a_while() -> None:
    scaler = Autoscaler(Bounds(1, 10))
    assert scaler.wanted(0, slots=8, busy=3, waiting=0) == 8
    assert scaler.wanted(IDLE_SECONDS / 2, slots=8, busy=5, waiting=0) == 8
    assert scaler.wanted(IDLE_SECONDS, slots=8, busy=0, waiting=0) == 5
    assert scaler.wanted(IDLE_SECONDS * 2, slots=5, busy=0, waiting=0) == 1


def test_growing_starts_the_wait_anew() -> None:
    scaler = Autoscaler(Bounds(1, 4))
    scaler.wanted(0, slots=1, busy=1, waiting=9)
    scaler.wanted(IDLE_SECONDS - 1, slots=2, busy=2, waiting=9)
    assert scaler.wanted(IDLE_SECONDS + 1, slots=4, busy=0, waiting=0) == 4


def test_bounds_win() -> None:
    scaler = Autoscaler(Bounds(2, 4))
    assert scaler.wanted(0, slots=1, busy=0, waiting=0) == 2
    assert scaler.wanted(1, slots=9, busy=9, waiting=9) == 4
    assert scaler.wanted(IDLE_SECONDS + 1, slots=4, busy=0, waiting=0) == 2
