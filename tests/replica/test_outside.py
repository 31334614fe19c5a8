"""Asking something outside whether it answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from fleet.core.text.outside_url import url_problem
from fleet.replica.outside import why_silent


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that gives everyone one answer. Yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1024)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("scheme", "answer", "why"),
    [
        ("redis", b"+PONG\r\n", ""),
        ("redis", b"-NOAUTH Authentication required.\r\n", ""),
        ("redis", b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING Redis is loading"),
        ("redis", b"", "it closed the connection"),
        ("http", b"HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("http", b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", ""),
        ("http", b"HTTP/1.1 503 Unavailable\r\n\r\n", "status 503"),
        ("http", b"nonsense\r\n", "nonsense"),
    ],
)
def test_what_counts_as_an_answer(scheme: str, answer: bytes, why: str) -> None:
    with answering(answer) as port:
        said = why_silent(f"{scheme}://user:pw@127.0.0.1:{port}/x", timeout_seconds=30)
    assert said.startswith(why) if why else said == ""


@pytest.mark.parametrize("scheme", ["tcp", "amqp", "amqps", "rediss"])
def test_an_open_port_is_enough_for_the_others(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}"
        assert why_silent(url, timeout_seconds=30) == ""
    assert "refused" in why_silent(url, timeout_seconds=30)


@pytest.mark.parametrize(
    "url", ["", "x", "tcp://db", "tcp://", "ftp://db:1", "tcp://db:x", "unix:", "redis://", "tcp://[::"]
)
def test_what_is_no_url_is_said(url: str) -> None:
    assert url_problem(url)
    assert why_silent(url, timeout_seconds=1) == url_problem(url)
