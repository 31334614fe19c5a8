"""fleet's own XML-RPC says and understands what the standard library's does."""

from __future__ import annotations

import io
import xmlrpc.client
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.backends.supervisor.xml_rpc import LINE_BYTES, CallFault, HttpError, _read_answer, request_of, value_of

# XML 1.0 has no word for other control characters, and reads a return as a line feed.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], exclude_characters="\ufffe\uffff"), max_size=20)
SCALARS = TEXT | st.booleans() | st.integers(-(2**31), 2**31 - 1)
VALUES = st.recursive(SCALARS, lambda one: st.lists(one, max_size=4) | st.dictionaries(TEXT, one, max_size=4))


@given(params=st.lists(VALUES, max_size=3))
def test_what_is_asked_is_what_the_standard_library_reads(params: list[Any]) -> None:
    assert xmlrpc.client.loads(request_of("a.b<&>", tuple(params)).decode()) == (tuple(params), "a.b<&>")


@given(value=VALUES | st.floats(allow_nan=False, allow_infinity=False) | st.none())
def test_what_the_standard_library_answers_is_understood(value: Any) -> None:
    answer = xmlrpc.client.dumps((value,), methodresponse=True, allow_none=True).encode()
    found = value_of(answer)
    assert found == value
    assert type(found) is type(value)


def test_text_without_a_type_is_text() -> None:
    inside = "<array><data><value>a &amp; b</value><value/></data></array>"
    assert value_of(
        f"<methodResponse><params><param><value>{inside}</value></param></params></methodResponse>".encode()
    ) == [
        "a & b",
        "",
    ]


def test_a_refusal_has_its_code_and_text() -> None:
    with pytest.raises(CallFault) as caught:
        value_of(xmlrpc.client.dumps(xmlrpc.client.Fault(10, "BAD_NAME: <x>")).encode())
    assert (caught.value.code, caught.value.text) == (10, "BAD_NAME: <x>")


@pytest.mark.parametrize(
    "answer",
    [b"", b"<a", b"<methodResponse/>", b"<a><value>1</value><value>2</value></a>", b"<value><int>x</int></value>"],
)
def test_what_is_no_answer_is_refused(answer: bytes) -> None:
    with pytest.raises(ValueError):
        value_of(answer)


def test_what_it_has_no_word_for_is_refused() -> None:
    with pytest.raises(ValueError, match="no word for"):
        request_of("a.b", (object(),))


@pytest.mark.parametrize(
    ("answer", "body", "stays"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", b"ab", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length:2\r\nConnection: Close\r\n\r\nabc", b"ab", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nab", b"ab", False),
        (b"HTTP/1.1 200\r\n\r\nuntil it ends", b"until it ends", False),
    ],
)
def test_the_end_of_an_answer_is_found(answer: bytes, body: bytes, stays: bool) -> None:
    assert _read_answer(io.BytesIO(answer)) == (body, stays)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionResetError),
        (b"SSH-2.0-OpenSSH\r\n", ConnectionError),
        (b"HTTP/1.1 fine\r\n\r\n", ConnectionError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", ConnectionError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nab", ConnectionError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", ConnectionError),
        (b"HTTP/1.1 200 OK\r\nA: " + b"a" * LINE_BYTES, ConnectionError),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"A%d: b\r\n" % one for one in range(200)), ConnectionError),
        (b"HTTP/1.1 500 Internal\r\nContent-Length: 0\r\n\r\n", HttpError),
    ],
    ids=["nothing", "other", "code", "short", "length", "chunks", "line", "headers", "error"],
)
def test_what_is_no_good_answer_of_http_is_refused(answer: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        _read_answer(io.BytesIO(answer))
