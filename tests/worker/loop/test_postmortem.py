"""The last words of a process that died, found in the worker's log."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet.worker import logging_setup
from fleet.worker.loop.postmortem import _owner, last_lines, story
from pools.errors import HardTimeLimit, MemoryLimit, SlotLost, Terminated

STAMP = "2026-11-21 05:00:00,123"


def told(path: Path, text: str, pid: int) -> list[str]:
    path.write_text(text)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        return last_lines(pid, fd=descriptor).splitlines()
    finally:
        os.close(descriptor)


def test_only_lines_of_that_process_are_told(tmp_path: Path) -> None:
    text = f"""a line of nobody
{STAMP} INFO shop.0[7] mine
{STAMP} INFO shop.0[8] another's
  goes on
{STAMP} ERROR shop.0[7] mine again
Traceback (most recent call last):
  ValueError: as asked
{STAMP} INFO shop.0[77] another's
"""
    assert told(tmp_path / "log", text, 7) == [
        f"{STAMP} INFO shop.0[7] mine",
        f"{STAMP} ERROR shop.0[7] mine again",
        "Traceback (most recent call last):",
        "  ValueError: as asked",
    ]


@pytest.mark.parametrize("make", [logging_setup.TextLines, logging_setup.JsonLines])
def test_lines_are_known_as_a_worker_writes_them(tmp_path: Path, make: Callable[[str], logging.Formatter]) -> None:
    written = []
    for pid in (7, 8, 7):
        made = logging.LogRecord("app", logging.INFO, __file__, 1, f"of {pid}", None, None)
        made.process = pid
        written.append(make("shop.0").format(made))

    assert told(tmp_path / "log", "\n".join(written), 7) == [written[0], written[2]]


def test_json_lines_are_read_too(tmp_path: Path) -> None:
    lines = [json.dumps({"time": "t", "pid": pid, "message": f"of {pid}"}) for pid in (7, 8, 7)]

    assert told(tmp_path / "log", "\n".join(lines) + '\n{"time": "cut of', 7) == [
        lines[0],
        lines[2],
        '{"time": "cut of',
    ]


def test_the_last_report_of_a_fatal_error_is_told_from_its_top(tmp_path: Path) -> None:
    frames = "\n".join(f'  File "x.py", line {number} in f' for number in range(30))
    earlier = "Fatal Python error: Aborted\nof another one\n"
    fatal = f"Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n{frames}\n"
    log = f"{earlier}{STAMP} INFO shop.0[7] mine\n{STAMP} INFO shop.0[8] other's\n{fatal}{STAMP} INFO shop.0[8] after\n"

    lines = told(tmp_path / "log", log, 7)

    assert lines[:2] == [f"{STAMP} INFO shop.0[7] mine", "Fatal Python error: Segmentation fault"]
    assert lines[4] == '  File "x.py", line 0 in f'
    assert len(lines) == 9


def test_it_stays_small_whatever_was_written(tmp_path: Path) -> None:
    many = "".join(f"{STAMP} INFO shop.0[7] {number} {'x' * 2000}\n" for number in range(500))

    lines = last = told(tmp_path / "log", many, 7)

    assert len("\n".join(lines)) <= 4096
    assert " 499 " in last[-1]
    assert len(told(tmp_path / "log", many.replace("x", ""), 7)) == 20


def test_a_log_that_is_no_file_tells_nothing() -> None:
    read_end, write_end = os.pipe()
    try:
        assert last_lines(7, fd=write_end) == ""
    finally:
        os.close(read_end)
        os.close(write_end)


@pytest.mark.parametrize(
    ("error", "exit_name"),
    [
        (SlotLost("lost", exit_code=-signal.SIGSEGV), "SIGSEGV"),
        (SlotLost("lost", exit_code=3), "exit code 3"),
        (SlotLost("lost"), "unknown"),
        (MemoryLimit("fat"), None),
        (HardTimeLimit("slow"), None),
    ],
)
def test_the_exit_is_told_by_name(error: Exception, exit_name: str | None) -> None:
    assert story(error, 1).get("x-fleet-exit") == exit_name


def test_other_ends_and_tasks_in_this_very_process_have_no_story() -> None:
    assert story(Terminated(), 1) == {}
    assert story(HardTimeLimit(), os.getpid()) == {}


@pytest.mark.parametrize("pid", ["[" * 100_000, "1e400", "Infinity", "null", '"x"', "9" * 5000])
def test_what_a_task_printed_stops_no_story(pid: str) -> None:
    assert _owner(f'{{"time": "x", "pid": {pid}}}') is None
