"""Which tasks must not run, over restarts and over time."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fleet.worker.loop import revoked
from fleet.worker.loop.revoked import KEPT_SECONDS, Revoked


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def test_the_next_process_knows_them(tmp_path: Path) -> None:
    path = tmp_path / "g.0.revoked"
    Revoked(path).add(["a", "b"])
    again = Revoked(path)
    assert again.ids() == ["a", "b"]
    again.add(["c", "a"])
    assert Revoked(path).ids() == ["b", "c", "a"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "g.0.revoked"
    first = Revoked(path, clock)
    first.add(["old"])
    clock.now += KEPT_SECONDS - 1
    first.add(["new"])
    assert "old" in Revoked(path, clock)
    clock.now += 2
    assert Revoked(path, clock).ids() == ["new"]
    clock.now += KEPT_SECONDS
    assert len(Revoked(path, clock)) == 0
    assert not path.exists(), "an empty set leaves no file"


def test_there_are_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revoked, "MOST", 5)
    path = tmp_path / "g.0.revoked"
    known = Revoked(path)
    for number in range(40):
        known.add([f"id{number}"])
    assert known.ids() == [f"id{number}" for number in range(35, 40)]
    assert len(path.read_text().splitlines()) <= 11
    assert Revoked(path).ids() == known.ids()


def test_a_torn_or_foreign_line_is_passed_over(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "g.0.revoked"
    path.write_bytes(b"1000000 a\n\xff\xfe junk\n1000000 \n1000000 b\n99")
    known = Revoked(path, clock)
    assert known.ids() == ["a", "b"]
    known.add(["c"])
    assert Revoked(path, clock).ids() == ["a", "b", "c"]


def test_a_file_that_cannot_be_written_is_told_of_and_done_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = Revoked(tmp_path / "nowhere" / "g.0.revoked")
    with caplog.at_level(logging.WARNING):
        known.add(["a"])
        known.add(["b"])
    assert known.ids() == ["a", "b"]
    assert len(caplog.records) == 1


def test_a_new_replica_learns_what_its_siblings_know(tmp_path: Path) -> None:
    Revoked(tmp_path / "a.0.revoked").add(["one", "two"])
    fresh = Revoked(tmp_path / "a.1.revoked")
    assert "one" not in fresh
    fresh.learn()
    assert {"one", "two"} <= set(fresh.ids())
    fresh.add(["three"])
    assert set(Revoked(tmp_path / "a.1.revoked").ids()) == {"three"}
