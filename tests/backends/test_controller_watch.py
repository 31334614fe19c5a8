"""Who watches the controller, and who wakes supervisord: real processes, a clock in hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fleet.backends.supervisor import daemon
from fleet.backends.supervisor.controller_watch import CONTROLLER, LOOK_SECONDS, PATIENCE_SECONDS, ControllerWatch
from fleet.replica.process_identity import is_stopped
from fleet.state import controller_heartbeat
from fleet.state.audit import Audit
from fleet.state.controller_heartbeat import LATE_SECONDS, Heartbeat
from fleet.state.paths import Places
from tests.conftest import eventually

SLEEP = "import time; time.sleep(1000)"


@dataclass
class Scene:
    """A process that stands for a controller, its heartbeat, and who watches it."""

    places: Places
    clock: list[float]
    watch: ControllerWatch
    process: psutil.Popen

    def beat(self, *, next_in: float = 5.0) -> None:
        now = self.clock[0]
        controller_heartbeat.write(self.places.controller_heartbeat, Heartbeat(now, now + next_in, self.process.pid))

    def looks(self, seconds: float) -> None:
        end = self.clock[0] + seconds
        while self.clock[0] < end:
            self.clock[0] += LOOK_SECONDS
            self.watch.look()

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def told(self) -> list[tuple[str, str]]:
        return [(entry["replica"], entry["reason"]) for entry in Audit(self.places.audit).read()]


Start = Callable[..., psutil.Popen]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[psutil.Popen] = []

    def run(*command: str, **env: str) -> psutil.Popen:
        started.append(psutil.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL))
        return started[-1]

    yield run
    for process in started:
        with suppress(psutil.NoSuchProcess):
            process.kill()
        process.wait()


@pytest.fixture
def scene(tmp_path: Path, start: Start) -> Scene:
    places, clock = Places(tmp_path / "shop"), [time.time() + 1000.0]
    places.specs.mkdir(parents=True)
    spec = str(places.spec_file("fleet-controller.0"))
    process = start("sh", "-c", "FLEET_PID=$$ exec sleep 1000", FLEET_SPEC=spec)
    eventually(lambda: process.name() == "sleep")
    places.program_file(CONTROLLER).parent.mkdir(parents=True)
    places.program_file(CONTROLLER).write_text("; Written by fleet")
    return Scene(places, clock, ControllerWatch(places, now=lambda: clock[0], send=lambda _: None), process)


def test_a_controller_that_looks_no_more_is_killed_and_that_is_told(scene: Scene) -> None:
    scene.beat()
    scene.looks(LATE_SECONDS + 5)
    assert scene.lives
    for _ in range(int(PATIENCE_SECONDS / LOOK_SECONDS) + 2):
        if len(scene.told()) < 2:  # the clock in hand runs on before a killed process has ended, which is killed again
            scene.looks(LOOK_SECONDS)

    assert scene.process.wait() == -signal.SIGKILL
    told = [(replica, reason.partition(":")[0]) for replica, reason in scene.told()]
    assert told == 2 * [(CONTROLLER, "no heartbeat")], "that it is stuck, and that it is ended"


def test_one_that_looks_or_pauses_as_it_said_is_left_alone(scene: Scene) -> None:
    scene.beat(next_in=600.0)
    scene.looks(600.0)
    for _ in range(20):
        scene.beat()
        scene.looks(LATE_SECONDS)

    assert scene.lives
    assert scene.told() == []


def test_one_that_is_late_for_once_is_left_alone(scene: Scene) -> None:
    """A machine that slept for an hour has made it late."""
    scene.beat()
    scene.clock[0] += 3600.0
    scene.looks(PATIENCE_SECONDS)
    scene.beat()
    scene.looks(LATE_SECONDS)

    assert scene.lives


def test_a_heartbeat_that_names_somebody_else_kills_nobody(scene: Scene, start: Start) -> None:
    worker = str(scene.places.spec_file("thumbs.0"))
    for env in ({}, {"FLEET_SPEC": worker}):
        other = start(sys.executable, "-c", SLEEP, **env)
        controller_heartbeat.write(scene.places.controller_heartbeat, Heartbeat(1.0, 2.0, other.pid))
        scene.looks(600.0)
        assert other.poll() is None
    for text in ("", "{", '{"pid": -1}', '{"pid": 1}', '{"pid": "x"}'):
        scene.places.controller_heartbeat.write_text(text)
        scene.looks(600.0)

    assert scene.lives


def test_a_supervisord_that_somebody_stopped_goes_on_and_nobody_else_does(tmp_path: Path, start: Start) -> None:
    places = Places(tmp_path / "shop")
    places.run.mkdir(parents=True)
    own = start(sys.executable, "-c", SLEEP, "supervisord", str(places.supervisord_conf))
    other = start(sys.executable, "-c", SLEEP)
    pid_file = places.run / "supervisord.pid"
    for process in (own, other):
        pid_file.write_text(str(process.pid))
        assert not daemon.wake(places)
        process.suspend()
        eventually(lambda process=process: is_stopped(process.pid))
        assert daemon.wake(places) is (process is own)

    assert not is_stopped(own.pid)
    assert is_stopped(other.pid)
    pid_file.write_text("no number")
    assert not daemon.wake(places)
