"""Counters that outlive a process, and how its end is told."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.core.totals import Totals
from fleet.replica import record as records
from fleet.replica.counters import Counters, read_counters, write_counters
from fleet.replica.ending import Ending, crash_text, read_ending, write_ending
from fleet.replica.record import Record, RecordView

KILLED = int(signal.SIGKILL)
FOUR_TASKS = 4


def seen(folder: Path, *, processed: int = 0, failed: int = 0, foreign: bool = False, running: int = 0) -> RecordView:
    record = Record(folder / "thumbs.0.rec", digest="abc", slots=FOUR_TASKS, foreign=foreign)
    record.processed, record.failed = processed, failed
    for slot in range(running):
        record.begin(slot, task_id=f"id{slot}", task_name="shop.thumb")
    record.beat()
    record.close()
    found = records.read(folder / "thumbs.0.rec")
    assert found is not None
    return found


def test_a_process_is_added_once_however_often_it_is_seen(tmp_path: Path) -> None:
    record = seen(tmp_path, processed=7, failed=2)

    once = Counters(starts=1).with_record(record)
    twice = once.with_record(record)

    assert once == twice
    assert once.totals == Totals(restarts=0, crashes=0, done=7, failed=2)


def test_the_next_process_is_added_to_it(tmp_path: Path) -> None:
    first = seen(tmp_path, processed=7, failed=2)
    second = replace(first, started_ticks=first.started_ticks + 1, processed=3, failed=1)

    counters = Counters(starts=2, crashes=1).with_record(first).with_record(second)

    assert counters.totals == Totals(restarts=1, crashes=1, done=10, failed=3)


def test_the_launchers_record_of_a_program_counts_nothing(tmp_path: Path) -> None:
    assert Counters().with_record(seen(tmp_path, processed=7, foreign=True)) == Counters()


def test_counters_are_read_as_they_were_written(tmp_path: Path) -> None:
    counters = Counters(5, 2, 70, 3, (4711, 99))
    path = tmp_path / "counters" / "thumbs.0.json"

    write_counters(path, counters)

    assert read_counters(path) == counters
    assert os.listdir(path.parent) == ["thumbs.0.json"]


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[1,2,3,4,5,6,7]", '["a",1,1,1,1,1]', "\xff", "[1e999,1,1,1,1,1]"])
def test_damaged_counters_begin_again(tmp_path: Path, text: str) -> None:
    path = tmp_path / "thumbs.0.json"
    path.write_text(text, encoding="latin-1")

    assert read_counters(path) == Counters()


def test_totals_are_summed() -> None:
    assert Totals.sum([Totals(1, 2, 3, 4), Totals(10, 20, 30, 40)]) == Totals(11, 22, 33, 44)
    assert Totals.sum([]) == Totals()


@pytest.mark.parametrize(
    ("status", "how"),
    [(KILLED, "killed by SIGKILL"), (int(signal.SIGSEGV) | 0x80, "killed by SIGSEGV"), (3 << 8, "exit code 3")],
)
def test_an_ending_says_how(tmp_path: Path, status: int, how: str) -> None:
    write_ending(tmp_path / "x.end", Ending(4711, status, False, 1000.0))

    ending = read_ending(tmp_path / "x.end")

    assert ending is not None
    assert (ending.pid, ending.asked, ending.how) == (4711, False, how)


@pytest.mark.parametrize("text", ["", "[]", '{"pid": 1}', '["a", 1, 1, 1]', "\xff"])
def test_a_damaged_ending_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.end").write_text(text, encoding="latin-1")

    assert read_ending(tmp_path / "x.end") is None


def test_a_crash_is_told_with_what_ran(tmp_path: Path) -> None:
    assert crash_text("killed by SIGKILL", 61.4, None) == "killed by SIGKILL after 1m1s"

    text = crash_text("exit code 1", 2.0, seen(tmp_path, running=FOUR_TASKS))

    assert text == ("exit code 1 after 2s; it ran shop.thumb (id0), shop.thumb (id1), shop.thumb (id2) and 1 task more")
