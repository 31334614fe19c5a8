"""`fleet run`: one process, one fleet; what containers and services start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import PATIENCE, eventually
from tests.system.worlds import World

GROUPS = "    thumbs: {pool: solo, replicas: 1, queues: [thumbs]}\n"


class Run:
    """`fleet run` with what it said, in order, and what it told systemd."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._log = world.root / "run.log"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(world.root / "notify"))
        self._told = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *flags: str) -> psutil.Process:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self.world.command("run", str(self.world.manifest), *flags),
                env={**self.world.env(), "NOTIFY_SOCKET": str(self.world.root / "notify")},
                cwd=self.world.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return psutil.Process(self.process.pid)

    def up(self, *flags: str) -> psutil.Process:
        process = self.start(*flags)
        self.says("is up")
        return process

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def said(self) -> str:
        return self._log.read_text()

    def says(self, text: str) -> None:
        def check() -> bool:
            assert self.process is not None
            assert self.process.poll() is None or text in self.said(), self.said()
            return text in self.said()

        eventually(check)

    def told(self) -> str:
        while True:
            try:
                self._told += self._listener.recv(1 << 16).decode() + "\n"
            except BlockingIOError:
                return self._told

    def ends(self, code: int) -> None:
        assert self.process is not None
        assert self.process.wait(PATIENCE) == code, self.said()

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._listener.close()


@pytest.fixture
def run(world: World) -> Iterator[Run]:
    world.write(GROUPS)
    made = Run(world)
    try:
        yield made
    finally:
        made.close()


def flags(world: World) -> tuple[Path, str]:
    return world.root / "flag", str(world.done_file)


def test_term_drains_and_nothing_is_left(world: World, run: Run) -> None:
    flag, done = flags(world)
    run.up()
    world.send("wait_for", "thumbs", [done, 1, str(flag)])
    eventually(Path(f"{done}.started").exists)
    run.signal(signal.SIGTERM)
    run.says("draining")
    flag.touch()
    run.ends(0)

    assert Path(done).read_text() == "1\n", "the task that ran was finished"
    assert world.processes() == []
    told = run.told()
    assert told.index("READY=1") < told.index("STOPPING=1") < told.index("EXTEND_TIMEOUT_USEC=")


def test_a_second_signal_ends_the_drain_at_once(world: World, run: Run) -> None:
    flag, done = flags(world)
    run.up()
    world.send("wait_for", "thumbs", [done, 1, str(flag)])
    eventually(Path(f"{done}.started").exists)
    run.signal(signal.SIGTERM)
    run.says("draining")
    eventually(lambda: "draining" in world.status()["groups"]["thumbs"]["workers"][0]["state"])
    run.signal(signal.SIGTERM)
    run.ends(128 + signal.SIGTERM)


@pytest.mark.parametrize("more", [(), ("--init",)])
def test_a_killed_supervisord_is_replaced_and_its_workers_too(world: World, run: Run, more: tuple[str, ...]) -> None:
    process = run.up(*more)
    before = world.supervisord_pid()
    os.kill(before, signal.SIGKILL)
    run.says("is up again")

    assert world.supervisord_pid() != before
    assert world.status()["ready"]
    eventually(lambda: [one for one in process.children(recursive=True) if one.status() == psutil.STATUS_ZOMBIE] == [])
    run.signal(signal.SIGTERM)
    run.ends(0)


def test_as_the_first_process_it_reaps_orphans_and_passes_signals_on(world: World, run: Run) -> None:
    process = run.up("--init")
    supervisord = psutil.Process(world.supervisord_pid())

    assert supervisord.ppid() == process.pid, "orphans are its children"
    run.signal(signal.SIGINT)
    run.ends(0)
    assert world.processes() == []


def test_hup_applies_the_files_again_and_a_broken_file_changes_nothing(world: World, run: Run) -> None:
    run.up()
    world.write(GROUPS.replace("solo", "sola"))
    run.signal(signal.SIGHUP)
    run.says("did you mean 'solo'")
    assert world.status()["ready"]
    world.write(GROUPS.replace("replicas: 1", "replicas: 2"))
    run.signal(signal.SIGHUP)
    run.says("the files were applied again")

    assert set(world.workers()) == {"thumbs.0", "thumbs.1"}


def test_it_ends_when_no_task_is_left(world: World, run: Run, redis_url: str) -> None:
    _, done = flags(world)
    world.write(GROUPS.replace("[thumbs]", "[run-until-done]"), broker=redis_url)
    world.send("work", "run-until-done", *[[done, number, 0.01] for number in range(40)])
    run.start("--exit-when-done")
    run.ends(0)

    assert sorted(map(int, Path(done).read_text().split())) == list(range(40))
    assert world.processes() == []


BROKEN = "    broken: {command: ['false'], replicas: 1, restart: {maxCrashes: 1, backoff: {initial: 100ms}}}\n"


def test_a_first_apply_that_fails_ends_it_with_the_code_of_apply(world: World, run: Run) -> None:
    world.write(GROUPS + BROKEN)
    run.start()
    run.ends(6)

    assert world.processes() == [], "what had been started was drained"


def test_with_keep_going_the_rest_runs_and_it_tries_again(world: World, run: Run) -> None:
    world.write(GROUPS + BROKEN)
    run.start("--keep-going")
    run.says("apply failed")
    eventually(lambda: world.status()["groups"]["thumbs"]["replicas"]["ready"] == 1)
    assert "READY=1" in run.told()
    world.write(GROUPS + BROKEN.replace("['false']", "[sleep, '1000']"))
    run.says("is up again")

    assert world.status()["ready"]


def test_there_is_one_of_it_and_down_ends_it(world: World, run: Run) -> None:
    run.up()
    assert "is kept up already by" in world.fleet("run", str(world.manifest), code=8).stderr
    world.fleet("down", str(world.manifest), "--yes")
    run.ends(0)

    assert "was taken down" in run.said()
