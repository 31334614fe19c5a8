"""Counters by task: what is counted is read, over restarts too, and nothing in the file can harm a reader."""

from __future__ import annotations

import functools
import operator
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.replica.task_counters import (
    BUCKETS,
    ENDS,
    MOST_TASKS,
    OTHER,
    CountersReader,
    CountersView,
    Histogram,
    TaskCounters,
    TaskCounts,
    added_up,
    counters_path,
    read_counters,
)


def seen(path: Path) -> CountersView:
    view = read_counters(path)
    assert view is not None
    return view


def end_count(view: CountersView, task: str, end: str) -> int:
    return dict(zip(ENDS, view.tasks[task].ends, strict=True))[end]


def test_it_lies_beside_the_record() -> None:
    assert counters_path(Path("/r/thumbs.0.rec")) == Path("/r/thumbs.0.tasks")


@pytest.mark.parametrize("end", ENDS)
def test_each_end_is_counted_apart(tmp_path: Path, end) -> None:
    counters = TaskCounters(tmp_path / "a.tasks")
    counters.ended("shop.thumb", end, 0.02)
    counters.ended("shop.thumb", end, None)
    counters.publish()
    task = seen(tmp_path / "a.tasks").tasks["shop.thumb"]
    assert task.ends == tuple(2 * (one == end) for one in ENDS)
    assert (task.run.count, task.run.sum_seconds) == (1, 0.02)
    assert task.wait == Histogram()


@pytest.mark.parametrize("bound", BUCKETS)
def test_a_bound_belongs_to_its_bucket_and_more_to_the_next(tmp_path: Path, bound: float) -> None:
    counters = TaskCounters(tmp_path / "a.tasks")
    counters.waited("t", bound)
    counters.waited("t", bound * 1.0001)
    counters.close()
    counts, at = seen(tmp_path / "a.tasks").tasks["t"].wait.counts, BUCKETS.index(bound)
    assert counts[at : at + 2] == (1, 1)
    assert sum(counts) == 2


def test_the_next_process_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.tasks"
    for _ in range(3):
        counters = TaskCounters(path)
        counters.ended("shop.thumb", "done", 1.0)
        counters.reconnected()
        counters.close()
    view = seen(path)
    assert (view.starts, view.reconnects, end_count(view, "shop.thumb", "done")) == (3, 3, 3)


def test_names_beyond_the_room_share_one_row(tmp_path: Path) -> None:
    counters = TaskCounters(tmp_path / "a.tasks")
    for number in range(MOST_TASKS + 7):
        counters.ended(f"task.{number}", "done", 0.1)
    counters.ended_unknown("dead")
    counters.close()
    view = seen(tmp_path / "a.tasks")
    assert len(view.tasks) == MOST_TASKS + 1
    assert (end_count(view, OTHER, "done"), end_count(view, OTHER, "dead")) == (7, 1)


def test_a_task_that_is_named_other_is_not_lost(tmp_path: Path) -> None:
    counters = TaskCounters(tmp_path / "a.tasks")
    counters.ended(OTHER, "done", 0.1)
    counters.ended_unknown("done")
    counters.close()
    assert end_count(seen(tmp_path / "a.tasks"), OTHER, "done") == 2


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0, 1e300])
def test_what_is_no_time_is_not_added(tmp_path: Path, seconds: float) -> None:
    counters = TaskCounters(tmp_path / "a.tasks")
    counters.waited("t", seconds)
    counters.ended("t", "failed", seconds)
    counters.close()
    task = seen(tmp_path / "a.tasks").tasks["t"]
    assert (task.run, task.wait, sum(task.ends)) == (Histogram(), Histogram(), 1)


@given(st.text(min_size=1, max_size=200))
def test_any_name_can_be_counted(tmp_path_factory, name: str) -> None:
    path = tmp_path_factory.mktemp("counters") / "a.tasks"
    counters = TaskCounters(path)
    counters.ended(name, "done", 0.1)
    counters.close()
    (found,) = seen(path).tasks
    assert "\n" not in found
    TaskCounters(path).close()


@pytest.mark.parametrize("content", [b"", b"FLTTSK1\0", b"x" * 30_000, b"FLTTSK9\0" + bytes(40_000)])
def test_a_file_that_is_none_is_not_read_and_is_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tasks"
    path.write_bytes(content)
    assert read_counters(path) is None
    TaskCounters(path).close()
    assert seen(path).starts == 1


def test_a_count_of_rows_beyond_the_file_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "a.tasks"
    TaskCounters(path).close()
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), (1 << 60).to_bytes(8, "little"), 8)
    assert seen(path).tasks == {}
    TaskCounters(path).close()


def test_one_that_reads_again_says_what_a_first_reading_says(tmp_path: Path) -> None:
    paths = [tmp_path / f"a.{index}.tasks" for index in range(3)]
    first, second = TaskCounters(paths[0]), TaskCounters(paths[1])
    reader = CountersReader()

    def fresh() -> dict[Path, CountersView]:
        return {path: view for path in paths if (view := read_counters(path)) is not None}

    for count in range(3):
        first.ended("shop.thumb", "done", 0.1)
        second.ended(f"shop.task{count}", "failed", None)  # one row more each time
        first.publish()
        second.publish()
        assert reader.read(paths) == fresh()
        assert reader.read(paths) == fresh()
    first.close()
    paths[0].unlink()
    paths[2].write_bytes(b"no counters")
    assert reader.read(paths).keys() == {paths[1]}
    TaskCounters(paths[0]).close()
    assert reader.read(paths) == fresh()
    second.close()


@given(st.lists(st.lists(st.integers(0, 1 << 40), min_size=38, max_size=38), min_size=1, max_size=5))
def test_added_up_is_one_after_the_other(rows: list[list[int]]) -> None:
    counts = [TaskCounts(tuple(row)) for row in rows]
    assert added_up(counts) == functools.reduce(operator.add, counts)


def test_there_is_none_where_there_is_no_file(tmp_path: Path) -> None:
    assert read_counters(tmp_path / "a.tasks") is None


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "a.tasks").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic link"):
        TaskCounters(tmp_path / "a.tasks")
    assert (tmp_path / "target").read_bytes() == b"precious"
