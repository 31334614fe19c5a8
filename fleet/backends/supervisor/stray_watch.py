"""Looks for strays again and again, and reads only the processes that could have become one since the last look.

A process is a stray by its mark, which it was given when its program began, and by its parents. So a look reads what is
new, what has lost its parent, and once more what was new at the last look, which may not have begun its program then.
Everything is read when other processes are supervised than at the last look, and now and then, because the kernel uses
pids again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from fleet.backends.supervisor.processes import Proc, Table, Unmarked, process_ids, read_process
from fleet.core.observed import Stray

EVERYTHING_SECONDS = 60.0


class StrayWatch:
    """Of the fleet whose launch documents are in ``specs``."""

    def __init__(self, specs: Path, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._specs = specs
        self._monotonic = monotonic
        self._unmarked = Unmarked()
        self._supervised: dict[str, int] = {}
        self._uids: tuple[int, ...] = ()
        self._pids: set[int] = set()
        self._young: set[int] = set()
        self._procs: dict[int, Proc] = {}
        self._found: tuple[Stray, ...] = ()
        self._everything_at = 0.0

    def look(
        self, supervised: Mapping[str, int], *, uids: Iterable[int] = (), table: Table | None = None
    ) -> tuple[Stray, ...]:
        """The strays now. supervised: replica -> pid.  uids: accounts that replicas run under, besides this one.

        table: all processes, where they have been read already.
        """
        uids = tuple(uids)
        is_other = supervised != self._supervised or uids != self._uids
        self._supervised, self._uids = dict(supervised), uids
        if table is not None or is_other or self._monotonic() >= self._everything_at:
            self._read_everything(table)
        elif not self._read_what_changed():
            return self._found
        self._found = Table(self._procs).strays(self._specs, supervised=supervised, unmarked=self._unmarked)
        return self._found

    def _read_everything(self, table: Table | None) -> None:
        pids = process_ids()
        self._procs = dict((table or Table.read(self._uids)).procs)
        self._young, self._pids = pids - self._pids, pids
        self._everything_at = self._monotonic() + EVERYTHING_SECONDS

    def _read_what_changed(self) -> bool:
        """Whether anything has changed among the processes of these accounts."""
        pids = process_ids()
        new, gone = pids - self._pids, self._pids - pids
        again = new | (self._young & pids)
        if gone:
            again |= {pid for pid, proc in self._procs.items() if proc.parent in gone} & pids
        self._young, self._pids = new, pids
        own = {os.geteuid(), *self._uids}
        before = self._procs
        after = {pid: proc for pid, proc in before.items() if pid not in gone and pid not in again}
        after |= {pid: proc for pid in again if (proc := read_process(pid, own)) is not None}
        self._procs = after
        return bool(gone & before.keys() or again & (before.keys() | after.keys()))
