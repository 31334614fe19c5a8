"""Ids of tasks that must not run: the newest ones, for a while, also after a restart of this replica."""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from fleet.errors import FleetError
from fleet.file_access import KEPT_BYTES, open_own, read_file
from fleet.state.files import write_whole
from fleet.worker.task.job import Job

log = logging.getLogger("fleet.worker")

MOST = 50_000
KEPT_SECONDS = 3 * 3600.0
_STAMP = "stamp:"


class Revoked:
    """A set that forgets its oldest entries. Used by the loop and by the housekeeping thread.  on_added: called after
    each ``add``.  on_unkept: called when they cannot be kept in the file.

    With a ``path`` it outlives the process: each id is appended to that file before ``add`` returns, and a new process
    reads it and rewrites it without what is too old. A file that cannot be used is logged once and then ignored.
    Files of the same kind beside it belong to the fleet's other replicas and hold what was revoked before this one
    started: ``learn`` reads them.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self.on_added: Callable[[], object] = _nothing
        self.on_unkept: Callable[[], object] = _nothing
        self._path = path
        self._clock = clock
        self._ids: OrderedDict[str, float] = OrderedDict()
        self._lines = 0
        if path is not None and path.exists():
            self._load(path)

    @property
    def is_kept(self) -> bool:
        """Whether the fleet's other replicas can read what is added."""
        return self._path is not None

    def learn(self) -> None:
        """Take in what the fleet's other replicas know."""
        if self._path is None:
            return
        known = dict(self._ids)
        for path in _of_the_fleet(self._path):
            if path != self._path:
                with suppress(OSError):
                    _read_into(known, path)
        self._ids = OrderedDict(sorted(known.items(), key=lambda entry: entry[1]))
        self._drop_old(self._clock())

    def add(self, ids: Iterable[str]) -> None:
        """Add ids of tasks that must not run."""
        now = self._clock()
        fresh = list(dict.fromkeys(ids))
        for task_id in fresh:
            self._ids[task_id] = now
            self._ids.move_to_end(task_id)
        self._drop_old(now)
        if self._path is not None and fresh:
            self._keep(self._path, [_line(now, task_id) for task_id in fresh])
        self.on_added()

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> list[str]:
        """Those of tasks, oldest first; keys of stamps are left out."""
        return [task_id for task_id in self._ids if not task_id.startswith(_STAMP)]

    def _drop_old(self, now: float) -> None:
        while self._ids and (len(self._ids) > MOST or next(iter(self._ids.values())) < now - KEPT_SECONDS):
            self._ids.popitem(last=False)

    # -- the file: one line per id, "unix-time id"

    def _load(self, path: Path) -> None:
        found: dict[str, float] = {}
        try:
            _read_into(found, path)
        except OSError as error:
            self._do_without(error)
            return
        self._ids = OrderedDict(sorted(found.items(), key=lambda entry: entry[1]))
        self._drop_old(self._clock())
        self._rewrite(path)

    def _keep(self, path: Path, lines: list[str]) -> None:
        self._lines += len(lines)
        if self._lines > 2 * MOST:
            self._rewrite(path)
            return
        try:
            with open(open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a", encoding="utf-8") as file:
                file.write("".join(lines))
        except OSError as error:
            self._do_without(error)

    def _rewrite(self, path: Path) -> None:
        """Write only what is not too old, in one step."""
        try:
            if self._ids:
                write_whole(path, "".join(_line(since, task_id) for task_id, since in self._ids.items()))
            else:
                path.unlink(missing_ok=True)
        except (FleetError, OSError) as error:
            self._do_without(error)
        self._lines = len(self._ids)

    def _do_without(self, error: Exception) -> None:
        log.warning("revoked tasks are not remembered after a restart: %s", error)
        self._path = None
        self.on_unkept()


def _nothing() -> None:
    pass


def is_revoked(job: Job, revoked: Container[str]) -> bool:
    """By its id, or by one of its stamps."""
    if job.call.id in revoked:
        return True
    stamps = job.call.headers.get("stamps")
    return bool(stamps) and any(key in revoked for key in stamp_keys(stamps))


def stamp_keys(stamps: object) -> set[str]:
    """A key for each stamp, which stands among the ids. ``stamps``: header -> stamp or list of them; else no stamps."""
    if not isinstance(stamps, Mapping):
        return set()
    several = (
        (header, found if isinstance(found, (list, tuple, set)) else [found]) for header, found in stamps.items()
    )
    return {f"{_STAMP}{quote(f'{header}={stamp}', safe='')}" for header, found in several for stamp in found}


def _of_the_fleet(path: Path) -> list[Path]:
    """The files of this kind in the folder of this one."""
    try:
        names = os.listdir(path.parent)
    except OSError:
        return []
    return [path.parent / name for name in sorted(names) if name.endswith(path.suffix)]


def _read_into(ids: dict[str, float], path: Path) -> None:
    for line in read_file(path, limit_bytes=KEPT_BYTES).decode(errors="replace").splitlines():
        since, _, task_id = line.partition(" ")
        with suppress(ValueError):  # the line that was being written when the process was killed
            if task_id:
                ids[task_id] = max(float(since), ids.pop(task_id, 0.0))


def _line(since: float, task_id: str) -> str:
    return f"{since:.0f} {' '.join(task_id.split())}\n"
