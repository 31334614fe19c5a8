"""Large messages on Redis: they go another way than small ones, with the same promises."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet.broker.channels.base import ChannelLost
from fleet.broker.channels.redis.turns import LARGE_BYTES, MOST_BYTES_AHEAD
from tests.broker.channels.test_redis import (
    LEASE,
    cut_connections,
    held_by,
    keys,
    one_survives_an_emptied_server,
    own_broker,
    short_lease,
    successor,
)
from tests.brokers import Broker, gather
from tests.conftest import eventually

pytestmark = pytest.mark.system

PADDING = "x" * LARGE_BYTES


@pytest.fixture(name="broker")
def large_broker(redis_url: str) -> Broker:
    return own_broker(redis_url)


@pytest.fixture(name="server")
def redis_server(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def send(broker: Broker, *numbers: int, priority: int | None = None) -> None:
    """Large messages, each with a number."""
    broker.send(*([number, PADDING] for number in numbers), priority=priority)


def numbers(deliveries: Any) -> list[int]:
    return [int(delivery.body[1 : delivery.body.index(b",")]) for delivery in deliveries]


def expecting(broker: Broker, channel: Any) -> Any:
    """The channel, after a large message: it expects more of them."""
    send(broker, -1)
    channel.ack(gather(channel, 1))
    channel.flush()
    return channel


def apart(server: Any, broker: Broker) -> list[bytes]:
    """The lists in which the server keeps what is held."""
    return [key for key in keys(server, broker, "fleet:held:*") if server.type(key) == b"list"]


def test_they_come_in_order_urgent_ones_first_and_leave_nothing(broker: Broker, server: Any) -> None:
    channel = expecting(broker, broker.channel())
    send(broker, 4, 5, priority=6)
    send(broker, 1, 2, 3)
    taken = channel.fetch(2) + channel.fetch(9)
    assert numbers(taken) == [1, 2, 3, 4, 5]
    assert len(apart(server, broker)) == 5
    channel.ack(taken[:4])
    assert channel.fetch(1) == []
    assert len(apart(server, broker)) == 1
    channel.ack(taken[4:])
    channel.close()
    assert not keys(server, broker, "fleet:held:*")
    assert broker.depth() == 0


def test_small_and_large_ones_follow_each_other(broker: Broker, server: Any) -> None:
    channel = broker.channel()
    for number in range(6):
        broker.send([number, PADDING if number % 3 else ""])
    taken = [delivery for _ in range(6) for delivery in channel.fetch(1)]
    assert numbers(taken) == list(range(6))
    channel.ack(taken)
    channel.close()
    assert not keys(server, broker, "fleet:held:*")


def test_no_more_than_so_much_is_taken_ahead(broker: Broker) -> None:
    channel = expecting(broker, broker.channel())
    most = MOST_BYTES_AHEAD // LARGE_BYTES
    send(broker, *range(most + 10))
    assert 1 < len(channel.fetch(1, ahead=most + 9)) < most
    channel.close()
    assert broker.depth() == most + 10


@pytest.mark.parametrize("unmarked", [False, True])
def test_they_are_given_back_to_the_head(broker: Broker, server: Any, unmarked: bool) -> None:
    channel = expecting(broker, broker.channel())
    send(broker, 1, 2, 3)
    channel.give_back(channel.fetch(2), unmarked=unmarked)
    assert not apart(server, broker)
    taken = channel.fetch(3)
    assert numbers(taken) == [1, 2, 3]
    assert [delivery.redelivered for delivery in taken] == [not unmarked, not unmarked, False]
    channel.close()
    assert broker.depth() == 3
    assert not apart(server, broker)


def test_one_is_put_off(broker: Broker, server: Any) -> None:
    channel = expecting(broker, broker.channel())
    send(broker, 1)
    assert channel.delay(channel.fetch(1)[0], due=time.time() + 0.2)
    assert not apart(server, broker)
    assert numbers(gather(channel, 1)) == [1]
    channel.close()


def test_one_is_answered_and_forgotten_in_one_step(broker: Broker, server: Any) -> None:
    channel = expecting(broker, broker.channel())
    send(broker, 1)
    acks = channel.fetch(1)
    same = {"content_type": "application/json", "content_encoding": "utf-8", "headers": {}, "properties": {}}
    channel.publish(f"{broker.queue}-dead", b"[1, 2]", acks=acks, **same)
    assert not keys(server, broker, "fleet:held:*")
    assert broker.depth(f"{broker.queue}-dead") == 1
    channel.close()


def test_a_killed_replica_gives_back_what_it_had_not_acknowledged(broker: Broker, server: Any, tmp_path: Path) -> None:
    unsent = tmp_path / "g.0.acks"
    send(broker, *range(6))
    with held_by(broker, lease=60, unsent=unsent) as dying:
        dying.ask("fetch 1")
        dying.ask("fetch 4")
        assert len(apart(server, broker)) == 4
        dying.ask("ack 3")
        dying.kill()
    channel = successor(broker, unsent=unsent, ran=None)
    assert not apart(server, broker)
    taken = channel.fetch(9)
    assert numbers(taken) == [3, 4, 5]
    assert [delivery.attempts for delivery in taken] == [1, 1, 0]
    channel.ack(taken)
    channel.close()
    assert not keys(server, broker, "fleet:held:*")


def test_a_lease_that_ran_out_gives_them_to_another_replica(broker: Broker, server: Any) -> None:
    send(broker, 1, 2)
    with held_by(broker) as dying:
        dying.ask("fetch 1")
        dying.ask("fetch 1")
        dying.kill()
        other = short_lease(broker)
        taken: list[Any] = []

        def restored() -> bool:
            other.tend()
            taken.extend(other.fetch(9))
            return len(taken) == 2

        eventually(restored, every=LEASE / 10)
    assert sorted(numbers(taken)) == [1, 2]
    assert [delivery.attempts for delivery in taken] == [1, 1]
    other.close()


def test_what_was_taken_and_never_seen_goes_back_after_a_lost_connection(broker: Broker, server: Any) -> None:
    channel = expecting(broker, broker.channel())
    send(broker, 1, 2)
    taken = channel.fetch(2)
    del channel._held._messages[taken[0].tag]
    cut_connections(server, broker)
    with pytest.raises(ChannelLost):
        channel.fetch(1)
    channel.open()
    assert numbers(channel.fetch(2)) == [1]
    assert channel.holds(taken[1])
    channel.close()
    assert broker.depth() == 2


def test_a_server_that_came_back_empty_gets_them_again(redis_url: str, server: Any) -> None:
    broker = Broker("redis", redis_url.removesuffix("/0") + "/11")
    channel = expecting(broker, broker.channel())
    send(broker, 1)
    one_survives_an_emptied_server(broker, channel, server)


def test_one_that_another_worker_took_meanwhile_is_not_missed(
    broker: Broker, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = expecting(broker, broker.channel())
    send(broker, 1, 2)
    run = channel._connections.main().run_prepared

    def run_and_lose_one(*command: Any) -> Any:
        reply = run(*command)
        server.rpop(f"{broker.options['global_keyprefix']}{broker.queue}")
        return reply

    monkeypatch.setattr(channel._connections.main(), "run_prepared", run_and_lose_one)
    assert numbers(channel.fetch(2)) == [2]
    monkeypatch.undo()
    assert channel.fetch(1) == []
    assert len(server.hkeys(channel._keys.held)) == 1
    channel.close()
    assert broker.depth() == 1
    assert not keys(server, broker, "fleet:held:*")
