"""Replies of Redis read straight from a socket."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import redis
from redis.exceptions import InvalidResponse, ResponseError

from fleet.broker.channels.redis.large_replies import ReplyReader

LARGE = b"x\r\n$" * 50_000


def replies_to(sent: bytes, count: int, *, piece: int) -> list[Any]:
    """What is read, when it comes in pieces of this size."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        for start in range(0, len(sent), piece):
            theirs.sendall(sent[start : start + piece])
        theirs.close()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        replies = ReplyReader(ours)
        return [replies.read() for _ in range(count)]
    finally:
        ours.close()
        thread.join()


@pytest.mark.parametrize("piece", [7, 4096, 1 << 20])
def test_replies_are_cut_where_they_end(piece: int) -> None:
    sent = b"+OK\r\n:12\r\n*3\r\n$%d\r\n%b\r\n$-1\r\n$0\r\n\r\n*-1\r\n*0\r\n" % (len(LARGE), LARGE)
    assert replies_to(sent, 5, piece=piece) == [b"OK", 12, [LARGE, None, b""], None, []]


def test_an_error_is_a_value() -> None:
    [(first, second)] = replies_to(b"*2\r\n-WRONGTYPE no list\r\n:1\r\n", 1, piece=100)
    assert isinstance(first, ResponseError)
    assert "no list" in str(first)
    assert second == 1


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", redis.ConnectionError),
        (b"$10\r\nabc", redis.ConnectionError),
        (b"*2\r\n:1\r\n", redis.ConnectionError),
        (b"?what\r\n", InvalidResponse),
        (b"+" * 100_000, InvalidResponse),
    ],
)
def test_what_ends_early_or_is_no_reply_is_an_error(sent: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        replies_to(sent, 1, piece=1 << 20)
