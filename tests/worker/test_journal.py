"""Lines in the journal, read back by a stand-in that speaks journald's protocol."""

from __future__ import annotations

import array
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.worker.journal import Journal, datagram, priority

LONG = "x" * (4 << 20)


class StandIn:
    """The socket of a journal. Short datagrams come as they are, long ones as an open file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(10)

    def entry(self) -> dict[str, str]:
        data, rights, *_ = self.socket.recvmsg(1 << 16, socket.CMSG_SPACE(4))
        if rights:
            files = array.array("i")
            files.frombytes(rights[0][2])
            with os.fdopen(files[0], "rb") as file:
                file.seek(0)
                data = file.read()
        return parsed(data)


def parsed(data: bytes) -> dict[str, str]:
    """The fields of an entry, as journald's documentation has them."""
    fields = {}
    while data:
        line, _, rest = data.partition(b"\n")
        name, mark, value = line.partition(b"=")
        if not mark:
            (size,) = struct.unpack("<Q", rest[:8])
            value, rest = rest[8 : 8 + size], rest[8 + size :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        assert name.isascii()
        assert name.replace(b"_", b"").isalnum()
        assert name.upper() == name
        fields[name.decode()] = value.decode()
        data = rest
    return fields


class Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def stand_in(short_tmp: Path) -> Iterator[StandIn]:
    made = StandIn(short_tmp / "j")
    yield made
    made.socket.close()


@pytest.fixture
def kept() -> Kept:
    return Kept()


def journal(path: Path, kept: Kept, *, also: bool = False) -> logging.Logger:
    log = logging.Logger("shop.tasks")
    log.addHandler(Journal(fleet="shop", replica="thumbs.0", otherwise=kept, also=also, path=str(path)))
    return log


def test_a_line_is_an_entry_with_fields(stand_in: StandIn, kept: Kept) -> None:
    journal(stand_in.path, kept).warning("Grüße %s", "x=1")

    entry = stand_in.entry()
    assert entry["MESSAGE"] == "Grüße x=1"
    assert (entry["FLEET"], entry["FLEET_GROUP"], entry["FLEET_REPLICA"]) == ("shop", "thumbs", "thumbs.0")
    assert (entry["PRIORITY"], entry["LOGGER"], entry["SYSLOG_IDENTIFIER"]) == ("4", "shop.tasks", "fleet/thumbs.0")
    assert entry["CODE_FUNC"] == "test_a_line_is_an_entry_with_fields"
    assert kept.lines == []


def test_lines_within_a_value_forge_no_field(stand_in: StandIn, kept: Kept) -> None:
    journal(stand_in.path, kept).info("one\nPRIORITY=0\nFLEET=other")

    entry = stand_in.entry()
    assert entry["MESSAGE"] == "one\nPRIORITY=0\nFLEET=other"
    assert (entry["PRIORITY"], entry["FLEET"]) == ("6", "shop")


def test_an_exception_has_a_field_of_its_own(stand_in: StandIn, kept: Kept) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        journal(stand_in.path, kept).exception("it failed")

    entry = stand_in.entry()
    assert entry["MESSAGE"] == "it failed"
    assert entry["EXCEPTION"].startswith("Traceback")
    assert entry["EXCEPTION"].endswith("ValueError: no")


def test_a_line_too_long_for_a_datagram_arrives_as_a_file(stand_in: StandIn, kept: Kept) -> None:
    journal(stand_in.path, kept).info(LONG)

    assert stand_in.entry()["MESSAGE"] == LONG


def test_with_both_the_file_has_it_too(stand_in: StandIn, kept: Kept) -> None:
    journal(stand_in.path, kept, also=True).info("hello")

    assert stand_in.entry()["MESSAGE"] == "hello"
    assert kept.lines == ["hello"]


@pytest.mark.parametrize("also", [False, True])
def test_without_a_journal_the_file_has_it_once(short_tmp: Path, kept: Kept, also: bool) -> None:
    journal(short_tmp / "nobody", kept, also=also).info("hello")

    assert kept.lines == ["hello"]


def test_a_journal_that_reads_nothing_holds_nobody_up(stand_in: StandIn, kept: Kept) -> None:
    log = journal(stand_in.path, kept)
    for number in range(5000):  # more than its queue holds
        log.info("%d", number)

    assert kept.lines
    assert int(stand_in.entry()["MESSAGE"]) == 0
    assert kept.lines[-1] == "4999"


def test_a_journal_that_comes_back_is_used_again(stand_in: StandIn, kept: Kept) -> None:
    log = journal(stand_in.path, kept)
    log.info("one")
    stand_in.socket.close()
    stand_in.path.unlink()
    log.info("two")
    again = StandIn(stand_in.path)
    try:
        log.info("three")
        assert again.entry()["MESSAGE"] == "three"
    finally:
        again.socket.close()
    assert kept.lines == ["two"]


def test_a_child_has_a_socket_of_its_own(stand_in: StandIn, kept: Kept) -> None:
    log = journal(stand_in.path, kept)
    log.info("parent")
    child = os.fork()
    if not child:
        log.info("child")
        os._exit(0)
    os.waitpid(child, 0)

    assert [stand_in.entry()["MESSAGE"] for _ in range(2)] == ["parent", "child"]


def test_text_that_is_no_unicode_is_kept_readable() -> None:
    assert parsed(datagram({"MESSAGE": "a\udcffb"}))["MESSAGE"] == "a\\udcffb"


@pytest.mark.parametrize(
    ("level", "number"), [(logging.CRITICAL, 2), (logging.ERROR, 3), (25, 6), (logging.DEBUG, 7), (0, 7)]
)
def test_levels_are_priorities(level: int, number: int) -> None:
    assert priority(level) == number
