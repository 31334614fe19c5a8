"""Logs are kept within bounds while they are written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.backends.supervisor import log_keeper
from fleet.backends.supervisor.folder_watch import FolderWatch
from fleet.backends.supervisor.log_keeper import (
    CALM_LOOK_SECONDS,
    CALM_SECONDS,
    LEAST_SECONDS,
    LOOK_SECONDS,
    LogKeeper,
    pause,
)
from fleet.replica.log_rotation import dropped_bytes, dropped_file, every_part
from fleet.state.paths import Places
from tests.conftest import PATIENCE, eventually

KIB = 1 << 10
LIMIT = 256 * KIB
FLOOD = 9 << 20


class Writer:
    """A replica that writes, with a clock that goes as fast as the test says."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "thumbs.0.log"
        self.time = 1_000_000.0
        self._descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.keeper = LogKeeper(folder, limit_bytes=LIMIT, now=lambda: self.time)
        self.keeper.look()

    def write(self, count_bytes: int, *, seconds: float = 1.0) -> float:
        """Write lines, and let the keeper look after these seconds; when it looks again."""
        os.write(self._descriptor, (b"x" * 127 + b"\n") * (count_bytes // 128))
        self.time += seconds
        return self.keeper.look()

    def kept_bytes(self) -> int:
        return sum(part.stat().st_size for part in every_part(self.log))


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def test_a_log_over_its_limit_is_moved_aside_and_no_line_is_lost(writer: Writer) -> None:
    for _ in range(4):
        writer.write(200 * KIB)

    assert writer.kept_bytes() == 800 * KIB
    assert writer.log.stat().st_size <= LIMIT


def test_however_much_is_written_a_bounded_part_of_it_is_kept(writer: Writer) -> None:
    for _ in range(40):
        writer.write(200 * KIB)
        assert writer.kept_bytes() <= 7 * LIMIT

    assert len(every_part(writer.log)) == 4


def test_a_flood_is_dropped_with_a_word_at_both_ends(writer: Writer) -> None:
    writer.write(1 * KIB)
    for _ in range(5):
        writer.write(FLOOD)
        assert writer.kept_bytes() <= 2 * LIMIT + KIB
    writer.write(1 * KIB, seconds=CALM_SECONDS)

    text = writer.log.read_text()
    assert "fleet.logs thumbs.0: flood: over after 4.0 s; 45 MiB were dropped" in text
    first = every_part(writer.log)[-2].read_text()
    assert first.endswith("x\n"), "the beginning of the flood is kept"


def test_what_was_dropped_is_summed_up_over_floods_and_keepers(writer: Writer, tmp_path: Path) -> None:
    assert dropped_bytes(tmp_path) == {}
    sums = []
    for _ in range(2):
        for _ in range(4):
            writer.write(FLOOD)
        for _ in range(6):
            writer.write(KIB, seconds=CALM_SECONDS)
        sums.append(dropped_bytes(tmp_path)["thumbs.0"])
        writer.keeper = LogKeeper(tmp_path, limit_bytes=LIMIT, now=lambda: writer.time)
        writer.keeper.look()
    assert 2 * FLOOD < sums[0] < 4 * FLOOD
    assert sums[1] > sums[0] + 2 * FLOOD


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"a": "x"}', b"\xff"])
def test_sums_that_cannot_be_read_begin_again(tmp_path: Path, content: bytes) -> None:
    dropped_file(tmp_path).write_bytes(content)
    assert dropped_bytes(tmp_path) == {}


def test_a_flood_that_stops_for_a_moment_is_one_flood(writer: Writer) -> None:
    for _ in range(6):
        writer.write(FLOOD)
        writer.write(0, seconds=CALM_SECONDS / 2)

    assert len(every_part(writer.log)) == 2, "what was there before the flood is not pushed out"
    assert "over after" not in writer.log.read_text()
    assert "flood: it is written faster" in writer.log.read_text()


def test_the_word_that_a_flood_began_stands_in_the_log_while_it_lasts(writer: Writer) -> None:
    writer.write(FLOOD)

    assert "fleet.logs thumbs.0: flood: it is written faster than it can be kept" in writer.log.read_text()


def test_what_grows_fast_is_looked_at_before_it_is_full(writer: Writer) -> None:
    assert writer.write(1 * KIB) == LOOK_SECONDS
    assert writer.write(128 * KIB, seconds=0.1) == pytest.approx(0.1, rel=0.1)
    assert writer.write(FLOOD) >= LEAST_SECONDS


def test_logs_come_and_go(writer: Writer, tmp_path: Path) -> None:
    other = tmp_path / "reports.1.log"
    other.write_bytes(b"x" * (LIMIT + 1))
    assert writer.keeper.look() == LOOK_SECONDS
    writer.time += 1
    writer.keeper.look()
    assert other.stat().st_size == 0
    other.unlink()
    writer.log.unlink()
    assert writer.keeper.look() == LOOK_SECONDS


def test_it_ends_with_supervisord(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'fleet.backends.supervisor.log_keeper', sys.argv[1]])\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(Places(tmp_path.parent).supervisord_conf)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    log = tmp_path / "thumbs.0.log"
    log.write_bytes(b"x" * (11 << 20))
    eventually(lambda: log.stat().st_size == 0)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.communicate()
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def test_it_does_not_stay_where_supervisord_died_before_it_could_be_told(tmp_path: Path) -> None:
    """Its parent is then another process: init, or whoever adopts what is left."""
    command = [sys.executable, "-m", "fleet.backends.supervisor.log_keeper", str(tmp_path)]
    subprocess.run(command, check=True, timeout=PATIENCE)


# --- when nothing is written


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[FolderWatch]:
    watch = FolderWatch(tmp_path)
    yield watch
    watch.close()


def test_a_folder_tells_of_each_way_in_which_a_log_grows(tmp_path: Path, watch: FolderWatch) -> None:
    log = tmp_path / "thumbs.0.log"
    assert not watch.wait(0.0)
    log.write_text("a file that is new\n")
    assert watch.wait(PATIENCE)
    with log.open("a") as file:
        watch.forget()
        file.write("a line\n")
        file.flush()
        assert watch.wait(PATIENCE)
    log.rename(tmp_path.parent / "elsewhere")
    watch.forget()
    (tmp_path.parent / "elsewhere").rename(log)
    assert watch.wait(PATIENCE)
    assert not watch.wait(0.0)


def test_what_cannot_be_watched_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        FolderWatch(tmp_path / "nowhere")


class Clock:
    """Sleeps and waits at once, and says how long; ``writes``: what is written during the waits."""

    def __init__(self, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writer = writer
        self.slept: list[float] = []
        self.waited: list[float] = []
        self.writes: list[int] = []
        monkeypatch.setattr(log_keeper.time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.writer.time += seconds

    def forget(self) -> None:
        return

    def wait(self, seconds: float) -> bool:
        self.waited.append(seconds)
        self.writer.time += seconds
        if not self.writes:
            return False
        os.write(self.writer._descriptor, b"x" * self.writes.pop())
        return True


def test_while_nothing_is_written_it_waits_for_that_and_then_is_as_quick_as_ever(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(writer, monkeypatch)
    pause(writer.keeper, clock)  # type: ignore[arg-type]
    assert (clock.waited, clock.slept) == ([CALM_LOOK_SECONDS], [])
    clock.writes = [3 * LIMIT]
    pause(writer.keeper, clock)  # type: ignore[arg-type]
    assert clock.slept == [LOOK_SECONDS]
    pause(writer.keeper, clock)  # type: ignore[arg-type]
    assert len(clock.waited) == 2, "it grows: its speed is that since the first write"
    assert writer.log.stat().st_size <= LIMIT


def test_a_flood_is_followed_until_it_is_over(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(writer, monkeypatch)
    writer.write(FLOOD)
    writer.write(0, seconds=0.1)
    assert not writer.keeper.is_calm
    pause(writer.keeper, clock)  # type: ignore[arg-type]
    assert clock.waited == []


def test_without_a_watch_it_looks_by_the_clock(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(writer, monkeypatch)
    pause(writer.keeper, None)
    assert clock.slept == [LOOK_SECONDS]
