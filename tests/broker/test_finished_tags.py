"""What processes of slots have finished, noted where the next process of the worker finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.broker import finished_tags
from fleet.broker.finished_tags import MOST_RESULT_BYTES, PLACE_BYTES, PLACES, FinishedTags

FIRST = 1_795_000_000_000_000
"""Tags count from the server's clock in microseconds."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "g.0.finished"


def test_several_processes_note_into_one_file(path: Path) -> None:
    finished_tags.begin(path, holder="me")
    for tag in (FIRST + 2, FIRST, FIRST + PLACES - 1):
        FinishedTags(path).note(tag)
    assert finished_tags.read(path) == ("me", dict.fromkeys((str(FIRST), str(FIRST + 2), str(FIRST + PLACES - 1)), b""))


def test_a_later_tag_takes_the_place_of_one_that_is_long_over(path: Path) -> None:
    finished_tags.begin(path, holder="me")
    notes = FinishedTags(path)
    for tag in range(FIRST, FIRST + PLACES + 5):
        notes.note(tag)
    assert finished_tags.read(path) == ("me", dict.fromkeys(map(str, range(FIRST + 5, FIRST + PLACES + 5)), b""))


def test_a_result_is_kept_with_its_tag_where_there_is_room(path: Path) -> None:
    finished_tags.begin(path, holder="me")
    notes = FinishedTags(path)
    notes.note(FIRST, b"a result")
    notes.note(FIRST + PLACES, b"later")  # in the same place
    notes.note(FIRST + 1, b"x" * MOST_RESULT_BYTES)
    notes.note(FIRST + 2, b"x" * (MOST_RESULT_BYTES + 1))
    assert finished_tags.read(path) == (
        "me",
        {str(FIRST + 1): b"x" * MOST_RESULT_BYTES, str(FIRST + PLACES): b"later"},
    )


@pytest.mark.parametrize("interrupted", ["_LENGTH", "_TAG"])
def test_a_note_that_a_kill_interrupts_is_not_there(
    path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    class Killed(BaseException):
        pass

    class Killing:
        """Takes the place of a struct: whoever writes a value with it is killed before; 0 is written."""

        def __init__(self, real: Any) -> None:
            self.real, self.size = real, real.size

        def pack_into(self, buffer: Any, at: int, value: int) -> None:
            if value:
                raise Killed
            self.real.pack_into(buffer, at, value)

    finished_tags.begin(path, holder="me")
    notes = FinishedTags(path)
    notes.note(FIRST + 1, b"whole")
    with monkeypatch.context() as patch:
        patch.setattr(finished_tags, interrupted, Killing(getattr(finished_tags, interrupted)))
        with pytest.raises(Killed):
            notes.note(FIRST + 1 + PLACES, b"never whole")
    assert finished_tags.read(path) is None


def test_the_next_process_begins_with_none(path: Path) -> None:
    finished_tags.begin(path, holder="me")
    FinishedTags(path).note(FIRST)
    finished_tags.begin(path, holder="next")
    assert finished_tags.read(path) is None


@pytest.mark.parametrize("there", [None, b"", b"junk", b"FLTEND2\0" + b"\xff" * 512 + bytes(PLACE_BYTES * PLACES)])
def test_without_a_whole_file_nothing_is_noted_and_nothing_found(path: Path, there: bytes | None) -> None:
    if there is not None:
        path.write_bytes(there)
    if there is None or len(there) < 100:
        FinishedTags(path).note(FIRST)
    assert finished_tags.read(path) is None


def test_a_holder_whose_name_has_no_room_keeps_nothing(path: Path) -> None:
    finished_tags.begin(path, holder="x" * 501)
    FinishedTags(path).note(FIRST)
    assert finished_tags.read(path) is None
