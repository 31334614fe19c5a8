"""A worker notices that one of its helper threads has ended."""

from __future__ import annotations

from fleet.worker.loop.thread_watch import ThreadWatch


def told(*looks: list[str]) -> list[str]:
    said: list[str] = []
    left = iter(looks)
    watch = ThreadWatch(lambda: next(left), replace=said.append)
    for second in range(len(looks)):
        watch(float(second))
    return said


def test_a_thread_that_stays_away_is_told_once() -> None:
    assert told([], ["watchdog"], ["watchdog"], ["watchdog"]) == ["a helper thread has ended: watchdog"]


def test_one_that_is_being_started_is_not_lost() -> None:
    assert told(["watchdog"], [], [], ["watchdog"], []) == []


def test_each_is_looked_at_by_itself() -> None:
    assert told(["watchdog"], ["housekeeping"], []) == []
    assert told(["watchdog"], ["housekeeping", "watchdog"]) == ["a helper thread has ended: watchdog"]
