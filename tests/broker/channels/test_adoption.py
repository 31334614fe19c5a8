"""A message that comes to a replica that waits begins at once, and stays safe while the server has not heard of it."""

from __future__ import annotations

import os
import select
import signal
from typing import Any

import pytest
import redis

from fleet.broker.channels.base import ChannelLost
from fleet.broker.channels.redis.turns import LARGE_BYTES
from fleet.core.spec import QueueSpec
from tests.broker.channels.test_redis import LEASE, cut_connections, held_by, keys, own_broker, short_lease
from tests.brokers import Broker, gather, values
from tests.conftest import eventually

pytestmark = pytest.mark.system


@pytest.fixture
def broker(redis_url: str) -> Broker:
    return own_broker(redis_url)


@pytest.fixture
def server(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def no_turn(*_: Any, **__: Any) -> Any:
    raise AssertionError("a turn was made")


def until_told(channel: Any) -> None:
    """Until the server has told this channel of something."""
    eventually(lambda: select.select(channel.wait_fds(), [], [], 0.2)[0])


def with_one_arrived(broker: Broker, *, slots: int = 1, value: Any = 1) -> Any:
    """A channel that waited for as many, and to which one message has come."""
    channel = broker.channel()
    assert not channel.fetch(slots)
    broker.send(value)
    until_told(channel)
    return channel


def held(server: Any, broker: Broker) -> list[bytes]:
    return [one for key in keys(server, broker, "fleet:held:*") for one in server.hvals(key)]


@pytest.mark.parametrize("slots", [1, 10])
def test_message_that_comes_needs_no_turn(
    broker: Broker, server: Any, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    channel = with_one_arrived(broker, slots=slots)
    with monkeypatch.context() as patch:
        patch.setattr(channel._turns, "take", no_turn)
        [one] = channel.fetch(slots)
    assert values([one]) == [1]
    assert channel.holds(one)
    eventually(lambda: len(held(server, broker)) == 1)
    assert not keys(server, broker, "fleet:inbox:*")
    channel.ack([one])
    channel.flush()
    assert not held(server, broker)
    broker.send(2)
    assert values(gather(channel, 1)) == [2]
    channel.close()
    assert broker.depth() == 1


def test_replica_with_room_looks_for_more_at_once(broker: Broker) -> None:
    channel = with_one_arrived(broker, slots=10)
    broker.send(2, 3)
    [one] = channel.fetch(10)
    assert channel.poll_seconds == 0.0
    assert values([one, *channel.fetch(9)]) == [1, 2, 3]
    assert channel.poll_seconds != 0.0
    assert channel.wait_fds()
    channel.close()


def test_message_of_a_more_urgent_queue_that_nobody_waits_for_goes_first(broker: Broker) -> None:
    high, low = QueueSpec(f"{broker.queue}-high", priority=5), QueueSpec(f"{broker.queue}-low")
    channel = broker.channel(high, low)
    assert not channel.fetch(10)
    broker.send("high", queue=high.name, priority=9)
    broker.send("low", queue=low.name)
    until_told(channel)
    assert values(channel.fetch(10)) == ["high", "low"]
    channel.close()


def test_replica_with_one_slot_keeps_nothing_of_its_other_queues(broker: Broker) -> None:
    queues = [QueueSpec(f"{broker.queue}-{letter}") for letter in "ab"]
    channel = broker.channel(*queues)
    assert not channel.fetch(1)
    broker.send("a", queue=queues[0].name)
    until_told(channel)
    assert values(channel.fetch(1)) == ["a"]
    broker.send("b", queue=queues[1].name)
    assert broker.depth(queues[1].name) == 1
    channel.close()


def test_large_message_has_a_list_of_its_own(broker: Broker, server: Any) -> None:
    channel = with_one_arrived(broker, value="x" * LARGE_BYTES)
    [one] = channel.fetch(1)
    channel.give_back([one])
    assert values(gather(channel, 1)) == ["x" * LARGE_BYTES]
    channel.close()


def test_answer_about_a_message_that_a_turn_has_taken_brings_it_no_second_time(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes to an inbox between the look at the answers and the turn, which empties all inboxes."""
    queues = [QueueSpec(f"{broker.queue}-{letter}") for letter in "abc"]
    channel = broker.channel(*queues)
    assert not channel.fetch(10)
    broker.send("a", queue=queues[0].name)
    broker.send("b", queue=queues[1].name)
    eventually(lambda: not broker.depth(queues[0].name) and not broker.depth(queues[1].name))
    collect = channel._inboxes.collect

    def collect_and_let_one_come(*arguments: Any) -> None:
        collect(*arguments)
        broker.send("c", queue=queues[2].name)
        eventually(lambda: not broker.depth(queues[2].name))

    with monkeypatch.context() as patch:
        patch.setattr(channel._inboxes, "collect", collect_and_let_one_come)
        taken = channel.fetch(10)
    assert sorted(values(taken)) == ["a", "b", "c"]
    until_told(channel)
    assert not channel.fetch(7)
    assert all(channel.holds(delivery) for delivery in taken)
    channel.close()


def test_server_that_has_forgotten_its_scripts_is_told_again(broker: Broker, server: Any) -> None:
    channel = with_one_arrived(broker)
    server.script_flush()
    [one] = channel.fetch(1)
    assert not channel.fetch(1)
    assert channel.holds(one)
    assert len(held(server, broker)) == 1
    channel.close()
    assert broker.depth() == 1


def test_kill_after_it_began_is_counted_as_a_crash(broker: Broker) -> None:
    with held_by(broker, lease=60) as dying:
        assert dying.ask("fetch 1") == []
        broker.send(1)
        eventually(lambda: dying.ask("fetch 1") == [1])
        dying.kill()
        channel = broker.channel(replica="g.0")
        [again] = channel.fetch(5)
        assert values([again]) == [1]
        assert (again.redelivered, again.attempts) == (True, 1)
        channel.close()


@pytest.mark.parametrize("is_told", [True, False])
def test_lost_connection_neither_loses_nor_doubles_what_began(
    broker: Broker, server: Any, monkeypatch: pytest.MonkeyPatch, *, is_told: bool
) -> None:
    """Either the server never heard of it, or its answer never came."""
    channel = with_one_arrived(broker, slots=10)

    def tell(packed: bytes, *, hear: Any) -> None:
        if is_told:
            channel._connections.main().tell(packed, hear=lambda _: None)

    with monkeypatch.context() as patch:
        patch.setattr(channel._connections, "tell", tell)
        [one] = channel.fetch(10)
    cut_connections(server, broker)
    with pytest.raises(ChannelLost):
        channel.fetch(9)
    channel.open()
    assert channel.holds(one)
    assert len(held(server, broker)) == 1
    assert not channel.fetch(9)
    channel.ack([one])
    channel.close()
    assert broker.depth() == 0
    assert not held(server, broker)


def test_message_that_could_not_be_told_is_not_begun_and_comes_again(broker: Broker, server: Any) -> None:
    channel = with_one_arrived(broker)

    def tell(*_: Any, **__: Any) -> None:
        raise redis.ConnectionError("gone")

    channel._connections.tell, whole = tell, channel._connections.tell
    with pytest.raises(ChannelLost):
        channel.fetch(1)
    channel._connections.tell = whole
    channel.open()
    assert values(gather(channel, 1)) == [1]
    assert len(held(server, broker)) == 1
    channel.close()
    assert broker.depth() == 1


def test_message_that_others_were_given_is_no_longer_ours(broker: Broker, server: Any) -> None:
    channel = with_one_arrived(broker)
    [inbox] = keys(server, broker, "fleet:inbox:*")
    server.rpoplpush(inbox, f"{broker.options['global_keyprefix']}{broker.queue}")
    [one] = channel.fetch(1)
    channel.tend()
    assert not channel.holds(one)
    channel.ack([one])
    channel.flush()
    assert broker.depth() == 1
    channel.close()


@pytest.mark.parametrize("first", ["fetch 1", "tend"])
def test_frozen_replica_does_not_begin_what_others_were_given_meanwhile(broker: Broker, first: str) -> None:
    with held_by(broker, lease=LEASE) as frozen:
        assert frozen.ask("fetch 1") == []
        os.kill(frozen.pid, signal.SIGSTOP)
        broker.send(1)
        eventually(lambda: broker.depth() == 0)
        other = short_lease(broker)
        taken = gather(other, 1)
        assert values(taken) == [1]
        os.kill(frozen.pid, signal.SIGCONT)
        assert not frozen.ask(first)
        assert frozen.ask("fetch 1") == []
        assert other.holds(taken[0])
        other.ack(taken)
        other.close()
        assert frozen.ask("fetch 1") == []
    assert broker.depth() == 0
