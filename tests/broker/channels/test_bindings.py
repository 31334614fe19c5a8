"""Queues on Redis are bound as kombu's consumers bind them, and asked about first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import kombu
import pytest
import redis

from fleet.broker.channels.redis import bindings
from fleet.broker.channels.redis.bindings import bind
from fleet.broker.channels.redis.scripts import Link
from fleet.broker.connection import kombu_connection, redis_access
from fleet.broker.queues import entity
from tests.brokers import Broker

pytestmark = pytest.mark.system

BOTH = [kombu.binding(kombu.Exchange("x"), "a"), kombu.binding(kombu.Exchange("x"), "b")]
QUEUES = {
    "usual": entity("usual", {}),
    "by another key": kombu.Queue("q", kombu.Exchange("many", type="direct"), routing_key="some.key"),
    "topic": kombu.Queue("q", kombu.Exchange("t", type="topic"), routing_key="a.#"),
    "two bindings": kombu.Queue("q", BOTH),
    "expires": kombu.Queue("q", kombu.Exchange("e"), routing_key="q", expires=60),
    "fanout": kombu.Queue("q", kombu.Exchange("all", type="fanout")),
}
ASKED = ("usual", "by another key")


class Bound:
    """A queue on a server, under a prefix of its own. ``declared``: how often kombu was used."""

    def __init__(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broker = broker
        self.options = {"global_keyprefix": f"{broker.queue}/"}
        self.declared = 0

        def make(*args: Any, **more: Any) -> Any:
            self.declared += 1
            return kombu_connection(*args, **more)

        monkeypatch.setattr(bindings, "kombu_connection", make)

    def bind(self, queue: kombu.Queue) -> dict[str, str]:
        access = redis_access(self.broker.url, self.options)
        link = Link(access, name="binder")
        try:
            return bind(self.broker.url, {"called": queue}, options=self.options, link=link, access=access)
        finally:
            link.close()

    def bindings(self) -> dict[bytes, set[bytes]]:
        with redis.Redis.from_url(self.broker.url) as client:
            names = client.keys(f"{self.broker.queue}/_kombu.binding*")
            return {name: client.smembers(name) for name in names if client.type(name) == b"set"}

    def forget(self) -> None:
        with redis.Redis.from_url(self.broker.url) as client:
            for name in client.scan_iter(f"{self.broker.queue}/*"):
                client.delete(name)


@pytest.fixture
def bound(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bound]:
    found = Bound(Broker("redis", redis_url), monkeypatch)
    yield found
    found.forget()


@pytest.mark.parametrize("kind", QUEUES)
def test_what_is_bound_already_is_bound_by_kombu_again_only_where_it_does_more(bound: Bound, kind: str) -> None:
    bound.bind(QUEUES[kind])
    first, declared = bound.bindings(), bound.declared
    bound.bind(QUEUES[kind])
    assert first
    assert bound.bindings() == first
    assert (declared, bound.declared) == (1, 1 if kind in ASKED else 2)


@pytest.mark.parametrize("kind", ASKED)
def test_a_binding_that_was_removed_is_made_again(bound: Bound, kind: str) -> None:
    bound.bind(QUEUES[kind])
    first = bound.bindings()
    bound.forget()
    bound.bind(QUEUES[kind])
    assert bound.bindings() == first


@pytest.mark.parametrize("kind", ASKED)
def test_what_kombus_consumer_has_bound_is_known(bound: Bound, kind: str) -> None:
    with kombu_connection(bound.broker.url, options=bound.options) as connection:
        QUEUES[kind](connection.default_channel).declare()
    bound.bind(QUEUES[kind])
    assert bound.declared == 0


def test_a_topic_is_heard_for_the_name_that_the_manifest_gives(bound: Bound) -> None:
    topics = bound.bind(QUEUES["fanout"])
    assert set(topics.values()) == {"called"}
    assert bound.bind(QUEUES["fanout"]) == topics, "also where it is bound already"


def test_a_user_who_may_not_ask_binds(bound: Bound, monkeypatch: pytest.MonkeyPatch) -> None:
    bound.bind(QUEUES["usual"])
    monkeypatch.setattr(Link, "ask_many", lambda _self, commands: [redis.ResponseError("NOPERM")] * len(commands))
    bound.bind(QUEUES["usual"])
    assert bound.declared == 2
