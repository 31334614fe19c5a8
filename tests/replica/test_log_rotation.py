"""Logs that are moved aside at a start, and cut while they are written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.replica import log_rotation
from fleet.replica.log_rotation import LIMIT_BYTES, cut, every_part, move_aside
from tests.conftest import eventually


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "thumbs.0.log"


def test_a_big_log_is_moved_aside_at_a_start(log: Path) -> None:
    for number in range(6):
        with log.open("wb") as file:
            file.write(b"%d" % number)
            file.truncate(LIMIT_BYTES + 1)
        move_aside(log)

    assert [path.name for path in every_part(log)] == [f"thumbs.0.log.{number}" for number in (3, 2, 1)]
    assert [path.read_bytes()[:1] for path in every_part(log)] == [b"3", b"4", b"5"]


def test_a_small_log_is_left_alone(log: Path) -> None:
    log.write_text("x")
    move_aside(log)

    assert every_part(log) == [log]


def test_a_log_that_is_cut_is_written_from_its_beginning_again(log: Path) -> None:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(6):
        os.write(descriptor, b"%d" % number * 100)
        assert cut(log, limit_bytes=60) == 40
    os.write(descriptor, b"after")
    os.close(descriptor)

    assert log.read_bytes() == b"after"
    assert [path.read_bytes() for path in every_part(log)[:-1]] == [b"3" * 60, b"4" * 60, b"5" * 60]
    assert log_rotation.aged(log, 1).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in log.parent.iterdir()) == sorted(path.name for path in every_part(log))


WRITER = """
import os, sys
parent, descriptor = os.getppid(), os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
number = 0
while os.getppid() == parent:
    os.write(descriptor, b"%08d\\n" % number)
    number += 1
"""


def test_lines_of_a_writer_that_goes_on_stay_whole(log: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(log)]) as writer:
        eventually(log.exists)
        seen: list[int] = []
        while len(seen) < 5000:
            if log.stat().st_size > 9_000:
                cut(log, limit_bytes=9_000)
                seen += map(int, log_rotation.aged(log, 1).read_text().split()[1:])
        writer.kill()
    rest = log.read_text().split()

    assert all(len(line) == 8 for line in rest)
    assert seen == sorted(set(seen)), "no line twice, and none before an earlier one"
