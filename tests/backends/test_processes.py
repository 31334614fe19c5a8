"""Which processes carry a fleet's mark, over many looks: what was remembered of a process never hides a mark."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.backends.supervisor.processes import Table, Unmarked
from fleet.core.observed import Stray
from tests.conftest import eventually

WAITS = 'read line && exec env "$@" sleep 1000'


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    made = tmp_path / "shop" / "run" / "specs"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def process(specs: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Without a mark, until it reads a line and becomes another program with one."""
    words = ["sh", "-c", WAITS, "sh", f"FLEET_SPEC={specs}/thumbs.0.json"]
    made = subprocess.Popen(words, stdin=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"})
    yield made
    made.kill()
    made.communicate()


def of(pid: int, found: tuple[Stray, ...]) -> list[Stray]:
    return [stray for stray in found if stray.pid == pid]


def test_a_process_that_was_looked_at_is_looked_at_again_when_it_becomes_another_program(
    specs: Path, process: subprocess.Popen[bytes]
) -> None:
    unmarked = Unmarked()
    for _ in range(2):
        assert of(process.pid, Table.read().strays(specs, supervised={}, unmarked=unmarked)) == []
        assert process.pid in unmarked
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()

    def marked() -> list[Stray]:
        return of(process.pid, Table.read().strays(specs, supervised={}, unmarked=unmarked))

    assert eventually(marked) == [Stray(process.pid, "thumbs.0", "leftover")]
    assert process.pid not in unmarked
    assert marked(), "a mark is read each time"


def test_what_was_remembered_for_other_folders_does_not_count(specs: Path, process: subprocess.Popen[bytes]) -> None:
    unmarked = Unmarked()
    table = Table.read()
    table.strays(specs, supervised={}, unmarked=unmarked)
    started, program, folders = unmarked[process.pid]
    unmarked[process.pid] = (started, program, [*folders, b"/elsewhere/"])
    table.strays(specs, supervised={}, unmarked=unmarked)
    assert unmarked[process.pid] == (started, program, folders)


def test_processes_that_ended_are_forgotten(specs: Path, process: subprocess.Popen[bytes]) -> None:
    unmarked = Unmarked()
    Table.read().strays(specs, supervised={}, unmarked=unmarked)
    process.kill()
    process.wait()
    Table.read().strays(specs, supervised={}, unmarked=unmarked)
    assert process.pid not in unmarked
