"""A watch for strays finds what a whole look at all processes finds, and reads only what can have changed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.backends.supervisor import processes, stray_watch
from fleet.backends.supervisor.processes import Proc, Table
from fleet.backends.supervisor.stray_watch import EVERYTHING_SECONDS, StrayWatch
from fleet.core.observed import Stray
from tests.conftest import eventually

OWN = 1000


class Kernel:
    """Processes in memory, and who reads them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, specs: Path) -> None:
        self.procs: dict[int, Proc] = {}
        self.marked: set[int] = set()
        self.read: list[int] = []
        self.now = 0.0
        self.wholes = 0
        self.watch = StrayWatch(specs, monotonic=lambda: self.now)
        monkeypatch.setattr(stray_watch, "process_ids", lambda: set(self.procs))
        monkeypatch.setattr(stray_watch, "read_process", self._read)
        monkeypatch.setattr(Table, "read", self._whole)
        monkeypatch.setattr(processes, "_mark_in", self._mark)

    def start(self, pid: int, *, parent: int = 1, marked: bool = False) -> None:
        self.procs[pid] = Proc(pid, parent, started=pid, memory_bytes=0, owner=OWN, program=(b"1",))
        if marked:
            self.marked.add(pid)

    def _read(self, pid: int, own: object) -> Proc | None:
        self.read.append(pid)
        return self.procs.get(pid)

    def _whole(self, uids: object) -> Table:
        self.wholes += 1
        return Table(dict(self.procs))

    def _mark(self, pid: int, folders: object) -> processes.Mark | None:
        return processes.Mark("thumbs.0", main=True) if pid in self.marked else None

    def look(self, **supervised: int) -> list[int]:
        """The strays, where all that is read of single processes is in ``read``."""
        self.read.clear()
        return [stray.pid for stray in self.watch.look(supervised)]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Kernel:
    made = Kernel(monkeypatch, tmp_path)
    for pid in (10, 11, 12):
        made.start(pid)
    made.start(20, marked=True)
    made.start(21, parent=20)
    return made


def test_where_nothing_changed_nothing_is_read(kernel: Kernel) -> None:
    assert kernel.look(a=20) == []
    assert kernel.wholes == 1
    kernel.look(a=20)  # once more: what was there at the first look may have begun its program after that
    for _ in range(3):
        assert kernel.look(a=20) == []
        assert kernel.read == []
    assert kernel.wholes == 1


def test_a_new_process_is_read_twice_and_no_other(kernel: Kernel) -> None:
    for _ in range(2):
        kernel.look(a=20)
    kernel.start(30)
    reads = []
    for _ in range(3):
        kernel.look(a=20)
        reads.append(list(kernel.read))
    assert reads == [[30], [30], []]


def test_one_that_begins_its_program_between_two_looks_is_found(kernel: Kernel) -> None:
    for _ in range(2):
        kernel.look(a=20)
    kernel.start(30)
    assert kernel.look(a=20) == []
    kernel.procs[30] = Proc(30, 1, started=30, memory_bytes=0, owner=OWN, program=(b"2",))
    kernel.marked.add(30)
    assert kernel.look(a=20) == [30]
    assert kernel.look(a=20) == [30]
    del kernel.procs[30]
    assert kernel.look(a=20) == []


def test_one_that_lost_its_parent_is_read_again(kernel: Kernel) -> None:
    kernel.start(40)
    kernel.start(41, parent=40)
    for _ in range(2):
        kernel.look(a=20)
    del kernel.procs[40]
    kernel.start(41, parent=1)
    kernel.look(a=20)
    assert kernel.read == [41]


def test_where_another_process_is_supervised_everything_is_read(kernel: Kernel) -> None:
    for _ in range(2):
        kernel.look(a=20)
    kernel.start(50, marked=True)
    assert kernel.look(a=50) == [20]
    assert kernel.wholes == 2


def test_everything_is_read_now_and_then(kernel: Kernel) -> None:
    for _ in range(2):
        kernel.look(a=20)
    kernel.procs[12] = Proc(12, 1, started=99, memory_bytes=0, owner=OWN, program=(b"3",))  # the pid is used again
    kernel.marked.add(12)
    assert kernel.look(a=20) == []
    kernel.now += EVERYTHING_SECONDS
    assert kernel.look(a=20) == [12]


@contextmanager
def stray(specs: Path) -> Iterator[int]:
    """A process with the mark of a replica."""
    environ = {"FLEET_SPEC": f"{specs}/thumbs.0.json"}
    with subprocess.Popen(["/bin/sh", "-c", "export FLEET_PID=$$; exec sleep 1000"], env=environ) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_real_stray_is_found_and_forgotten(tmp_path: Path) -> None:
    specs = tmp_path / "shop/run/specs"
    specs.mkdir(parents=True)
    watch = StrayWatch(specs)
    assert watch.look({}) == ()
    with stray(specs) as pid:
        eventually(lambda: watch.look({}) == (Stray(pid, "thumbs.0", "orphan"),))
    assert watch.look({}) == ()
