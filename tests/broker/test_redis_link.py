"""What is told over a connection to Redis and not waited for: its answers stay apart from those of what is asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from redis.exceptions import ResponseError

from fleet.broker import redis_link
from fleet.broker.connection import RedisAccess
from fleet.broker.redis_link import Link, command


class Server:
    """A connection whose server answers with the number of the command, as far as ``answers`` says."""

    socket_timeout = 20.0

    def __init__(self) -> None:
        self.sent = self.read = 0
        self.answers = True
        self.waited: list[float] = []
        self.refuses: set[int] = set()

    def send_packed_command(self, packed: object, **_: object) -> None:
        self.sent += 1

    send_command = send_packed_command

    def can_read(self, *, timeout: float) -> bool:
        self.waited.append(timeout)
        return self.answers and self.read < self.sent

    def read_response(self) -> int:
        assert self.read < self.sent, "nobody was asked"
        self.read += 1
        if self.read in self.refuses:
            raise ResponseError("NOPERM")
        return self.read


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def link(server: Server) -> Link:
    return Link(cast("RedisAccess", SimpleNamespace(connect=lambda name: server)), name="")


def test_a_command_is_what_redis_reads() -> None:
    assert command("PUBLISH", "töpic", b"\x00") == b"*3\r\n$7\r\nPUBLISH\r\n$6\r\nt\xc3\xb6pic\r\n$1\r\n\x00\r\n"


def test_answers_to_what_was_told_come_before_that_of_the_next_question(link: Link, server: Server) -> None:
    heard: list[Any] = []
    server.refuses = {2}
    for _ in range(2):
        link.tell(b"", hear=heard.append)
    assert (server.sent, heard) == (2, [])
    assert link.call("PING") == 3
    assert heard[0] == 1
    assert isinstance(heard[1], ResponseError)
    assert len(heard) == 2


def test_what_has_come_is_taken_without_waiting(link: Link, server: Server) -> None:
    heard: list[Any] = []
    link.hear_now()
    link.tell(b"", hear=heard.append)
    server.answers = False
    link.hear_now()
    assert (heard, server.waited) == ([], [0])
    server.answers = True
    link.hear_now()
    assert heard == [1]


def test_an_answer_is_waited_for_since_it_was_asked_for(
    link: Link, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(redis_link.time, "monotonic", lambda: clock[0])
    server.answers = False
    link.tell(b"", hear=pytest.fail)
    for passed, left in ((5.0, 15.0), (60.0, 0.0)):
        clock[0] = 100.0 + passed
        with pytest.raises(redis.TimeoutError):
            link.hear()
        assert server.waited[-1] == left


def test_not_more_than_a_few_answers_are_owed(link: Link, server: Server) -> None:
    heard: list[Any] = []
    for _ in range(100):
        link.tell(b"", hear=heard.append)
    assert server.sent - len(heard) <= redis_link._MOST_TOLD


def test_whoever_hears_may_ask(link: Link) -> None:
    heard: list[Any] = []
    link.tell(b"", hear=lambda answer: heard.append((answer, link.call("PING"))))
    assert link.call("PING") == 3
    assert heard == [(1, 2)]
