"""What every channel promises, on real brokers."""

from __future__ import annotations

import json
import select
from collections.abc import Iterator
from pathlib import Path

import kombu
import pytest
from kombu.transport.sqlalchemy import Channel

from fleet.broker.channels.base import ChannelLost
from fleet.core.spec import QueueSpec
from tests.brokers import Broker, filesystem, gather, stays_empty, values
from tests.conftest import eventually

KINDS = [
    pytest.param("redis", marks=pytest.mark.system),
    pytest.param("rabbitmq", marks=pytest.mark.system),
    "memory",
    "filesystem",
    "sqlalchemy",
]


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    kind = request.param
    if kind in ("redis", "rabbitmq"):
        yield Broker(kind, request.getfixturevalue(f"{kind}_url"))
    elif kind == "sqlalchemy":
        yield Broker(kind, f"sqla+sqlite:///{tmp_path}/broker.db")
        for engine, _ in Channel._engines.values():
            engine.dispose()
        Channel._engines.clear()
    else:
        yield Broker(kind, f"{kind}://", filesystem(tmp_path) if kind == "filesystem" else {})


def test_fetch_brings_no_more_than_asked_for(broker: Broker) -> None:
    broker.send(1, 2, 3, 4, 5)
    channel = broker.channel()
    first = gather(channel, 2)
    assert len(first) == 2
    rest = gather(channel, 3)
    assert sorted(values(first + rest)) == [1, 2, 3, 4, 5]
    channel.close()


def test_acknowledged_messages_do_not_come_back(broker: Broker) -> None:
    broker.send(1, 2, 3)
    channel = broker.channel()
    channel.ack(gather(channel, 3))
    channel.close()
    again = broker.channel()
    assert stays_empty(again)
    again.close()


def test_unacknowledged_messages_come_back_after_close(broker: Broker) -> None:
    broker.send(1, 2, 3)
    channel = broker.channel()
    taken = gather(channel, 3)
    channel.ack(taken[:1])
    channel.close()
    channel = broker.channel(replica="g.1")
    assert sorted(values(gather(channel, 2))) == sorted(values(taken[1:]))
    channel.close()


def test_given_back_messages_are_the_next_to_come_in_order(broker: Broker) -> None:
    broker.send(1, 2, 3, 4)
    channel = broker.channel()
    taken = gather(channel, 3)
    channel.give_back(taken)
    again = values(gather(channel, 4))
    if broker.keeps_order:
        assert again == [1, 2, 3, 4]
    assert sorted(again) == [1, 2, 3, 4]
    channel.close()


def test_given_back_message_reaches_another_replica(broker: Broker) -> None:
    broker.send("x")
    one, two = broker.channel(replica="g.0"), broker.channel(replica="g.1")
    taken = gather(one, 1)
    assert not one.fetch(0)
    one.give_back(taken)
    assert values(gather(two, 1)) == ["x"]
    one.close()
    two.close()


def test_idle_worker_is_woken_by_a_message(broker: Broker) -> None:
    channel = broker.channel()
    assert not channel.fetch(1)
    broker.send("wake")
    if fds := channel.wait_fds():
        eventually(lambda: select.select(fds, [], [], 0.2)[0])
    else:
        assert channel.poll_seconds is not None
    assert values(gather(channel, 1)) == ["wake"]
    channel.close()


def test_full_worker_keeps_nothing_from_others(broker: Broker) -> None:
    full, idle = broker.channel(replica="g.0", slots=1), broker.channel(replica="g.1", slots=1)
    broker.send("running")
    gather(full, 1)
    assert not full.fetch(0)
    broker.send(*range(3))
    for _ in range(3):
        idle.ack(gather(idle, 1))
    full.close()
    idle.close()


def test_all_queues_are_served(broker: Broker) -> None:
    names = [f"{broker.queue}-{letter}" for letter in "abc"]
    channel = broker.channel(*(QueueSpec(name) for name in names))
    for name in names:
        broker.send(name, queue=name)
    taken = gather(channel, 3)
    assert sorted(delivery.queue for delivery in taken) == names == sorted(values(taken))
    channel.close()


def test_queue_of_a_higher_priority_comes_first(broker: Broker) -> None:
    low, high = QueueSpec(f"{broker.queue}-low", 1), QueueSpec(f"{broker.queue}-high", 5)
    broker.send(*range(3), queue=low.name)
    broker.send(*range(3), queue=high.name)
    channel = broker.channel(low, high)
    if broker.kind == "rabbitmq":  # what is there at the time of the fetch: let the broker push first
        channel.give_back(gather(channel, 6))
    taken = gather(channel, 6) if broker.kind == "rabbitmq" else channel.fetch(6)
    if broker.kind != "rabbitmq":
        assert [delivery.queue for delivery in taken] == [high.name] * 3 + [low.name] * 3
    assert len(taken) == 6
    channel.close()


def test_publish_with_acks_replaces_a_message(broker: Broker) -> None:
    broker.send("first")
    channel = broker.channel()
    taken = gather(channel, 1)
    channel.publish(
        broker.queue,
        json.dumps("second"),
        headers={"x-why": "retry", "n": 1},
        properties={"correlation_id": "abc"},
        content_type="application/json",
        content_encoding="utf-8",
        acks=taken,
    )
    assert not channel.holds(taken[0])
    [again] = gather(channel, 1)
    assert values([again]) == ["second"]
    assert again.headers["x-why"] == "retry"
    assert again.properties["correlation_id"] == "abc"
    assert stays_empty(channel)
    channel.close()


def test_publish_reaches_a_queue_that_nobody_declared(broker: Broker) -> None:
    channel = broker.channel()
    dead = f"{broker.queue}.dead"
    channel.publish(dead, b"[1]", headers={}, properties={}, content_type="application/json", content_encoding="utf-8")
    reader = broker.channel(QueueSpec(dead), replica="g.1")
    assert values(gather(reader, 1)) == [[1]]
    reader.close()
    channel.close()


def test_binary_bodies_and_headers_arrive_as_they_were_sent(broker: Broker) -> None:
    channel = broker.channel()
    body = bytes(range(256))
    headers = {"text": "naïve ☃", "none": None, "list": [1, "b"], "empty": {}}
    channel.publish(
        broker.queue,
        body,
        headers=headers,
        properties={"reply_to": "there"},
        content_type="application/x-python-serialize",
        content_encoding="binary",
    )
    [got] = gather(channel, 1)
    assert got.body == body
    assert {name: got.headers.get(name) for name in headers} == headers
    assert (got.content_type, got.content_encoding) == ("application/x-python-serialize", "binary")
    assert got.properties["reply_to"] == "there"
    assert got.properties["delivery_info"]["routing_key"] == broker.queue
    channel.close()


def test_stock_kombu_consumer_takes_what_was_given_back(broker: Broker) -> None:
    broker.send("mine", "yours")
    channel = broker.channel()
    mine, yours = gather(channel, 2)
    channel.ack([mine])
    channel.give_back([yours])
    channel.close()
    left = values([yours])[0]
    with kombu.Connection(broker.url, transport_options=broker.options) as connection:
        queue = kombu.Queue(broker.queue, kombu.Exchange(broker.queue), routing_key=broker.queue)(connection)
        message = eventually(lambda: queue.get(no_ack=False))
        assert message.payload == left
        message.ack()
        assert queue.get() is None


def test_message_of_a_stock_kombu_producer_is_taken(broker: Broker) -> None:
    channel = broker.channel()
    with kombu.Connection(broker.url, transport_options=broker.options) as connection:
        queue = kombu.Queue(broker.queue, kombu.Exchange(broker.queue), routing_key=broker.queue)
        connection.Producer().publish(
            {"hello": [1, None]}, exchange=queue.exchange, routing_key=broker.queue, declare=[queue], headers={"h": 1}
        )
        [got] = gather(channel, 1)
    assert values([got]) == [{"hello": [1, None]}]
    assert got.headers["h"] == 1
    channel.close()


def test_closed_channel_says_that_it_is_lost_and_opens_again(broker: Broker) -> None:
    channel = broker.channel()
    channel.close()
    with pytest.raises(ChannelLost):
        channel.fetch(1)
    with pytest.raises(ChannelLost):
        channel.tend()
    assert not channel.fds()
    channel.open()
    broker.send(1)
    assert values(gather(channel, 1)) == [1]
    assert set(channel.wait_fds()) <= set(channel.fds())
    channel.close()
    channel.close()


def test_acknowledging_twice_or_after_giving_back_is_harmless(broker: Broker) -> None:
    broker.send(1, 2)
    channel = broker.channel()
    one, two = gather(channel, 2)
    channel.ack([one])
    channel.ack([one])
    channel.give_back([two])
    channel.ack([two])
    channel.flush()
    assert values(gather(channel, 1)) == values([two])
    channel.close()


def test_queue_that_is_added_is_served_and_one_that_is_taken_away_is_not(broker: Broker) -> None:
    old, kept, new = (QueueSpec(f"{broker.queue}-{name}") for name in ("old", "kept", "new"))
    channel = broker.channel(old, kept)
    assert not channel.fetch(1)
    broker.send("held", queue=old.name)
    [held] = gather(channel, 1)
    assert not channel.fetch(1)
    broker.send("there", queue=kept.name)
    broker.send("left behind", queue=old.name)
    channel.consume([kept, new])
    broker.send("fresh", queue=new.name)
    taken = gather(channel, 2)
    assert sorted(values(taken)) == ["fresh", "there"]
    assert stays_empty(channel)
    assert channel.holds(held)
    channel.ack([held, *taken])
    other = broker.channel(old, kept, new, replica="g.1")
    assert values(gather(other, 1)) == ["left behind"]
    assert stays_empty(other)
    other.close()
    channel.close()


def test_queues_may_change_again_and_again_without_losing_or_doubling_a_message(broker: Broker) -> None:
    specs = [QueueSpec(f"{broker.queue}-{letter}") for letter in "abc"]
    channel = broker.channel(specs[0])
    found: list[int] = []
    for turn in range(9):
        broker.send(3 * turn, 3 * turn + 1, 3 * turn + 2, queue=specs[turn % 3].name)
        channel.consume([specs[turn % 3], specs[(turn + 1) % 3]])
        taken = channel.fetch(2)
        found += values(taken)
        channel.ack(taken)
    channel.consume(specs)
    rest = gather(channel, 27 - len(found))
    assert sorted(found + values(rest)) == list(range(27))
    assert stays_empty(channel)
    channel.close()


def test_changed_queues_and_priorities_hold_after_a_new_connection(broker: Broker) -> None:
    first, low, high = (QueueSpec(f"{broker.queue}-{name}", rank) for rank, name in enumerate(("first", "low", "high")))
    channel = broker.channel(first)
    channel.close()
    channel.consume([low, high])
    channel.open()
    for spec in (first, low, high):
        broker.send(spec.name, queue=spec.name)
    assert sorted(values(gather(channel, 2))) == sorted([low.name, high.name])
    assert stays_empty(channel)
    channel.close()


def test_channel_without_queues_fetches_nothing_and_stays_up(broker: Broker) -> None:
    channel = broker.channel()
    assert not channel.fetch(1)
    channel.consume([])
    broker.send(1)
    assert stays_empty(channel)
    channel.tend()
    channel.consume([QueueSpec(broker.queue)])
    assert values(gather(channel, 1)) == [1]
    channel.close()


def test_backlog_counts_what_waits_in_the_consumed_queues(broker: Broker) -> None:
    other = QueueSpec(f"{broker.queue}-other")
    channel = broker.channel()
    assert channel.backlog() == 0
    broker.send(1, 2, 3)
    broker.send(4, queue=other.name)
    assert eventually(lambda: channel.backlog() == 3)
    channel.consume([QueueSpec(broker.queue), other])
    assert eventually(lambda: channel.backlog() == 4)
    channel.ack(gather(channel, 4))
    assert eventually(lambda: channel.backlog() == 0)
    channel.close()
    with pytest.raises(ChannelLost):
        channel.backlog()


GOOD = {
    "body": "e30=",
    "content-type": "application/json",
    "content-encoding": "utf-8",
    "headers": {"task": "t", "id": "i"},
    "properties": {
        "body_encoding": "base64",
        "delivery_tag": "tag",
        "delivery_info": {"exchange": "", "routing_key": "q"},
    },
}
UNREADABLE = [
    {**GOOD, "headers": [1]},
    {**GOOD, "properties": 5},
    {**GOOD, "properties": {}},
    {**GOOD, "body": 5},
    {"body": "e30="},
    [1],
    "text",
]


@pytest.mark.parametrize("kind", ["memory", "filesystem"])
@pytest.mark.parametrize("raw", UNREADABLE, ids=repr)
def test_a_message_that_kombu_cannot_read_is_said_and_the_next_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, raw: object
) -> None:
    broker = Broker(kind, f"{kind}://", filesystem(tmp_path) if kind == "filesystem" else {})
    channel = broker.channel()
    channel._channel._put(broker.queue, raw)
    broker.send(2)
    assert values(gather(channel, 1)) == [2]
    assert stays_empty(channel)
    assert f"queue {broker.queue}: dropped a message that kombu cannot read" in caplog.text
    channel.close()


@pytest.mark.parametrize("info", [None, True, [], {}, {"exchange": ""}, {"routing_key": "q"}], ids=repr)
def test_a_message_that_does_not_say_where_it_came_from_can_be_put_back(info: object) -> None:
    broker = Broker("memory", "memory://")
    channel = broker.channel()
    channel._channel._put(broker.queue, {**GOOD, "properties": {**GOOD["properties"], "delivery_info": info}})
    channel.give_back(gather(channel, 1))
    assert [delivery.headers["id"] for delivery in gather(channel, 1)] == ["i"]
    channel.close()
