"""Memory that processes share is divided among them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet.backends.supervisor import memory_share
from fleet.backends.supervisor.memory_share import MemoryShares, share_bytes
from fleet.backends.supervisor.processes import Proc, Table

SHARED_BYTES = 32 << 20
needs_shares = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="the kernel does not tell")


@contextmanager
def forked(count: int) -> Iterator[list[int]]:
    """Children that have what this process has, and wait."""
    reading, writing = os.pipe()
    pids = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        pids.append(pid)
    os.close(reading)
    try:
        yield pids
    finally:
        os.close(writing)
        for pid in pids:
            os.waitpid(pid, 0)


@needs_shares
def test_what_forked_processes_share_counts_once() -> None:
    held = bytearray(os.urandom(1 << 20) * (SHARED_BYTES >> 20))
    with forked(3) as pids:
        procs = [Table.read().procs[pid] for pid in (os.getpid(), *pids)]
        resident = sum(proc.memory_bytes for proc in procs)
        assert resident >= 4 * SHARED_BYTES
        assert MemoryShares().sum_bytes(procs) <= resident - 3 * SHARED_BYTES + SHARED_BYTES // 2
    assert len(held) == SHARED_BYTES


def test_of_a_process_that_cannot_be_seen_the_resident_memory_counts() -> None:
    assert share_bytes(0) is None
    assert MemoryShares().sum_bytes([Proc(0, 1, 5, 300), Proc(0, 1, 6, 400)]) == 700


def test_it_is_asked_again_when_it_has_changed_or_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(memory_share, "share_bytes", lambda pid: asked.append(pid) or 10 * len(asked))
    shares, much = MemoryShares(), 1 << 30
    assert [shares.sum_bytes([Proc(7, 1, 5, much + few)]) for few in (0, 1000, 1 << 21)] == [10, 10, 20]
    assert shares.sum_bytes([Proc(7, 1, 6, much)]) == 30, "another process with this pid"
    assert shares.sum_bytes([Proc(7, 1, 6, much)]) == 30
    monkeypatch.setattr(memory_share, "KEPT_SECONDS", 0.0)
    assert shares.sum_bytes([Proc(7, 1, 6, much)]) == 40


@needs_shares
def test_what_is_read_ahead_is_the_same_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with forked(20) as pids:
        table = Table.read()
        procs = [table.procs[pid] for pid in pids]
        one_by_one = MemoryShares().sum_bytes(procs)
        asked: list[int] = []

        def counted(pid: int) -> int | None:
            asked.append(pid)
            return share_bytes(pid)

        monkeypatch.setattr(memory_share, "share_bytes", counted)
        shares = MemoryShares()
        shares.read_ahead(pids, table)
        together = shares.sum_bytes(procs)
        shares.read_ahead(pids, table)
    assert sorted(asked) == sorted(pids)
    assert abs(together - one_by_one) < 1 << 20


def test_few_processes_and_ended_ones_are_no_trouble_ahead() -> None:
    table, shares = Table({5: Proc(5, 1, 1, 300), 0: Proc(0, 1, 1, 400)}), MemoryShares()
    shares.read_ahead([0, 7], table)
    assert shares.sum_bytes([table.procs[0]]) == 400
