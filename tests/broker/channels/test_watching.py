"""What a server says by itself between its answers, split from them."""

from __future__ import annotations

import pytest
from redis.exceptions import InvalidResponse, ResponseError

from fleet.broker.channels.redis.watching import Push, Replies

PUSH = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$4\r\nq\x06\x163\r\n"


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (b"+OK\r\n", b"OK"),
        (b":12\r\n", 12),
        (b"_\r\n", None),
        (b"$-1\r\n", None),
        (b"*-1\r\n", None),
        (b"$0\r\n\r\n", b""),
        (b"$4\r\na\r\nb\r\n", b"a\r\nb"),
        (b"*2\r\n:1\r\n$1\r\nx\r\n", [1, b"x"]),
        (b"%1\r\n+proto\r\n:3\r\n", [b"proto", 3]),
        (b">2\r\n$10\r\ninvalidate\r\n_\r\n", [b"invalidate", None]),
    ],
)
def test_a_reply_is_found_wherever_it_is_cut(sent: bytes, meant: object) -> None:
    for cut in range(1, len(sent)):
        replies = Replies()
        assert replies.feed(sent[:cut]) == []
        assert replies.feed(sent[cut:] + b":7\r\n") == [meant, 7]


def test_a_push_is_told_from_an_answer() -> None:
    found = Replies().feed(b":3\r\n" + PUSH + b"$2\r\nhi\r\n")
    assert [isinstance(reply, Push) for reply in found] == [False, True, False]


def test_a_refusal_is_an_answer() -> None:
    (found,) = Replies().feed(b"-NOPERM this user has no permissions\r\n")
    assert isinstance(found, ResponseError)
    assert str(found) == "NOPERM this user has no permissions"


def test_what_is_no_reply_is_refused() -> None:
    with pytest.raises(InvalidResponse, match="begins with"):
        Replies().feed(b"HTTP/1.1 400 Bad Request\r\n")
