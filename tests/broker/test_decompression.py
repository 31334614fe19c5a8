"""A small message that becomes a large one is refused before it takes the memory."""

from __future__ import annotations

import bz2
import lzma
import resource
import zlib
from collections.abc import Callable

import kombu.compression
import pytest

from fleet.broker import decompression, message_body
from fleet.broker.decompression import TooLong, decompress
from fleet.broker.delivery import Delivery, most_body_bytes
from fleet.broker.message_body import BadMessage, decoded

KINDS: dict[str, Callable[[bytes], bytes]] = {"gzip": zlib.compress, "bzip2": bz2.compress, "lzma": lzma.compress}


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_within_the_limit_is_decompressed(kind: str) -> None:
    assert decompress(KINDS[kind](b"[1]" * 1000), kind) == b"[1]" * 1000


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_refused_by_fleet_and_by_kombu_itself(kind: str) -> None:
    bomb = KINDS[kind](b" " * (200 << 20))
    assert len(bomb) < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for open_it in (decompress, kombu.compression.decompress):
        with pytest.raises(TooLong):
            open_it(bomb, kind)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 << 10, "in KiB"


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_is_cut_short_is_refused(kind: str) -> None:
    with pytest.raises((ValueError, EOFError)):
        decompress(KINDS[kind](bytes(range(256)) * 100)[:-20], kind)


def test_a_library_without_a_limit_is_stopped_on_the_way() -> None:
    fed: list[bytes] = []

    def make() -> Callable[[bytes], bytes]:
        def process(part: bytes) -> bytes:
            fed.append(part)
            return b" " * (10 << 20)

        return process

    with pytest.raises(TooLong):
        decompression._in_parts(make)(b"x" * 64_000)
    assert len(fed) == 13


def delivery(body: bytes, **headers: str) -> Delivery:
    return Delivery(
        "1",
        queue="q",
        body=body,
        headers=headers,
        properties={},
        content_type="application/json",
        content_encoding="utf-8",
    )


def test_a_bomb_in_a_message_buries_that_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompression, "MOST_BYTES", 1 << 20)
    with pytest.raises(BadMessage, match="it holds more than 1,048,576 bytes"):
        decoded(delivery(zlib.compress(b" " * (2 << 20)), compression="gzip"))


def test_a_body_that_is_too_long_buries_that_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_body, "MOST_BODY_BYTES", 100)
    with pytest.raises(BadMessage, match="longer than 100 bytes"):
        decoded(delivery(b"[" + b" " * 100 + b"]"))


@pytest.mark.parametrize(
    ("said", "limit"),
    [
        ("", 128 << 20),
        ("1048576", 1 << 20),
        ("0", 128 << 20),
        ("-5", 128 << 20),
        ("a lot", 128 << 20),
        ("9" * 30, 128 << 20),
    ],
)
def test_the_limit_is_what_the_workers_environment_says(said: str, limit: int) -> None:
    assert most_body_bytes({"FLEET_MAX_MESSAGE_BYTES": said}) == limit
