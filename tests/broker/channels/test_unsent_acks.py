"""What a killed process leaves of finished tasks: whole, whatever moment it was killed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fleet.broker.channels.redis import unsent_acks
from fleet.broker.channels.redis.unsent_acks import MOST_END_BYTES, End, Left, UnsentAcks, read_left

ENDS = (End("1", b"one"), End("2", b""), End("3", b"x" * 1000))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "g.0.acks"


def begun(path: Path) -> UnsentAcks:
    kept = UnsentAcks(path, holder="h")
    for end in ENDS:
        assert kept.add_end(end.tag, end.result)
    return kept


class Killed(BaseException):
    """The process ends here."""


class Killing:
    """Takes the place of a struct: whoever writes with it is killed before."""

    def __init__(self, real: Any) -> None:
        self.size = real.size

    def pack_into(self, *_: Any) -> None:
        raise Killed


@pytest.mark.parametrize("at", ["_END", "_COUNT"])
def test_an_end_that_a_kill_interrupts_is_not_there(path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    kept = begun(path)
    with monkeypatch.context() as patch:
        patch.setattr(unsent_acks, at, Killing(getattr(unsent_acks, at)))
        with pytest.raises(Killed):
            kept.add_end("4", b"never whole")
    assert read_left(path) == Left("h", (), ENDS)


def test_ends_stay_when_acknowledgements_come_and_go(path: Path) -> None:
    kept = begun(path)
    kept.add("7")
    assert read_left(path) == Left("h", ("7",), ENDS)
    kept.replace(())
    assert read_left(path) == Left("h", (), ENDS)
    kept.forget_ends()
    assert read_left(path) is None


def test_what_has_no_room_is_refused_and_there_is_room_again_later(path: Path) -> None:
    kept = UnsentAcks(path, holder="h")
    most = b"x" * (MOST_END_BYTES - 12)
    assert not kept.add_end("1", most + b"x")
    assert kept.add_end("1", most)
    assert not kept.add_end("2", b"")
    assert read_left(path) == Left("h", (), (End("1", most),))
    kept.forget_ends()
    assert kept.add_end("2", b"two")
    assert read_left(path) == Left("h", (), (End("2", b"two"),))


def test_nobody_else_may_read_it(path: Path) -> None:
    begun(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_of_an_earlier_version_tells_its_acknowledgements(path: Path) -> None:
    kept = begun(path)
    kept.add("7")
    data = path.read_bytes()
    path.write_bytes(b"FLTACK1\0" + data[8 : unsent_acks._USED_AT])
    assert read_left(path) == Left("h", ("7",))


@pytest.mark.parametrize("bad", [b"\xff" * 8, (50).to_bytes(8, "little"), (MOST_END_BYTES + 1).to_bytes(8, "little")])
def test_a_damaged_count_of_ends_makes_it_say_nothing(path: Path, bad: bytes) -> None:
    begun(path)
    data = bytearray(path.read_bytes())
    data[unsent_acks._USED_AT : unsent_acks._ENDS_AT] = bad
    path.write_bytes(data)
    assert read_left(path) is None
