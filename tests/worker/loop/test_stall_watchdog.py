"""The watch over progress: what it does about messages that wait while slots are free, and when it does nothing."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.broker.channels.base import ChannelLost
from fleet.worker.loop.stall_watchdog import REST_SECONDS, StallWatch, StallWatchdog, Step

T = 30.0


class Story:
    """A worker seen once a second."""

    def __init__(self) -> None:
        self.progress = StallWatch(T)
        self.now = 1000.0
        self.got_at = 1000.0
        self.steps: list[tuple[float, Step]] = []

    def pass_seconds(self, seconds: float, *, backlog: int | None = 0, wants: bool = True) -> list[Step]:
        """The steps of this time, asking left out."""
        found = []
        end = self.now + seconds
        while self.now < end:
            self.now += 1
            step = self.progress.look(self.now, wants=wants, got_at=self.got_at)
            if step is Step.ASK:
                step = self.progress.waits(self.now, backlog)
            if step is not Step.NOTHING:
                found.append(step)
        return found


def test_an_empty_queue_is_no_reason_for_anything() -> None:
    assert Story().pass_seconds(10 * T, backlog=0) == []
    assert Story().pass_seconds(10 * T, backlog=None) == []


def test_a_backlog_that_nobody_fetches_means_a_new_connection() -> None:
    assert Story().pass_seconds(2 * T, backlog=3) == [Step.REBUILD]


def test_it_says_when_its_next_look_matters() -> None:
    """A worker at rest looks at nothing else in between."""
    often, rarely = Story(), Story()
    assert rarely.progress.due_at is None
    found = []
    for _ in range(4):
        step = rarely.progress.look(rarely.now, wants=True, got_at=rarely.got_at)
        if step is Step.ASK:
            found.append((rarely.now, rarely.progress.waits(rarely.now, 3)))
        rarely.now = max(rarely.now + 1, rarely.progress.due_at or 0.0)
    assert (Step.REBUILD in often.pass_seconds(2 * T, backlog=3), found[-1][1]) == (True, Step.REBUILD)
    assert found[-1][0] <= 1000.0 + 2 * T
    assert rarely.progress.look(rarely.now, wants=False, got_at=rarely.got_at) is Step.NOTHING


def test_nothing_happens_before_the_patience_is_over() -> None:
    assert Story().pass_seconds(T, backlog=3) == []


def test_one_sight_of_a_backlog_is_an_accident() -> None:
    story = Story()
    assert story.pass_seconds(T + 1, backlog=3) == []
    assert story.pass_seconds(T, backlog=0) == []
    assert story.pass_seconds(T / 2, backlog=3) == []


def test_a_worker_that_wants_nothing_is_left_alone() -> None:
    story = Story()
    assert story.pass_seconds(10 * T, backlog=3, wants=False) == []
    assert story.pass_seconds(T, backlog=3) == []


def test_a_fetch_that_brought_something_begins_the_watch_anew() -> None:
    story = Story()
    for _ in range(20):
        assert story.pass_seconds(T, backlog=3) == []
        story.got_at = story.now


def test_when_a_new_connection_does_not_help_a_plain_fetch_decides() -> None:
    story = Story()
    assert story.pass_seconds(2 * T, backlog=3) == [Step.REBUILD]
    assert story.pass_seconds(2 * T, backlog=3) == [Step.PROBE]
    assert story.progress.probed(story.now, found=True) is Step.REPLACE


def test_messages_that_the_broker_withholds_are_left_to_it_for_a_long_while() -> None:
    story = Story()
    story.pass_seconds(4 * T, backlog=3)
    assert story.progress.probed(story.now, found=False) is Step.REST
    assert story.pass_seconds(REST_SECONDS, backlog=3) == []
    assert story.pass_seconds(2 * T, backlog=3) == [Step.REBUILD]


def test_a_rest_is_over_when_something_comes() -> None:
    story = Story()
    story.pass_seconds(4 * T, backlog=3)
    story.progress.probed(story.now, found=False)
    story.got_at = story.now
    assert story.pass_seconds(2 * T, backlog=3) == [Step.REBUILD]


class Worker:
    """As much of a worker as the watchdog looks at."""

    wants = True
    got_at = 5.0

    def __init__(self, *, brings: bool) -> None:
        self.brings = brings
        self.told: list[str] = []
        self.given_back: list[Any] = []
        self.lost = False
        self.running: dict[Any, None] = {}

    def backlog(self) -> int:
        if self.lost:
            raise ChannelLost("gone")
        return 7

    def fetch(self, count: int) -> list[str]:
        return ["message"] * count if self.brings else []

    def give_back(self, deliveries: list[Any], *, unmarked: bool = False) -> None:
        self.given_back += deliveries

    def rebuild(self, why: str) -> None:
        self.told.append(f"rebuild: {why}")

    def replace(self, why: str) -> None:
        self.told.append(f"replace: {why}")


def watched(worker: Worker, *, seconds: int) -> list[str]:
    watchdog = StallWatchdog(
        worker,
        worker,  # type: ignore[arg-type]
        running=worker.running,
        rebuild=worker.rebuild,
        replace=worker.replace,
        patience_seconds=4.0,
    )
    for now in range(10, 10 + seconds):
        watchdog(float(now))
    return worker.told


def test_the_process_is_replaced_when_only_a_plain_fetch_brings_messages() -> None:
    worker = Worker(brings=True)
    rebuilt, replaced = watched(worker, seconds=15)
    assert rebuilt == "rebuild: 7 messages wait, slots are free, and nothing came for 11 s"
    assert replaced.startswith("replace: 7 messages wait, slots are free, and nothing came by itself")
    assert worker.given_back == ["message"]


def test_the_process_stays_when_the_broker_withholds_messages(caplog: pytest.LogCaptureFixture) -> None:
    assert len(watched(Worker(brings=False), seconds=60)) == 1
    assert "the broker keeps them for somebody else" in caplog.text


def test_a_broker_that_does_not_answer_the_question_is_connected_to_anew() -> None:
    worker = Worker(brings=True)
    worker.lost = True
    assert watched(worker, seconds=6)[0] == "rebuild: no answer about the queues: gone"


def test_a_fetch_decides_at_once_where_a_new_connection_would_give_running_tasks_away() -> None:
    progress = StallWatch(T)
    assert progress.waits(100.0, 3, may_rebuild=False) is Step.NOTHING
    assert progress.waits(101.0, 3, may_rebuild=False) is Step.PROBE
