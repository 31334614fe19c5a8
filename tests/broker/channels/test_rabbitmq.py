"""What only the RabbitMQ channel promises: windows, hoarding, batches, dates, heartbeats, foreign declarations."""

from __future__ import annotations

import random
import select
import time
from decimal import Decimal
from struct import pack
from typing import Any

import kombu
import pytest
from amqp.basic_message import Message

from fleet.broker.channels import open_channel
from fleet.broker.channels.base import ChannelLost
from fleet.broker.channels.rabbitmq import channel as module
from fleet.broker.channels.rabbitmq import prefetch, window
from fleet.broker.channels.rabbitmq.frames import Pushed
from fleet.broker.channels.rabbitmq.publisher import DECLARED_SECONDS, delay_bucket_seconds, delay_queue_arguments
from fleet.core.spec import QueueSpec
from tests.brokers import Broker, gather, stays_empty, values
from tests.conftest import PATIENCE, eventually
from tests.worker.holder import holder

pytestmark = pytest.mark.system


@pytest.fixture
def broker(rabbitmq_url: str) -> Broker:
    return Broker("rabbitmq", rabbitmq_url)


def unacknowledged(channel: Any) -> int:
    """How many messages the broker has pushed to this channel."""
    return len(channel._held) + channel.pushed


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
    monkeypatch.setattr(prefetch, "HOARD_SECONDS", 0.05)
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


def test_what_is_handed_back_is_no_death_on_a_quorum_queue_either(broker: Broker) -> None:
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
    assert taken_again.attempts == 0, "the broker counts what is handed back in good order, too"
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
    assert all(delivery.redelivered and delivery.attempts == 0 for delivery in again)
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
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 2.0)
    broker.send(1)
    channel = broker.channel(slots=1)
    taken = gather(channel, 1)
    end = time.monotonic() + 5.5
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


def put_off_all(broker: Broker, count: int, seconds: float) -> float:
    """Send so many messages and put all of them off; when they are due. 0 where the first were back before the last
    was put off.
    """
    broker.send(*range(count))
    channel = broker.channel(slots=2)
    began = time.time()
    due = began + seconds
    put_off = 0
    while put_off < count:
        for delivery in channel.fetch(2):
            if not channel.delay(delivery, due=due):
                channel.close()
                return 0.0
            put_off += 1
        channel.flush()
    eventually(lambda: channel.tend() or unacknowledged(channel) == 0)
    channel.close()
    left = broker.depth()
    if time.time() >= began + seconds / 2:  # no queue brings its messages back before half of the time has passed
        return 0.0
    assert left == 0
    return due


def test_messages_with_a_date_wait_in_the_broker_and_outlive_the_worker(rabbitmq_url: str) -> None:
    due = 0.0
    for seconds in (7.0, 20.0, 70.0, 260.0):  # as long as this machine needs today
        broker = Broker("rabbitmq", rabbitmq_url)
        if due := put_off_all(broker, 5000, seconds):
            break
    assert due, "messages came back although they were not due, or were never put off"
    other = broker.channel(replica="g.1", slots=500)
    found: list[Any] = []

    def all_are_back() -> bool:
        taken = other.fetch(500)
        other.tend()
        found.extend(delivery for delivery in taken if not other.delay(delivery, due=due))
        return len(found) == 5000

    eventually(all_are_back, within=400, every=0.01)
    assert sorted(values(found)) == list(range(5000))
    other.ack(found)
    other.close()


def test_message_that_waited_in_the_broker_is_the_same_but_for_its_death_there(broker: Broker) -> None:
    headers = {"text": "naïve ☃", "none": None, "list": [1, "b"], "table": {"a": {"b": 2}}, "big": 2**40, "yes": True}
    channel = broker.channel()
    channel.publish(
        broker.queue,
        bytes(range(256)),
        headers=headers,
        properties={"reply_to": "there", "correlation_id": "abc", "priority": 3},
        content_type="application/x-python-serialize",
        content_encoding="binary",
    )
    [before] = gather(channel, 1)
    assert channel.delay(before, due=time.time() + 7.5)
    [after] = gather(channel, 1)
    assert {name: value for name, value in after.headers.items() if "death" not in name} == headers
    assert after.body == before.body
    for name in ("reply_to", "correlation_id", "priority", "content_type", "content_encoding", "delivery_mode"):
        assert after.properties[name] == before.properties[name]
    assert after.properties["delivery_info"]["routing_key"] == broker.queue
    assert not after.redelivered
    assert stays_empty(channel)
    channel.close()


def test_message_that_is_due_soon_is_left_to_the_worker(broker: Broker) -> None:
    broker.send(1)
    channel = broker.channel()
    [taken] = gather(channel, 1)
    assert not channel.delay(taken, due=time.time() + 1)
    assert channel.holds(taken)
    channel.close()


@pytest.mark.parametrize(("seconds", "bucket"), [(4.0, 4), (7.9, 4), (8.0, 8), (100.0, 64), (10**8, 1 << 21)])
def test_a_wait_is_never_longer_than_what_is_left(seconds: float, bucket: int) -> None:
    assert delay_bucket_seconds(seconds) == bucket


def test_delay_queue_outlives_every_message_in_it() -> None:
    arguments = delay_queue_arguments("q", 64)
    assert arguments["x-message-ttl"] == 64_000
    assert arguments["x-expires"] > (64 + DECLARED_SECONDS) * 1000
    assert arguments["x-dead-letter-routing-key"] == "q"


def test_window_follows_the_slots_up_and_down(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "HOARD_SECONDS", 0.05)
    broker.send(*range(60))
    channel = broker.channel(slots=2)
    taken = gather(channel, 2)
    taken += gather(channel, 10)  # ten slots more
    assert unacknowledged(channel) == 12
    channel.ack(taken)
    assert not channel.fetch(0)
    one = gather(channel, 1)  # only one is left

    def only_the_running_one() -> bool:
        channel.tend()
        return unacknowledged(channel) == 1 and broker.depth() == 47

    eventually(only_the_running_one)
    channel.ack(one)
    assert len(gather(channel, 1)) == 1
    assert unacknowledged(channel) <= 2
    channel.close()


def test_quick_tasks_are_taken_ahead_and_slow_ones_are_not(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "HOARD_SECONDS", 0.05)
    monkeypatch.setattr(window, "AHEAD_SECONDS", 0.5)  # so that 20 tasks a second are quick
    monkeypatch.setattr(prefetch, "CALM_SECONDS", 600.0)
    broker.send(*range(3000))
    channel = broker.channel(slots=1)
    done = 0
    while unacknowledged(channel) < 10:
        for delivery in gather(channel, 1):
            channel.ack([delivery])
            done += 1
    assert done < 2900
    [slow] = gather(channel, 1)

    def only_the_slow_one() -> bool:
        channel.tend()
        return unacknowledged(channel) == 1 and broker.depth() == 3000 - done - 1

    eventually(only_the_slow_one)
    for _ in range(50):  # calm for a while: what was given back must not come and go
        channel.ack([slow])
        [slow] = gather(channel, 1)
        assert unacknowledged(channel) <= 2
    channel.close()


def test_what_was_pushed_already_comes_ahead_and_stays_unmarked_when_it_is_put_back(broker: Broker) -> None:
    channel = broker.channel(slots=4)
    assert channel.fetch(4) == []
    broker.send(*range(4))
    eventually(lambda: (channel.tend(), channel.pushed == 4)[1])
    found = channel.fetch(1, 8)
    assert values(found) == [0, 1, 2, 3]
    channel.give_back(found[1:3], unmarked=True)
    assert channel.pushed == 2
    again = channel.fetch(1, 1)
    assert [(delivery.redelivered, channel.holds(delivery)) for delivery in again] == [(False, True)] * 2
    assert values(again) == [1, 2]
    channel.ack([*found, *again])
    channel.flush()
    assert unacknowledged(channel) == 0
    channel.close()
    assert broker.depth() == 0


def test_what_is_put_back_goes_to_the_broker_when_the_worker_stays_full(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetch, "HOARD_SECONDS", 0.0)
    channel = broker.channel(slots=3)
    broker.send(*range(3))
    found = gather(channel, 3)
    channel.give_back(found[1:], unmarked=True)
    channel.fetch(0)
    channel.tend()
    eventually(lambda: broker.depth() == 2)
    assert channel.holds(found[0])
    channel.close()


def test_nothing_comes_ahead_where_the_broker_counts_what_is_given_back(broker: Broker) -> None:
    channel = broker.channel(slots=4)
    assert channel.fetch(4) == []
    broker.send(*range(4))
    eventually(lambda: (channel.tend(), channel.pushed == 4)[1])
    channel._prefetch.take_nothing_ahead()
    assert len(channel.fetch(1, 8)) == 1
    channel.close()


def test_acknowledgements_of_tasks_that_end_in_any_order_reach_the_broker(broker: Broker) -> None:
    broker.send(*range(30))
    channel = broker.channel(slots=30)
    taken = gather(channel, 30)
    order = random.Random(5).sample(taken, 30)
    for delivery in order[:20]:
        channel.ack([delivery])
        if random.Random(delivery.tag).random() < 0.3:
            channel.flush()
    channel.close()
    other = broker.channel(replica="g.1")
    assert sorted(values(gather(other, 10))) == sorted(values(order[20:]))
    assert stays_empty(other)
    other.close()


def test_message_that_arrives_while_something_else_is_waited_for_wakes_the_worker(broker: Broker) -> None:
    channel = broker.channel(slots=5)
    assert not channel.fetch(1)
    channel.publish(
        broker.queue, b"1", headers={}, properties={}, content_type="application/json", content_encoding="utf-8"
    )
    eventually(lambda: channel.backlog() == 0)
    assert select.select(channel.wait_fds(), [], [], PATIENCE)[0]
    assert values(gather(channel, 1)) == [1]
    channel.close()


def test_message_that_comes_in_the_moment_when_less_is_taken_ahead_wakes_the_worker(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going back, it would come again only after the worker had subscribed again, which waits for a message."""
    monkeypatch.setattr(prefetch, "PACE_SECONDS", 0.0)
    channel = broker.channel(slots=4)
    assert channel.fetch(4) == []
    channel._prefetch._window.take_ahead(channel._queues, 50)
    broker.send(1)
    eventually(lambda: select.select(channel.wait_fds(), [], [], 0.2)[0])
    channel.tend()
    assert channel.wait_fds()
    assert select.select(channel.wait_fds(), [], [], PATIENCE)[0]
    assert values(gather(channel, 1)) == [1]
    channel.close()


def test_properties_are_read_as_py_amqp_reads_them() -> None:
    made = Message(
        b"",
        content_type="a",
        content_encoding="b",
        correlation_id="c",
        reply_to="d",
        priority=4,
        delivery_mode=2,
        expiration="60000",
        message_id="e",
        application_headers={"s": "ü" * 300, "i": -5, "l": 2**40, "n": None, "t": True, "f": {"x": {"y": 1}}},
    )
    unusual = Message(b"", app_id="z", application_headers={"d": Decimal("1.5"), "a": [1, {"b": 2}]})
    for message in (made, unusual, Message(b"")):
        head = pack(">HHQ", 60, 0, 0) + message._serialize_properties()
        pushed = Pushed("1.0", 1, False, "", "q", head, b"")
        assert pushed.properties() == message.properties


def test_large_message_arrives_whole(broker: Broker) -> None:
    text = "x" * 3_000_000
    broker.send(text, 1)
    channel = broker.channel()
    assert values(gather(channel, 2)) == [text, 1]
    channel.close()


def test_deleted_queue_is_a_lost_connection_and_made_again(broker: Broker) -> None:
    channel = broker.channel()
    assert not channel.fetch(1)
    with kombu.Connection(broker.url) as connection:
        connection.default_channel.queue_delete(broker.queue)
    with pytest.raises(ChannelLost):
        eventually(lambda: channel.fetch(1) or channel.tend())
    channel.open()
    broker.send(1)
    assert values(gather(channel, 1)) == [1]
    channel.close()


def test_a_connection_made_anew_delivers_each_message_once(broker: Broker) -> None:
    broker.send(*range(8))
    channel = broker.channel(slots=8)
    gather(channel, 2)  # and six more are on their way, or here and unread
    channel.open()
    taken = gather(channel, 8)
    assert sorted(values(taken)) == list(range(8))
    assert len({delivery.tag for delivery in taken}) == 8
    channel.ack(taken)
    channel.close()
    assert eventually(lambda: broker.depth() == 0)


def test_a_dead_letter_whose_queue_was_deleted_is_not_lost(broker: Broker) -> None:
    broker.send("x", "y")
    channel = broker.channel()
    dead = f"{broker.queue}.dead"
    how: dict[str, Any] = {"headers": {}, "properties": {}, "content_type": "text/plain", "content_encoding": "utf-8"}
    first, second = gather(channel, 2)
    channel.publish(dead, "x", **how, acks=[first])
    channel.flush()
    with kombu.Connection(broker.url) as connection:
        connection.default_channel.queue_delete(dead)
    with pytest.raises(ChannelLost) as lost:
        channel.publish(dead, "y", **how, acks=[second])
    assert "no queue" in str(lost.value.__cause__)
    channel.open()  # the worker owes it, and tells it over the next connection, which declares the queue again
    [again] = gather(channel, 1)
    channel.publish(dead, "y", **how, acks=[again])
    channel.close()
    assert broker.depth(dead) == 1
    assert eventually(lambda: broker.depth() == 0)
