"""Reads what there is to know of each replica, for one observation after another: what cannot have changed is kept."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from fleet.backends.supervisor.observe import Sight
from fleet.backends.supervisor.processes import Table, is_launcher
from fleet.backends.supervisor.rpc import Process
from fleet.broker import embedded
from fleet.core.desired import BROKER_GROUP, CONTROLLER_GROUP, group_of
from fleet.replica.crash_history import Life, read_history
from fleet.replica.health_result import read_result, result_file
from fleet.replica.launch_document import LaunchDocument
from fleet.replica.record import RecordView
from fleet.replica.record_reader import RecordReader
from fleet.state import controller_heartbeat
from fleet.state.files import Stamp, stamp_of
from fleet.state.paths import Places


class ReplicaReadings:
    """Of one fleet. A record is mapped by its writer and looked at each time; a crash history is replaced whole."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._accounts: Collection[int] = ()
        self._files: dict[str, tuple[RecordReader, Path]] = {}
        self._lives: dict[Path, tuple[Stamp, tuple[Life, ...]]] = {}

    def begin(self, replicas: Collection[str], *, accounts: Collection[int]) -> None:
        """An observation of these; all others are forgotten. accounts: uids that have a folder of their own.

        Where there are such folders, it depends on what is in them where a file is, and they are looked into each time.
        """
        was_fixed = not accounts and not self._accounts
        self._accounts = accounts
        self._files = {name: files for name, files in self._files.items() if was_fixed and name in replicas}
        self._lives = {path: seen for path, seen in self._lives.items() if path.stem in replicas}

    def sight(
        self, name: str, process: Process, digest: str, *, launch: LaunchDocument | None, table: Table | None
    ) -> Sight:
        """Everything known about one of them now. table: None: memory and processor time are not asked for."""
        now = time.time()  # before the record is read: then seconds counted up to now never decrease
        pid = process.pid
        memory_bytes, cpu_seconds = table.usage(pid) if pid and table is not None else (0, 0.0)
        record, lives = self.files(name)
        is_checked = pid and launch is not None and launch.spec.health_check.is_given
        found = Sight(
            name=name,
            digest=digest,
            process=process,
            launch=launch,
            record=record,
            memory_bytes=memory_bytes,
            cpu_seconds=cpu_seconds,
            now=now,
            answers=self._answers(name, process),
            lives=lives,
            heartbeat=self._heartbeat(name),
            health=read_result(result_file(self._places.health, name), pid=pid) if is_checked else None,
        )
        return replace(found, launching=is_launcher(pid)) if found.living_record is None else found

    def files(self, replica: str) -> tuple[RecordView | None, tuple[Life, ...]]:
        """Its record, and its earlier processes."""
        if replica not in self._files:
            record = RecordReader(self._places.record_file(replica, accounts=self._accounts))
            self._files[replica] = record, self._places.starts_file(replica, accounts=self._accounts)
        record, starts = self._files[replica]
        return record.read(), self._lives_in(starts)

    def _lives_in(self, path: Path) -> tuple[Life, ...]:
        if (stamp := stamp_of(path)) is None:
            self._lives.pop(path, None)
            return ()
        seen = self._lives.get(path)
        if seen is None or seen[0] != stamp:
            seen = self._lives[path] = (stamp, read_history(path).lives)
        return seen[1]

    def _answers(self, name: str, process: Process) -> bool | None:
        """Whether the embedded broker answers; None for programs that cannot be asked."""
        if not name.startswith(f"{BROKER_GROUP}.") or not process.pid:
            return None
        return embedded.ping(embedded.url_in_use(self._places))

    def _heartbeat(self, name: str) -> controller_heartbeat.Heartbeat | None:
        """The controller's own; None for other programs."""
        if group_of(name) != CONTROLLER_GROUP:
            return None
        return controller_heartbeat.read(self._places.controller_heartbeat)
