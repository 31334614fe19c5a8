"""How much memory a process uses where pages that several share are divided among them (PSS).

Resident memory counts a shared page once per process: children of prefork, and workers that were forked from an image,
would seem to need several times what they do. The kernel walks all pages of a process to tell, which takes up to a
millisecond for 50 MB; so only views for people ask, what has hardly changed is not asked again for a while, and of many
processes a few threads ask, which takes no time of Python's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from threading import Thread
from typing import NamedTuple

from fleet.backends.supervisor.processes import Proc, Table
from fleet.core.observed import ObservedReplica

KEPT_SECONDS = 10.0
_HARDLY = 1 << 20
_READERS = 4
_EACH = 8
"""Processes for which a thread pays."""


class _Told(NamedTuple):
    at: float
    resident_bytes: int
    share_bytes: int


class MemoryShares:
    """The shares of processes, each remembered by pid and start for ``KEPT_SECONDS``."""

    def __init__(self) -> None:
        self._told: dict[tuple[int, int], _Told] = {}
        self._swept_at = 0.0
        self._readers: list[Thread] = []

    def read_ahead(self, replicas: Iterable[int], table: Table) -> None:
        """Begin to ask for the processes of these replicas (pids), while the caller does something else."""
        self._begin()
        procs = (table.procs[pid] for replica in replicas for pid in table.tree(replica))
        waiting = deque(proc for proc in procs if self._known(proc) is None)
        readers = min(_READERS, len(waiting) // _EACH)
        self._readers = [Thread(target=self._read, args=(waiting,), daemon=True) for _ in range(readers)]
        for reader in self._readers:
            reader.start()

    def _read(self, waiting: deque[Proc]) -> None:
        while waiting:
            try:
                proc = waiting.popleft()
            except IndexError:
                return  # another thread was quicker
            self._of(proc)

    def shared(self, replica: ObservedReplica, table: Table) -> ObservedReplica:
        """The same, with the share of its processes as its memory."""
        if not replica.pid:
            return replica
        return replace(replica, memory_bytes=self.sum_bytes(table.procs[pid] for pid in table.tree(replica.pid)))

    def sum_bytes(self, procs: Iterable[Proc]) -> int:
        """Of these together; of one whose pages may not be seen, its resident memory."""
        self._begin()
        return sum(map(self._of, procs))

    def _begin(self) -> None:
        for reader in self._readers:
            reader.join()
        self._readers = []
        if time.monotonic() - self._swept_at >= KEPT_SECONDS:
            self._sweep()

    def _sweep(self) -> None:
        """Forget what was told long ago, and with it what has ended."""
        now = self._swept_at = time.monotonic()
        self._told = {key: told for key, told in self._told.items() if now - told.at < KEPT_SECONDS}

    def _known(self, proc: Proc) -> int | None:
        told = self._told.get((proc.pid, proc.started))
        if told is not None and abs(proc.memory_bytes - told.resident_bytes) < _HARDLY:
            return told.share_bytes
        return None

    def _of(self, proc: Proc) -> int:
        if (known := self._known(proc)) is not None:
            return known
        share = share_bytes(proc.pid)
        if share is None:
            return proc.memory_bytes
        self._told[proc.pid, proc.started] = _Told(time.monotonic(), proc.memory_bytes, share)
        return share


def share_bytes(pid: int) -> int | None:
    """The PSS of a process; None where it has ended, may not be looked into, or the kernel is older than 4.14."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith(b"Pss:")), [])
    return int(found[1]) * 1024 if len(found) == 3 else None
