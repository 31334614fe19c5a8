"""What a replica has done in all its processes: counters that outlive each of them, in a small file per replica.

Nothing is written while tasks run. The counters of a process are in its record; whoever is about to replace or remove
that record adds them here first, which is once per process. The file names the process that was added last, so that
adding it again changes nothing. It is replaced in one step, without fsync: a machine that loses power may lose the
counts of what had just ended.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from fleet.core.totals import Totals
from fleet.file_access import SMALL_BYTES, make_folders, open_own, read_file
from fleet.replica.record import RecordView

_Process = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Counters:
    """starts: of its processes.  crashes: ends of them that were one.  done, failed: tasks of those that were added.

    last: pid and start in ticks of the process that was added last.
    """

    starts: int = 0
    crashes: int = 0
    done: int = 0
    failed: int = 0
    last: _Process = (0, 0)

    def with_record(self, record: RecordView | None) -> Counters:
        """With what a record counts, unless that was added before, or its program counts nothing."""
        if record is None or record.foreign or self.last == _process(record):
            return self
        done, failed = self.done + record.processed, self.failed + record.failed
        return replace(self, done=done, failed=failed, last=_process(record))

    @property
    def totals(self) -> Totals:
        """As a status shows them."""
        return Totals(max(0, self.starts - 1), self.crashes, self.done, self.failed)


def counters_file(folder: Path, replica: str) -> Path:
    """Where the counters of a replica are."""
    return folder / f"{replica}.json"


def read_counters(path: Path) -> Counters:
    """The counters at ``path``; where the file cannot be read, they begin again."""
    try:
        starts, crashes, done, failed, *last = map(int, json.loads(read_file(path, limit_bytes=SMALL_BYTES, own=True)))
        pid, ticks = last
        return Counters(starts, crashes, done, failed, (pid, ticks))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return Counters()


def write_counters(path: Path, counters: Counters) -> None:
    """Replace the file in one step. Raises OSError."""
    make_folders(path.parent)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    values = [counters.starts, counters.crashes, counters.done, counters.failed, *counters.last]
    with open(open_own(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
        json.dump(values, file)
    os.replace(fresh, path)


def _process(record: RecordView) -> _Process:
    return record.pid, record.started_ticks
