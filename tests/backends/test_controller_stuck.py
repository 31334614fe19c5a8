"""A controller that stands still is told once, and one that is not there is not."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fleet.backends.supervisor.controller_watch import CONTROLLER, LOOK_SECONDS, ControllerWatch
from fleet.state import controller_heartbeat
from fleet.state.audit import Audit
from fleet.state.controller_heartbeat import Heartbeat
from fleet.state.paths import Places


@dataclass
class Post:
    """A fleet with a controller, a clock and its watch."""

    places: Places
    clock: list[float] = field(default_factory=lambda: [1_000_000.0])
    sent: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for folder in self.places.folders:
            folder.mkdir(parents=True, exist_ok=True)
        self.places.program_file(CONTROLLER).write_text("; Written by fleet")
        self.watch = ControllerWatch(self.places, now=lambda: self.clock[0], send=self.send)

    def send(self, places: Places) -> None:
        self.sent.append(places.fleet)

    def beat(self, *, pid: int = 0, next_in: float = 5.0) -> None:
        now = self.clock[0]
        controller_heartbeat.write(self.places.controller_heartbeat, Heartbeat(now, now + next_in, pid or os.getpid()))
        os.utime(self.places.controller_heartbeat, (now, now))

    def looks(self, seconds: float) -> list[str]:
        """Look as often as the watch does in so many seconds; what the audit holds then."""
        end = self.clock[0] + seconds
        while self.clock[0] < end:
            self.clock[0] += LOOK_SECONDS
            self.watch.look()
        return [f"{entry['event']} {entry['replica']}" for entry in Audit(self.places.audit).read()]


@pytest.fixture
def post(tmp_path: Path) -> Post:
    return Post(Places.of(tmp_path, "shop"))


def test_a_controller_that_stands_still_is_told_once_and_sent(post: Post) -> None:
    post.beat()
    assert post.looks(60) == []

    assert post.looks(600) == [f"controller.stuck {CONTROLLER}"]
    assert post.sent == ["shop"]


def test_the_next_time_is_told_again(post: Post) -> None:
    for count in (1, 2):
        post.beat()
        assert len(post.looks(300)) == count


def test_a_long_pause_that_was_announced_is_none(post: Post) -> None:
    post.beat(next_in=600.0)

    assert post.looks(500) == []


def test_a_controller_that_died_or_was_removed_is_not_stuck(post: Post) -> None:
    post.beat(pid=2**22 + 1)
    assert post.looks(300) == []

    post.beat()
    post.places.program_file(CONTROLLER).unlink()
    assert post.looks(300) == []


def test_without_a_heartbeat_or_with_a_damaged_one_nothing_is_said(post: Post) -> None:
    assert post.looks(300) == []
    post.places.controller_heartbeat.write_text("garbage")
    os.utime(post.places.controller_heartbeat, (0, 0))

    assert post.looks(300) == []
