"""top in a pseudo terminal, as a person uses it: keys, pages, a resized window, and a terminal left as it was."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios

import pytest

from tests.conftest import PATIENCE, eventually
from tests.system.worlds import World

pytestmark = pytest.mark.system

CONTROLS = re.compile(r"\033\[[0-9;?]*[A-Za-z]")


class Person:
    """One command on a terminal of its own. ``seen``: everything that it wrote so far."""

    def __init__(self, world: World, *words: str, **environ: str) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.seen = ""
        self.resize(80, 24)
        env = {name: value for name, value in world.env().items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            world.command(*words),
            env={**env, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environ},
            cwd=world.root,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        self.seen = ""
        os.write(self.master, keys.encode())

    def screen(self) -> str:
        """The last whole picture, without colours."""
        while select.select([self.master], [], [], 0.05)[0]:
            self.seen += os.read(self.master, 1 << 16).decode(errors="replace")
        pictures = self.seen.split("\033[H")
        whole = [picture for picture in pictures if picture.endswith("\033[J") or "\033[J" in picture]
        return CONTROLS.sub("", whole[-1]).replace("\r", "") if whole else ""

    def sees(self, text: str) -> str:
        def found() -> str:
            screen = self.screen()
            assert text in screen, screen or self.seen
            return screen

        return eventually(found)

    def leave(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def fleet(world: World) -> World:
    world.write(
        "    quick: {pool: {type: threads, concurrency: 2}, replicas: 2, queues: [quick]}\n"
        "    slow: {pool: solo, replicas: 1, queues: [slow]}\n"
    )
    world.apply()
    return world


def test_a_person_looks_at_a_fleet(fleet: World) -> None:
    fleet.send("wait_for", "slow", [str(fleet.done_file), 1, str(fleet.root / "flag")])
    person = Person(fleet, "top", str(fleet.manifest))
    try:
        screen = person.sees("wait_for")
        assert "fleet world" in screen
        assert all(len(line) <= 80 for line in screen.splitlines())
        eventually(lambda: "\033[7m" in person.screen() + person.seen)  # colour is on

        person.press("/quick.1\r")
        screen = person.sees("filter: quick.1")
        assert "quick.0" not in screen
        person.press("\033")
        person.sees("quick.0")

        person.press("ooo")
        person.sees("order: memory")
        person.press("t")
        assert "1/1" not in person.sees("slow.0").splitlines()[4].split()[:2]

        person.press("/slow.0\r")
        person.sees("filter: slow.0")
        person.press("l")
        person.sees("logs of slow.0")
        person.sees("starting -> ready")
        person.press("q")
        person.sees("NAME")

        person.press("s")
        person.sees("stacks of slow.0")
        person.sees("world_tasks.py")  # what the task that runs does now
        person.press("q")
        person.sees("NAME")

        person.resize(50, 10)
        eventually(lambda: len(person.screen().splitlines()) == 10)
        person.press("h")
        person.sees("any key goes back")
        person.press("x")
        person.sees("NAME")
        person.press("q")
        assert person.process.wait(PATIENCE) == 0
        assert termios.tcgetattr(person.slave) == person.before
    finally:
        person.leave()


def test_it_leaves_the_terminal_as_it_was_when_it_is_interrupted(fleet: World) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        person = Person(fleet, "top", str(fleet.manifest), NO_COLOR="1")
        try:
            person.sees("NAME")
            assert "\033[7m" not in person.seen
            assert not re.search(r"\033\[\d+m", person.seen)
            person.process.send_signal(number)
            person.process.wait(PATIENCE)
            person.screen()
            assert "\033[?1049l" in person.seen[person.seen.rindex("\033[J") :]
            assert termios.tcgetattr(person.slave) == person.before
        finally:
            person.leave()


def test_without_a_terminal_it_is_one_picture_as_watch_wants_it(fleet: World) -> None:
    text = fleet.fleet("top", str(fleet.manifest)).stdout
    assert {"quick.0", "quick.1", "slow.0"} <= set(text.split())
    assert "\033" not in text
