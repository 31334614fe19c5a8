"""A worker's place on a real Redis: what it sends is what Celery's monitors read, and it keeps only what it needs."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.transport.redis import Channel

from fleet.worker.control.mailbox import Mailbox
from tests.conftest import PATIENCE, eventually
from tests.worker.remotes import NODE, PlainRemote


@pytest.fixture
def prefix() -> str:
    return f"{uuid.uuid4()}:"


@pytest.fixture
def mailbox(redis_url: str, prefix: str) -> Iterator[Mailbox]:
    options = {"global_keyprefix": prefix}
    box = Mailbox(redis_url, NODE, PlainRemote(), options=options, dispatch=lambda *_: None)  # type: ignore[arg-type]
    box.drain()
    yield box
    box.close()


def test_a_monitor_reads_an_event_that_another_connection_carries(
    mailbox: Mailbox, redis_url: str, prefix: str
) -> None:
    app = Celery(broker=redis_url, broker_transport_options={"global_keyprefix": prefix})
    found: list[dict[str, Any]] = []
    body = {"type": "worker-heartbeat", "hostname": NODE, "clock": 7, "timestamp": 1.0, "utcoffset": 0, "pid": 1}
    topics, payload = mailbox.sealed_event(body, "worker.heartbeat")

    with app.connection() as connection, redis.Redis.from_url(redis_url) as client:
        receiver = app.events.Receiver(connection, handlers={"*": found.append})
        with receiver.consumer_context() as (link, _, _):
            with suppress(TimeoutError):
                link.drain_events(timeout=0.1)  # that subscribes
            assert sum(client.publish(topic, payload) for topic in topics) == 1
            eventually(lambda: [link.drain_events(timeout=PATIENCE), found][1])
    assert {name: found[0][name] for name in body if name != "clock"} == {
        name: value for name, value in body.items() if name != "clock"
    }


def test_it_closes_what_is_only_for_sending_and_opens_it_again(mailbox: Mailbox, redis_url: str) -> None:
    pool = mailbox._node.channel._pool
    mailbox.publish({"type": "worker-online"}, "worker.online")
    before = mailbox.fds()
    assert [one._sock is not None for one in pool._available_connections] == [True]
    mailbox.rest()
    assert [one._sock is not None for one in pool._available_connections] == [False]
    assert mailbox.fds() == before, "commands still come"
    mailbox.publish({"type": "worker-offline"}, "worker.offline")


def test_whoever_asked_does_not_wait_for_the_reading_of_answers_to_end(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kombu would: for the rest of the second that its BRPOP takes."""
    read_while_closing: list[bool] = []
    read = Channel._brpop_read

    def noted(channel: Channel, **options: object) -> object:
        read_while_closing.append(channel._closing)
        return read(channel, **options)

    monkeypatch.setattr(Channel, "_brpop_read", noted)
    mailbox.ask_all("hello", {"from_node": NODE, "revoked": []}, quiet_seconds=0.05, until=math.inf)
    assert True not in read_while_closing


def test_whoever_asked_waits_for_no_more_answers_than_there_can_be(mailbox: Mailbox) -> None:
    """Redis says how many were asked; without that it would wait for ever here."""
    assert mailbox.ask_all("hello", {"from_node": NODE}, quiet_seconds=1e6, until=math.inf) == [{NODE: None}]


def test_a_connection_that_the_server_has_ended_is_an_error_and_never_a_deaf_mailbox(
    mailbox: Mailbox, redis_url: str
) -> None:
    """redis-py would connect again by itself, and kombu would go on to wait on the old socket."""
    with redis.Redis.from_url(redis_url) as client:
        [number] = [each["id"] for each in client.client_list(_type="pubsub") if each["laddr"] and each["psub"] != "0"]
        client.client_kill_filter(_id=number)
    with pytest.raises(redis.ConnectionError):
        eventually(lambda: mailbox.drain())
