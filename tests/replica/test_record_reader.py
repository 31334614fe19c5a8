"""A reader of one record says what a first reading would, and reads nothing twice that has not changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.replica import record as records
from fleet.replica import record_reader
from fleet.replica.record import Record
from fleet.replica.record_reader import RecordReader


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "thumbs.0.rec"


def finished(record: Record, path: Path) -> None:
    record.processed += 1
    record.beat()


def replaced(record: Record, path: Path) -> None:
    record.close()
    Record(path, digest="other", slots=3).close()


def garbled(record: Record, path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def linked(record: Record, path: Path) -> None:
    os.replace(path, path.with_suffix(".there"))
    path.symlink_to(path.with_suffix(".there"))


CHANGES: dict[str, Callable[[Record, Path], object]] = {
    "a heartbeat": lambda record, _: record.beat(),
    "a task begins": lambda record, _: record.begin(1, task_id="id", task_name="shop.thumb"),
    "a task ends": finished,
    "another state": lambda record, _: record.become("draining", "why"),
    "held": lambda _, path: records.set_hold(path, on=True),
    "another process": replaced,
    "shortened": lambda _, path: os.truncate(path, 100),
    "emptied": lambda _, path: os.truncate(path, 0),
    "garbage": garbled,
    "a link": linked,
    "removed": lambda _, path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_changed_is_seen(path: Path, change: Callable[[Record, Path], object]) -> None:
    record, reader = Record(path, digest="d", slots=2), RecordReader(path)
    before = reader.read()
    assert before == records.read(path) is not None

    change(record, path)

    assert reader.read() == records.read(path) != before
    assert reader.read() == records.read(path)


def test_what_did_not_change_is_neither_read_as_a_whole_nor_decoded(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, reader = Record(path, digest="d", slots=2), RecordReader(path)
    whole: list[Path] = []
    monkeypatch.setattr(
        record_reader,
        "settled_parts",
        lambda one: whole.append(one) or records.settled_parts(one),  # type: ignore[func-returns-value]
    )

    views = [reader.read() for _ in range(5)]
    assert all(view is views[0] for view in views)
    assert len(whole) == 1

    record.beat()
    assert reader.read() is not views[0]
    assert reader.read() == records.read(path)
    assert len(whole) == 2


def test_a_part_whose_writer_died_is_read_again_each_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_PAUSE_SECONDS", 0.0)
    record, reader = Record(path, digest="d", slots=2), RecordReader(path)
    record._disturb(1)
    first = reader.read()
    assert first is not None
    assert reader.read() is not first

    record._settle(1, (0, 1, 5.0, 0.0, b"id", b"shop.thumb"))
    assert reader.read() == records.read(path) != first
