"""What replicas say in their files, for one observation after another: what cannot have changed is kept."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from fleet.replica import record as records
from fleet.replica.crash_history import Life, read_history
from fleet.replica.record import RecordView
from fleet.state.paths import Places

_Stamp = tuple[int, int, int]


class ReplicaReadings:
    """Of one fleet. A record is mapped by its writer and read each time; a crash history is replaced as a whole."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._paths: dict[str, tuple[Path, Path]] = {}
        self._lives: dict[Path, tuple[_Stamp, tuple[Life, ...]]] = {}

    def keep(self, replicas: Collection[str]) -> None:
        """Forget all others."""
        self._paths = {name: paths for name, paths in self._paths.items() if name in replicas}
        self._lives = {path: seen for path, seen in self._lives.items() if path.stem in replicas}

    def of(self, replica: str, *, accounts: Collection[int]) -> tuple[RecordView | None, tuple[Life, ...]]:
        """Its record, and its earlier processes. accounts: the uids that have a folder of their own in this fleet."""
        record, starts = self._paths_of(replica, accounts)
        return records.read(record), self._lives_in(starts)

    def _paths_of(self, replica: str, accounts: Collection[int]) -> tuple[Path, Path]:
        """Where accounts have folders, that depends on what is in them, and they are looked into each time."""
        if accounts:
            self._paths.clear()
            return self._places.record_file(replica), self._places.starts_file(replica)
        if replica not in self._paths:
            self._paths[replica] = self._places.record_file(replica), self._places.starts_file(replica)
        return self._paths[replica]

    def _lives_in(self, path: Path) -> tuple[Life, ...]:
        try:
            facts = path.stat()
        except OSError:
            self._lives.pop(path, None)
            return ()
        stamp = (facts.st_mtime_ns, facts.st_ino, facts.st_size)
        seen = self._lives.get(path)
        if seen is None or seen[0] != stamp:
            seen = self._lives[path] = (stamp, read_history(path).lives)
        return seen[1]
