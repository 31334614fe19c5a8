"""The counters of a replica by task: how its runs ended, how long they took and how long they had waited.

A small mapped file beside the record, with one writer and any number of readers. Counting touches memory of the writer
alone; once a second it publishes. Every number in the file is copied in one piece and only grows, so a reader needs
neither a lock nor a version. The file outlives its process, and the next process of that name goes on with it; so a sum
over the replicas of a group never decreases either, whichever of them was restarted or removed.

Layout, in the byte order of this machine: a header of 64 bytes (magic, rows in use, processes that opened it,
connections that were made again), then a row per task: 128 bytes of name, ends by kind, and for run time and wait time
a count per bucket and the sum in seconds. The first row is for all tasks beyond those that there is room for.
"""

from __future__ import annotations

import mmap
import os
import struct
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import add
from pathlib import Path
from typing import Literal

from fleet.core.text.format import one_line
from fleet.file_access import open_own, read_file

MAGIC = b"FLTTSK1\0"
BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
"""Upper bounds in seconds; a last bucket holds what is longer."""
MOST_TASKS = 50
"""So many names of tasks have a row of their own."""
OTHER = "other"
"""Stands for all other tasks."""

TaskEnd = Literal["done", "failed", "retried", "revoked", "dead", "lost"]
ENDS: tuple[TaskEnd, ...] = ("done", "failed", "retried", "revoked", "dead", "lost")

_HEADER_BYTES, _NAME_BYTES = 64, 128
_COUNTS = len(BUCKETS) + 1
_END_CELL = {end: number for number, end in enumerate(ENDS)}
_RUN = len(ENDS)
_RUN_SUM = _RUN + _COUNTS
_WAIT = _RUN_SUM + 1
_WAIT_SUM = _WAIT + _COUNTS
_ROW_BYTES = _NAME_BYTES + 8 * (_WAIT_SUM + 1)
_SIZE = _HEADER_BYTES + (1 + MOST_TASKS) * _ROW_BYTES
_CELLS = struct.Struct(f"{len(ENDS)}Q{_COUNTS}Qd{_COUNTS}Qd")  # native: eight bytes are copied at once
_HEADER = struct.Struct("8sQQQ")
_LONGEST_SECONDS = 1e9
"""More is no time that a task took or waited: the clock of whoever sent it was wrong."""


def counters_path(record: Path) -> Path:
    """Where the counters of the replica with this record are."""
    return record.with_suffix(".tasks")


@dataclass(frozen=True, slots=True)
class Histogram:
    """counts: how many times were in each bucket, the last one without an upper bound.  sum_seconds: of all."""

    counts: tuple[int, ...] = (0,) * _COUNTS
    sum_seconds: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """What is known of one task. cells: a row of the file as it is, because a scrape adds up thousands of them."""

    cells: tuple[float, ...] = (0,) * (_WAIT_SUM + 1)

    @classmethod
    def of(cls, ends: Sequence[int], run: Histogram = Histogram(), wait: Histogram = Histogram()) -> TaskCounts:
        """From its parts."""
        return cls((*ends, *run.counts, run.sum_seconds, *wait.counts, wait.sum_seconds))

    @property
    def ends(self) -> tuple[int, ...]:
        """How many runs ended in each of ENDS."""
        return tuple(map(int, self.cells[:_RUN]))

    @property
    def run(self) -> Histogram:
        """How long runs took."""
        return Histogram(tuple(map(int, self.cells[_RUN:_RUN_SUM])), self.cells[_RUN_SUM])

    @property
    def wait(self) -> Histogram:
        """How long tasks had waited whose messages say since when."""
        return Histogram(tuple(map(int, self.cells[_WAIT:_WAIT_SUM])), self.cells[_WAIT_SUM])

    def __add__(self, other: TaskCounts) -> TaskCounts:
        return TaskCounts(tuple(map(add, self.cells, other.cells)))


@dataclass(frozen=True, slots=True)
class CountersView:
    """One reading. starts: processes that opened the file.  reconnects: connections to the broker made again."""

    starts: int = 0
    reconnects: int = 0
    tasks: Mapping[str, TaskCounts] = field(default_factory=dict)


class TaskCounters:
    """The writer's side. Not thread-safe. About half a microsecond per task: see ``bench/metrics.py``."""

    def __init__(self, path: Path) -> None:
        """Go on with the file at ``path``, or make it. Raises OSError."""
        self._map = _mapped(path)
        _, _, starts, self._reconnects = _HEADER.unpack_from(self._map)
        self._starts = starts + 1
        names = _names(self._map)
        self._cells: list[list[int | float]] = [
            list(_CELLS.unpack_from(self._map, _offset(number) + _NAME_BYTES)) for number in range(len(names))
        ]
        self._rows = {name: self._cells[number] for number, name in enumerate(names) if number}
        self.publish()

    def waited(self, name: str, seconds: float) -> None:
        """A task starts that could have started so many seconds ago."""
        if 0.0 <= seconds < _LONGEST_SECONDS:
            try:
                row = self._rows[name]
            except KeyError:
                row = self._row_of(name)
            row[_WAIT + bisect_left(BUCKETS, seconds)] += 1
            row[_WAIT_SUM] += seconds

    def ended(self, name: str, end: TaskEnd, run_seconds: float | None) -> None:
        """A run is over. run_seconds: None where it did not run, or nobody knows how long."""
        try:
            row = self._rows[name]
        except KeyError:
            row = self._row_of(name)
        row[_END_CELL[end]] += 1
        if run_seconds is not None and 0.0 <= run_seconds < _LONGEST_SECONDS:
            row[_RUN + bisect_left(BUCKETS, run_seconds)] += 1
            row[_RUN_SUM] += run_seconds

    def ended_unknown(self, end: TaskEnd) -> None:
        """A message is over whose task this app does not have: its name is anybody's, and gets no row."""
        self._cells[0][_END_CELL[end]] += 1

    def reconnected(self) -> None:
        """There is a connection to the broker again."""
        self._reconnects += 1

    def publish(self) -> None:
        """Let readers see what was counted."""
        for number, row in enumerate(self._cells):
            _CELLS.pack_into(self._map, _offset(number) + _NAME_BYTES, *row)
        _HEADER.pack_into(self._map, 0, MAGIC, len(self._cells), self._starts, self._reconnects)

    def close(self) -> None:
        """Publish, and close the map; the file stays."""
        self.publish()
        self._map.close()

    def _row_of(self, name: str) -> list[int | float]:
        """A row for this name while there is room, else the row of all others."""
        number = len(self._cells)
        if number > MOST_TASKS:
            return self._cells[0]
        raw, start = name.encode(errors="replace")[:_NAME_BYTES], _offset(number)
        self._map[start : start + _NAME_BYTES] = raw.ljust(_NAME_BYTES, b"\0")
        row = self._rows[name] = list(_CELLS.unpack(bytes(_CELLS.size)))
        self._cells.append(row)
        return row


def read_counters(path: Path) -> CountersView | None:
    """The counters at ``path``; None where there are none that can be read, or of another layout."""
    raw = _used_part(path)
    return _view(raw) if raw is not None else None


class CountersReader:
    """Reads the same files again and again: one that says what it said before is not taken apart again."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[bytes, CountersView]] = {}

    def read(self, paths: Iterable[Path]) -> dict[Path, CountersView]:
        """Those of them that can be read; all others are forgotten."""
        found = {path: self._one(path, raw) for path in paths if (raw := _used_part(path)) is not None}
        self._seen = found
        return {path: view for path, (_, view) in found.items()}

    def _one(self, path: Path, raw: bytes) -> tuple[bytes, CountersView]:
        known = self._seen.get(path)
        return known if known is not None and known[0] == raw else (raw, _view(raw))


def _used_part(path: Path) -> bytes | None:
    """A file of counters without the rows that are still free; None where it is none."""
    try:
        raw = read_file(path, limit_bytes=_SIZE)
    except OSError:
        return None
    return raw[: _offset(_rows_of(raw))] if _is_ours(raw) else None


def _view(raw: bytes) -> CountersView:
    _, _, starts, reconnects = _HEADER.unpack_from(raw)
    tasks: dict[str, TaskCounts] = {}
    for number, name in enumerate(_names(raw)):
        cells = _CELLS.unpack_from(raw, _offset(number) + _NAME_BYTES)
        if any(cells):
            tasks[name] = tasks[name] + TaskCounts(cells) if name in tasks else TaskCounts(cells)
    return CountersView(starts, reconnects, tasks)


def added_up(counts: Sequence[TaskCounts]) -> TaskCounts:
    """All of them together."""
    cells = (one.cells for one in counts)
    return counts[0] if len(counts) == 1 else TaskCounts(tuple(map(sum, zip(*cells, strict=True))))


def _offset(number: int) -> int:
    """Where a row begins, in bytes."""
    return _HEADER_BYTES + number * _ROW_BYTES


def _names(raw: bytes | mmap.mmap) -> list[str]:
    starts = map(_offset, range(1, _rows_of(raw)))
    return [OTHER, *(_text(raw[start : start + _NAME_BYTES]) for start in starts)]


def _rows_of(raw: bytes | mmap.mmap) -> int:
    rows: int = _HEADER.unpack_from(raw)[1]
    return min(rows, 1 + MOST_TASKS)


@lru_cache(maxsize=4096)  # a scrape reads the same few names from every replica
def _text(raw: bytes) -> str:
    return one_line(raw.rstrip(b"\0").decode(errors="replace"))


def _is_ours(raw: bytes | mmap.mmap) -> bool:
    return len(raw) == _SIZE and raw[: len(MAGIC)] == MAGIC and _HEADER.unpack_from(raw)[1] >= 1


def _mapped(path: Path) -> mmap.mmap:
    try:
        with open(open_own(path, os.O_RDWR), "r+b") as file:
            if os.fstat(file.fileno()).st_size == _SIZE:
                kept = mmap.mmap(file.fileno(), _SIZE)
                if _is_ours(kept):
                    return kept
                kept.close()
    except FileNotFoundError:
        pass
    return _fresh(path)


def _fresh(path: Path) -> mmap.mmap:
    """A new file in its place, whole from the first moment on."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(open_own(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC), "r+b") as file:
        file.truncate(_SIZE)
        made = mmap.mmap(file.fileno(), _SIZE)
    _HEADER.pack_into(made, 0, MAGIC, 1, 0, 0)
    os.replace(fresh, path)
    return made
