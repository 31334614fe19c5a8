"""fleet stacks: who is asked, who must not be, and what comes back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.replica.record import read
from tests.cli.conftest import Desk
from tests.conftest import eventually

ANSWERS = """
import faulthandler, signal, sys
from pathlib import Path
from fleet.replica.record import Record
log = open(sys.argv[2], "a")
faulthandler.register(signal.SIGUSR1, file=log)
Record(Path(sys.argv[1]), digest="d", slots=1, foreign=len(sys.argv) > 3).become("ready")


def thumb():
    signal.pause()
    thumb()


thumb()
"""


@pytest.fixture
def home(desk: Desk) -> Iterator[Path]:
    folder = desk.folder / "home" / "shop"
    for name in ("run/records", "run/conf.d", "log", "state"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []

    for name, more in (("thumbs.0", []), ("clock.0", ["foreign"])):
        path = folder / "run" / "records" / f"{name}.rec"
        command = [sys.executable, "-c", ANSWERS, str(path), str(folder / "log" / f"{name}.log"), *more]
        (folder / "run" / "conf.d" / f"{name}.conf").touch()
        started.append(subprocess.Popen(command))
        eventually(lambda path=path: (found := read(path)) is not None and found.state == "ready")  # type: ignore[misc]
    yield folder
    for process in started:
        process.kill()
        process.wait()


def test_what_a_worker_writes_about_itself_is_printed(desk: Desk, home: Path) -> None:
    (home / "log" / "thumbs.0.log").write_text("what was before\n")
    said = desk.fleet("stacks", "--fleet", "shop", "thumbs.0", "--wait", "60s")

    assert said.out.splitlines()[0] == "== thumbs.0"
    assert "in thumb" in said.out
    assert "what was before" not in said.out
    [document] = desk.fleet("stacks", "--fleet", "shop", "thumbs", "-o", "json").json
    assert document["replica"] == "thumbs.0"
    assert "in thumb" in document["stacks"]


def test_a_program_that_is_no_worker_is_never_signalled(desk: Desk, home: Path) -> None:
    said = desk.fleet("stacks", "--fleet", "shop", "thumbs", "clock", code=9)

    assert "clock.0 is not one of fleet's own workers" in said.err
    assert (home / "log" / "thumbs.0.log").read_text() == "", "one was asked before all were looked at"
    everybody = desk.fleet("stacks", "--fleet", "shop", "-o", "json").json
    assert [one["replica"] for one in everybody] == ["thumbs.0"]


def test_who_does_not_run_cannot_be_asked(desk: Desk, home: Path) -> None:
    assert "thumbs.7 does not run" in desk.fleet("stacks", "--fleet", "shop", "thumbs.7", code=1).err


def test_a_worker_that_writes_nothing_is_told(desk: Desk, home: Path) -> None:
    (home / "log" / "thumbs.0.log").unlink()
    said = desk.fleet("stacks", "--fleet", "shop", "thumbs.0", "--wait", "1s", code=1)

    assert "nothing in its log" in said.out
