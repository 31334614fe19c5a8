"""Pauses between requeues grow, and are forgotten."""

from __future__ import annotations

from fleet.worker.loop.requeues import FORGET_SECONDS, REMEMBERED, Requeues


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_first_time_costs_nothing_and_each_next_one_more() -> None:
    requeues = Requeues(Clock())
    pauses = [requeues.pause_seconds("a") for _ in range(12)]
    assert pauses[:4] == [0.0, 0.1, 0.2, 0.4]
    assert pauses[-1] == 30.0
    assert pauses == sorted(pauses)
    assert requeues.pause_seconds("b") == 0.0


def test_a_task_that_was_quiet_for_long_begins_anew() -> None:
    clock = Clock()
    requeues = Requeues(clock)
    for _ in range(5):
        requeues.pause_seconds("a")
    clock.now += FORGET_SECONDS + 1
    assert requeues.pause_seconds("a") == 0.0


def test_only_so_many_are_remembered() -> None:
    requeues = Requeues(Clock())
    for number in range(REMEMBERED + 1):
        requeues.pause_seconds(str(number))
    assert requeues.pause_seconds("0") == 0.0
    assert requeues.pause_seconds(str(REMEMBERED)) > 0.0
