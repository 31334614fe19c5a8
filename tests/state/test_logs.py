"""Many logs as one."""

from __future__ import annotations

import logging
import os
import resource
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.state import logs
from fleet.state.audit import Audit
from fleet.worker.logging_setup import TextLines


def write(folder: Path, name: str, *lines: str) -> None:
    (folder / f"{name}.log").write_text("".join(f"{line}\n" for line in lines))


def texts(lines: list[logs.Line]) -> list[str]:
    return [f"{line.replica} {line.text.split()[-1]}" for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "a.0", "2026-01-01 10:00:00,100 one", "2026-01-01 10:00:03,000 four", "  more-of-four")
    write(tmp_path, "a.1", "[2026-01-01 10:00:01,000: INFO] two")
    write(tmp_path, "b.0", '{"time": "2026-01-01T10:00:02", "message": "three"}', "no-time")
    (tmp_path / "supervisord.log").write_text("2026-01-01 09:00:00,000 not mine\n")
    return tmp_path


def test_lines_are_merged_by_time_and_lines_without_one_follow_theirs(folder: Path) -> None:
    merged = logs.merged(logs.files(folder))
    assert texts(merged) == ["a.0 one", "a.1 two", 'b.0 "three"}', "b.0 no-time", "a.0 four", "a.0 more-of-four"]


def test_the_last_lines_and_lines_since(folder: Path) -> None:
    assert texts(logs.merged(logs.files(folder), last=2)) == ["a.0 four", "a.0 more-of-four"]
    moment = logs.moment("2026-01-01 10:00:01,000 x")
    assert moment is not None
    assert texts(logs.merged(logs.files(folder), since=moment))[0] == "a.1 two"
    assert logs.merged(logs.files(folder), last=0) == []


def test_groups_and_replicas_are_chosen_by_name(folder: Path) -> None:
    known = list(logs.files(folder))
    assert known == ["a.0", "a.1", "b.0"]
    assert logs.chosen(known, []) == known
    assert logs.chosen(known, ["a"]) == ["a.0", "a.1"]
    assert logs.chosen(known, ["a.1", "b"]) == ["a.1", "b.0"]


def test_the_end_of_a_long_log_is_read_from_behind(tmp_path: Path) -> None:
    write(tmp_path, "a.0", *(f"2026-01-01 10:00:00,000 {'x' * 100} {number}" for number in range(5000)))
    assert texts(logs.merged(logs.files(tmp_path), last=3)) == ["a.0 4997", "a.0 4998", "a.0 4999"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T10:00:00Z x", datetime(2026, 1, 1, 10, tzinfo=UTC).timestamp()),
        ("2026-01-01 10:00:00.250+01:00 x", datetime(2026, 1, 1, 9, tzinfo=UTC).timestamp() + 0.25),
        ('{"ts": 12.5}', 12.5),
        ("plain", None),
        ("{broken", None),
        ("2026-99-99 10:00:00 x", None),
    ],
)
def test_the_time_of_a_line(text: str, expected: float | None) -> None:
    assert logs.moment(text) == expected


def test_following_sees_growth_new_replicas_and_rotation(folder: Path) -> None:
    turns = iter(["grow", "appear", "rotate"])

    def sleep(_seconds: float) -> None:
        match next(turns):
            case "grow":
                with (folder / "a.0.log").open("a") as file:
                    file.write("2026-01-01 10:00:05,000 grown\n2026-01-01 10:00:06,000 half")
            case "appear":
                write(folder, "a.2", "2026-01-01 10:00:07,000 appeared")
            case "rotate":
                (folder / "a.0.log").rename(folder / "old")
                write(folder, "a.0", "2026-01-01 10:00:08,000 rotated")

    stream = logs.follow(folder, ["a"], from_sizes=logs.sizes(logs.files(folder)), sleep=sleep)
    assert texts([next(stream) for _ in range(3)]) == ["a.0 grown", "a.2 appeared", "a.0 rotated"]


def test_workers_in_several_zones_are_merged_by_what_their_lines_say(tmp_path: Path) -> None:
    write(tmp_path, "a.0", "2026-01-01 10:00:00,000+0000 one", "2026-01-01 10:00:02,000+0000 three")
    write(tmp_path, "b.0", "2026-01-01 19:00:01,000+0900 two", "[2026-01-01 19:00:03,000: INFO] four")

    assert [line.text.split()[-1] for line in logs.merged(logs.files(tmp_path))] == ["one", "two", "three", "four"]


def test_a_workers_own_lines_say_their_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = set()
    for zone in ("UTC", "Asia/Tokyo", "America/St_Johns"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        record = logging.makeLogRecord({"created": 1_767_225_600.25, "msecs": 250.0, "msg": "x"})
        moments.add(logs.moment(TextLines("a.0").format(record)))
    monkeypatch.undo()
    time.tzset()

    assert moments == {1_767_225_600.25}


def test_what_was_moved_aside_is_read_too(tmp_path: Path) -> None:
    for number, text in ((2, "one"), (1, "two")):
        (tmp_path / f"a.0.log.{number}").write_text(f"2026-01-01 10:00:0{3 - number}+0000 {text}\n")
    write(tmp_path, "a.0", "2026-01-01 10:00:03+0000 three")
    known = logs.files(tmp_path)

    assert texts(logs.merged(known)) == ["a.0 one", "a.0 two", "a.0 three"]
    assert texts(logs.merged(known, last=2)) == ["a.0 two", "a.0 three"]
    assert texts(logs.merged(known, since=logs.moment("2026-01-01 10:00:02+0000 x") or 0.0)) == ["a.0 two", "a.0 three"]


@settings(max_examples=30)
@given(
    steps=st.lists(st.integers(0, 5), min_size=1, max_size=3000),
    wide=st.integers(10, 300),
    part=st.floats(0, 1.1),
    stamped=st.integers(1, 7),
)
def test_since_finds_by_seeking_what_reading_everything_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], wide: int, part: float, stamped: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.0.log"
    begin = logs.moment("2026-01-01T00:00:00Z x") or 0.0
    at, lines = begin, []
    for number, step in enumerate(steps):
        at += step
        stamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S+0000")
        lines.append(f"{stamp if number % stamped == 0 else '  '} {number} {'x' * wide}")
    path.write_text("".join(f"{line}\n" for line in lines))
    since = begin + part * (at - begin)
    clock = logs.Clock()
    expected = [line for line in lines if clock.read(line) >= since]

    found = [line.text for line in logs.merged({"a.0": path}, since=since)]
    assert found[-len(expected) :] == expected if expected else found == []


def test_since_reads_a_small_part_of_a_long_log(tmp_path: Path) -> None:
    path = tmp_path / "a.0.log"
    with path.open("w") as file:
        for number in range(100_000):
            stamp = datetime.fromtimestamp(1_700_000_000 + number, UTC).strftime("%Y-%m-%d %H:%M:%S+0000")
            file.write(f"{stamp} {'x' * 100}\n")
    with path.open("rb") as file:
        offset = logs._offset_since(file, 1_700_000_000 + 99_990)

    assert path.stat().st_size - offset < 4 << 16
    assert len(logs.merged({"a.0": path}, since=1_700_000_000 + 99_990)) == 10


def test_a_line_without_an_end_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.0.log"
    path.touch()
    os.truncate(path, 4 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for since, last in ((0.0, 10), (1.0, None), (0.0, None)):
        assert (
            sum(len(line.text) for line in logs.merged({"thumbs.0": path}, since=since, last=last)) <= logs.MOST_BYTES
        )
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20, "less than a GiB, in KiB"


def test_a_long_audit_is_read_one_entry_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"
    with path.open("wb") as file:
        for number in range(2000):
            file.write(b'{"at":%d,"event":"x"}\n' % number)
        file.write(b"x" * (3 << 20) + b"\n")
        file.write(b'{"at":2000,"event":"last"}\n')
    path.chmod(0o600)
    audit = Audit(path)
    assert next(audit.entries())["at"] == 0
    assert [entry["at"] for entry in audit.read(last=2)] == [1999, 2000]
    assert len(audit.read(since=1990)) == 11
    assert audit.unreadable() >= 1


def test_what_is_read_and_what_is_followed_afterwards_are_every_line_once(tmp_path: Path) -> None:
    """Also the line that is half written, and those that come in between."""
    log = tmp_path / "g.0.log"
    log.write_text("one\ntwo\nhal")
    known = logs.files(tmp_path)
    begin = logs.sizes(known)
    with log.open("a") as file:
        file.write("f\nthree\n")
    before = texts(logs.merged(known, last=10, until=begin))
    followed = logs.follow(tmp_path, (), from_sizes=begin)
    assert before == ["g.0 one", "g.0 two"]
    assert [next(followed).text for _ in range(2)] == ["half", "three"]


@pytest.mark.parametrize("text", ["", "no end yet", "x" * 200_000])
def test_following_begins_behind_whole_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "g.0.log").write_text(text)
    [begin] = logs.sizes(logs.files(tmp_path)).values()
    assert begin == (0 if len(text) < 100_000 else len(text)), "a line without an end is shown in parts"
