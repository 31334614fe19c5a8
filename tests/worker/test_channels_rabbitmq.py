"""What only the RabbitMQ channel promises: windows, hoarding, batches, dates, heartbeats, foreign declarations."""

from __future__ import annotations

import select
import time
from typing import Any

import kombu
import pytest

from fleet.core.desired import QueueSpec
from fleet.worker.channels import open_channel
from fleet.worker.channels import rabbitmq as module
from fleet.worker.delivery import ChannelLost
from tests.conftest import eventually
from tests.worker.brokers import Broker, gather, stays_empty, values
from tests.worker.holder import holder

pytestmark = pytest.mark.system


@pytest.fixture
def broker(rabbitmq_url: str) -> Broker:
    return Broker("rabbitmq", rabbitmq_url)


def unacknowledged(channel: Any) -> int:
    """How many messages the broker has pushed to this channel."""
    return len(channel._held) + sum(map(len, channel._buffers.values()))


def drop_connection(channel: Any) -> None:
    """Cut the socket under the channel, as a network does."""
    channel._connection.connection.sock.shutdown(2)


def test_broker_pushes_no_more_than_the_worker_can_hold(broker: Broker) -> None:
    broker.send(*range(20))
    channel = broker.channel(slots=3)
    gather(channel, 3)
    channel.tend()
    assert unacknowledged(channel) == 3
    assert broker.depth() == 17
    channel.close()


def test_window_grows_with_what_is_asked_for(broker: Broker) -> None:
    broker.send(*range(20))
    channel = broker.channel(slots=2)
    assert len(gather(channel, 2)) == 2
    assert len(gather(channel, 8)) == 8
    channel.close()


def test_full_worker_gives_back_what_was_pushed_too_early(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HOARD_SECONDS", 0.05)
    names = [f"{broker.queue}-{letter}" for letter in "ab"]
    channel = broker.channel(*(QueueSpec(name) for name in names), slots=1)
    for name in names:
        broker.send(1, 2, queue=name)
    gather(channel, 1)

    def only_the_running_one() -> bool:
        channel.tend()
        return unacknowledged(channel) == 1 and sum(broker.depth(name) or 0 for name in names) == 3

    eventually(only_the_running_one)
    assert not channel.wait_fds()
    assert len(gather(channel, 1)) == 1
    channel.close()


def test_idle_worker_that_only_tends_still_sees_the_message(broker: Broker) -> None:
    channel = broker.channel(slots=1)
    assert not channel.fetch(1)
    broker.send(1)
    channel.tend()
    eventually(lambda: select.select(channel.wait_fds(), [], [], 0.2)[0])
    assert values(gather(channel, 1)) == [1]
    channel.close()


def test_queue_with_other_arguments_is_used_as_it_is(broker: Broker) -> None:
    with kombu.Connection(broker.url) as connection:
        queue = kombu.Queue(broker.queue, kombu.Exchange(broker.queue), broker.queue, max_priority=5)
        queue(connection).declare()
    channel = broker.channel()
    broker.send(1)
    assert values(gather(channel, 1)) == [1]
    channel.publish(
        broker.queue, b"2", headers={}, properties={}, content_type="application/json", content_encoding="utf-8"
    )
    assert values(gather(channel, 1)) == [2]
    channel.close()


def test_queues_of_the_app_are_declared_as_the_app_says(broker: Broker) -> None:
    own = kombu.Queue(broker.queue, kombu.Exchange(f"{broker.queue}-x", type="topic"), routing_key="a.#")
    channel: Any = open_channel(
        broker.url, queues=[QueueSpec(broker.queue)], replica="g.0", fleet="f", entities={broker.queue: own}
    )
    channel.open()
    with kombu.Connection(broker.url) as connection:
        connection.Producer().publish(7, exchange=own.exchange, routing_key="a.b.c")
    assert values(gather(channel, 1)) == [7]
    channel.close()


def test_quorum_queue_works_and_counts_deliveries(broker: Broker) -> None:
    own = kombu.Queue(
        broker.queue, kombu.Exchange(broker.queue), broker.queue, queue_arguments={"x-queue-type": "quorum"}
    )
    channel: Any = open_channel(
        broker.url,
        queues=[QueueSpec(broker.queue)],
        replica="g.0",
        fleet="f",
        prefetch_hint=2,
        entities={broker.queue: own},
    )
    channel.open()
    broker.send("x")
    for _ in range(2):
        taken = gather(channel, 1)
        channel.give_back(taken)
    [taken_again] = gather(channel, 1)
    assert taken_again.redelivered
    assert taken_again.attempts == 2
    channel.ack([taken_again])
    channel.close()


def test_lost_connection_is_delivered_again_and_late_acknowledgements_are_harmless(broker: Broker) -> None:
    broker.send(1, 2)
    channel = broker.channel()
    taken = gather(channel, 2)
    drop_connection(channel)
    with pytest.raises(ChannelLost):
        eventually(lambda: channel.fetch(1) or channel.tend())
    channel.open()
    assert not any(channel.holds(delivery) for delivery in taken)
    channel.ack(taken)
    channel.give_back(taken)
    again = gather(channel, 2)
    assert values(again) == [1, 2]
    assert all(delivery.redelivered and delivery.attempts == 1 for delivery in again)
    channel.ack(again)
    channel.close()
    assert eventually(lambda: broker.depth() == 0)


def test_killed_holder_is_relieved_at_once(broker: Broker) -> None:
    broker.send(1, 2, 3)
    with holder(broker.url, broker.queue, fleet="f", replica="g.0") as dying:
        found: list[Any] = []
        eventually(lambda: found.extend(dying.ask("fetch 3")) or len(found) == 3)
        dying.kill()
    channel = broker.channel(replica="g.1")
    assert values(gather(channel, 3)) == [1, 2, 3]
    channel.close()


def test_connection_outlives_its_heartbeat_while_only_tended(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 1.0)
    broker.send(1)
    channel = broker.channel(slots=1)
    taken = gather(channel, 1)
    end = time.monotonic() + 4.5
    while time.monotonic() < end:
        channel.tend()
        time.sleep(0.1)
    channel.ack(taken)
    assert stays_empty(channel)
    channel.close()
    assert broker.depth() == 0


def test_compressed_message_arrives_plain(broker: Broker) -> None:
    channel = broker.channel()
    with kombu.Connection(broker.url) as connection:
        connection.Producer().publish({"a": 1}, routing_key=broker.queue, compression="zlib")
    [got] = gather(channel, 1)
    assert values([got]) == [{"a": 1}]
    assert "compression" not in got.headers
    channel.close()
