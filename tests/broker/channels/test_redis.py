"""What only the Redis channel promises: leases, inboxes, delayed messages, kombu's keys."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Container, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet.broker.channels.base import ChannelLost, Kept
from fleet.broker.channels.redis import connections as connections_of_one
from fleet.broker.channels.redis import rest
from fleet.broker.channels.redis.channel import RedisChannel
from fleet.broker.channels.redis.leases import is_dead_sibling
from fleet.broker.channels.redis.rest import POLL_SECONDS
from fleet.broker.channels.redis.unsent_acks import read_left
from fleet.broker.channels.redis.waiting import BLOCK_SECONDS
from fleet.broker.channels.redis.watching import WatchingLink
from fleet.broker.connection import redis_access
from fleet.broker.envelope import given_back
from fleet.broker.finished_tags import FinishedTags
from fleet.broker.message import TaskMessage, build
from fleet.broker.publisher import Outgoing, Publisher
from fleet.core.spec import QueueSpec
from tests.brokers import Broker, gather, values
from tests.conftest import PATIENCE, eventually
from tests.worker.holder import holder

pytestmark = pytest.mark.system

LEASE = 0.6


def own_broker(redis_url: str) -> Broker:
    broker = Broker("redis", redis_url)
    broker.options = {"global_keyprefix": f"{broker.queue}/"}
    return broker


@pytest.fixture
def broker(redis_url: str) -> Broker:
    return own_broker(redis_url)


@pytest.fixture
def server(redis_url: str) -> Iterator[Any]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def short_lease(broker: Broker, replica: str = "g.1", *, lease: float = LEASE) -> RedisChannel:
    channel = RedisChannel(
        broker.url,
        queues=[QueueSpec(broker.queue)],
        replica=replica,
        fleet=broker.queue,
        options=broker.options,
        lease_seconds=lease,
    )
    channel.open()
    return channel


def held_by(broker: Broker, replica: str = "g.0", lease: float = LEASE, unsent: Path | None = None) -> Any:
    return holder(
        broker.url,
        broker.queue,
        fleet=broker.queue,
        replica=replica,
        lease=lease,
        prefix=broker.options["global_keyprefix"],
        unsent=unsent,
    )


def keys(server: Any, broker: Broker, pattern: str) -> list[bytes]:
    return sorted(server.keys(f"{broker.options['global_keyprefix']}{pattern}"))


def cut_connections(server: Any, broker: Broker) -> None:
    """Close every connection of this broker's channels from the server's side."""
    for client in server.client_list():
        if broker.queue in client["name"]:
            server.client_kill_filter(_id=client["id"])


# ---- order


def test_urgent_messages_come_first_in_kombus_sub_lists(broker: Broker) -> None:
    for priority in (9, 4, 0, 7):
        broker.send(priority, priority=priority)
    channel = broker.channel()
    assert values(channel.fetch(4)) == [0, 4, 7, 9]
    channel.close()


def test_queues_of_one_priority_share_the_turns(broker: Broker) -> None:
    names = [f"{broker.queue}-{letter}" for letter in "ab"]
    for name in names:
        broker.send(*range(10), queue=name)
    channel = broker.channel(*(QueueSpec(name) for name in names))
    ones = [channel.fetch(1)[0].queue for _ in range(4)]
    assert sorted(ones) == sorted(names * 2)
    assert sorted(delivery.queue for delivery in channel.fetch(6)) == sorted(names * 3)
    channel.close()


def test_celery_producer_with_a_priority_is_understood(broker: Broker) -> None:
    celery = pytest.importorskip("celery")
    app = celery.Celery(broker=broker.url, set_as_current=False)
    app.conf.broker_transport_options = broker.options
    app.send_task("late", queue=broker.queue, priority=9)
    app.send_task("early", args=(1,), kwargs={"a": datetime(2026, 1, 1, tzinfo=UTC)}, queue=broker.queue, priority=0)
    app.close()
    channel = broker.channel()
    early, late = (TaskMessage.from_delivery(delivery) for delivery in channel.fetch(5))
    assert (early.name, early.args, early.kwargs) == ("early", [1], {"a": datetime(2026, 1, 1, tzinfo=UTC)})
    assert late.name == "late"
    channel.close()


# ---- waiting


def test_stopped_waiting_leaves_messages_to_others(broker: Broker) -> None:
    channel = broker.channel()
    assert not channel.fetch(1)
    assert channel.wait_fds()
    assert not channel.fetch(0)
    assert not channel.wait_fds()
    broker.send(1)
    assert broker.depth() == 1
    channel.close()


def test_message_that_arrives_while_waiting_stops_goes_back(broker: Broker) -> None:
    channel = broker.channel()
    assert not channel.fetch(1)
    broker.send(1)
    eventually(lambda: select.select(channel.wait_fds(), [], [], 0.2)[0])
    assert broker.depth() == 0
    assert not channel.fetch(0)
    assert broker.depth() == 1
    channel.close()


def test_worker_filled_from_one_queue_stops_waiting_on_the_others(broker: Broker) -> None:
    names = [f"{broker.queue}-{letter}" for letter in "abc"]
    channel = broker.channel(*(QueueSpec(name) for name in names))
    assert not channel.fetch(1)
    broker.send("a", queue=names[0])
    assert values(gather(channel, 1)) == ["a"]
    broker.send("b", queue=names[1])
    assert broker.depth(names[1]) == 1
    channel.close()


def test_more_queues_than_waiting_connections_are_all_served(broker: Broker) -> None:
    names = [f"{broker.queue}-{number}" for number in range(12)]
    channel = broker.channel(*(QueueSpec(name) for name in names))
    assert not channel.fetch(1)
    for name in names:
        broker.send(name, queue=name)
    assert sorted(values(gather(channel, 12))) == sorted(names)
    channel.close()


def test_user_without_client_commands_loses_nothing(broker: Broker, server: Any) -> None:
    server.execute_command("ACL", "SETUSER", broker.queue, "on", ">secret", "~*", "&*", "+@all", "-client")
    address = broker.url.replace("redis://", f"redis://{broker.queue}:secret@")
    try:
        channel = Broker("redis", address, broker.options, broker.queue).channel()
        assert not channel.fetch(1)
        assert not channel.fetch(0)
        broker.send(1, 2)
        assert sorted(values(gather(channel, 2))) == [1, 2]
        channel.close()
        assert broker.depth() == 2
    finally:
        server.execute_command("ACL", "DELUSER", broker.queue)


# ---- death


def test_restarted_replica_takes_back_what_it_held(broker: Broker, server: Any) -> None:
    broker.send(1, 2, 3, 4)
    with held_by(broker, lease=60) as dying:
        assert dying.ask("fetch 3") == [1, 2, 3]
        dying.ask("ack")
        dying.ask("flush")
        assert dying.ask("fetch 3") == [4]
        dying.kill()
        channel = broker.channel(replica="g.0")
        [again] = channel.fetch(5)
        assert values([again]) == [4]
        assert (again.redelivered, again.attempts) == (True, 1)
        channel.ack([again])
        channel.close()
    assert broker.depth() == 0
    assert not keys(server, broker, "fleet:held:*")


def test_restart_restores_the_order_and_counts_every_crash(broker: Broker) -> None:
    broker.send(*range(20))
    for crash in (1, 2):
        with held_by(broker, lease=60) as dying:
            assert dying.ask("fetch 15") == list(range(15))
            dying.kill()
        assert crash
    channel = broker.channel(replica="g.0")
    taken = channel.fetch(20)
    assert values(taken) == list(range(20))
    assert [delivery.attempts for delivery in taken] == [2] * 15 + [0] * 5
    channel.close()


def successor(
    broker: Broker,
    *,
    unsent: Path | None,
    ran: Container[str] | None,
    finished: Path | None = None,
    store_left: Any = None,
) -> RedisChannel:
    channel = RedisChannel(
        broker.url,
        queues=[QueueSpec(broker.queue)],
        replica="g.0",
        fleet=broker.queue,
        options=broker.options,
        kept=Kept(unsent, finished, store_left),
        ran=ran,
    )
    channel.open()
    return channel


def test_killed_replica_repeats_nothing_that_it_had_acknowledged(broker: Broker, server: Any, tmp_path: Path) -> None:
    unsent = tmp_path / "g.0.acks"
    broker.send(*range(6))
    with held_by(broker, lease=60, unsent=unsent) as dying:
        assert dying.ask("fetch 5") == [0, 1, 2, 3, 4]
        dying.ask("ack 3")
        dying.kill()
    channel = successor(broker, unsent=unsent, ran=None)
    assert values(channel.fetch(9)) == [3, 4, 5]
    channel.close()
    assert read_left(unsent) is None
    assert not keys(server, broker, "fleet:held:*")


def test_acknowledgements_that_were_sent_are_kept_no_longer(broker: Broker, tmp_path: Path) -> None:
    unsent = tmp_path / "g.0.acks"
    broker.send(*range(4))
    channel = successor(broker, unsent=unsent, ran=None)
    [one, two] = channel.fetch(2)
    channel.ack([one])
    left = read_left(unsent)
    assert left is not None
    assert left.tags == (one.tag,)
    [three] = channel.fetch(1)
    assert read_left(unsent) is None
    channel.ack([two, three])
    left = read_left(unsent)
    assert left is not None
    assert left.tags == (two.tag, three.tag)
    channel.flush()
    assert read_left(unsent) is None
    channel.close()


@pytest.mark.parametrize("works", [None, True, False])
def test_killed_replica_repeats_nothing_that_the_processes_of_its_slots_had_finished(
    broker: Broker, server: Any, tmp_path: Path, *, works: bool | None
) -> None:
    """works: whether the result that one of them left could be stored; None: it left none."""
    path = tmp_path / "g.0.finished"
    broker.send(*range(6))
    dying = successor(broker, unsent=None, finished=path, ran=None)
    deliveries = dying.fetch(5)
    for delivery in deliveries[1:4]:  # each by a process of its own, none of which the worker hears
        left = b"result" if works is not None and delivery is deliveries[2] else b""
        FinishedTags(path).note(int(delivery.tag), left)
    stored: list[Any] = []

    def store(results: Any) -> bool:
        stored.extend(results)
        return bool(works)

    channel = successor(broker, unsent=None, finished=path, ran=None, store_left=store)
    again = channel.fetch(9)
    assert values(again) == ([0, 2, 4, 5] if works is False else [0, 4, 5])
    assert stored == ([] if works is None else [b"result"])
    FinishedTags(path).note(int(again[0].tag), b"stored long ago")
    channel.ack(again)
    channel.flush()
    successor(broker, unsent=None, finished=path, ran=None, store_left=store).close()
    assert not path.exists(), "a process that ends well leaves nothing"
    for one in (channel, dying):
        one.close()
    assert broker.depth() == 0
    assert not keys(server, broker, "fleet:held:*")
    assert b"stored long ago" not in stored, "it was acknowledged, and its result may have been fetched and forgotten"


@pytest.mark.parametrize("works", [True, False])
def test_what_a_killed_replica_had_finished_is_acknowledged_once_its_result_is_stored(
    broker: Broker, server: Any, tmp_path: Path, *, works: bool
) -> None:
    unsent = tmp_path / "g.0.acks"
    broker.send(*range(6))
    stored: list[Any] = []

    def store(results: Any) -> bool:
        assert server.hlen(next(iter(keys(server, broker, "fleet:held:*")))) == 5  # nothing is acknowledged before
        stored.extend(results)
        return works

    with held_by(broker, lease=60, unsent=unsent) as dying:
        assert dying.ask("fetch 5") == [0, 1, 2, 3, 4]
        dying.ask("end 2")  # the second is over, and its result is to be stored
        dying.ask("ack 1")
        dying.kill()
    channel = successor(broker, unsent=unsent, ran=None, store_left=store)
    assert stored == [b"result of 1"]
    assert values(channel.fetch(9)) == ([2, 3, 4, 5] if works else [1, 2, 3, 4, 5])
    channel.close()


@pytest.mark.parametrize("junk", [b"", b"junk", b"FLTACK1\0" + b"\xff" * 520 + bytes(8)])
def test_a_damaged_file_of_acknowledgements_says_nothing(junk: bytes, tmp_path: Path) -> None:
    (tmp_path / "acks").write_bytes(junk)
    assert read_left(tmp_path / "acks") is None


def test_only_what_ran_counts_a_crash(broker: Broker) -> None:
    with Publisher(broker.url, options=broker.options) as publisher:
        for number in range(3):
            built = build("t", [number], task_id=f"id-{number}")
            publisher.send(Outgoing(broker.queue, built.body, headers=built.headers))
    with held_by(broker, lease=60) as dying:
        assert len(dying.ask("fetch 3")) == 3
        dying.kill()
    channel = successor(broker, unsent=None, ran={"id-1"})
    taken = channel.fetch(3)
    assert [(each.headers["id"], each.attempts, each.redelivered) for each in taken] == [
        ("id-0", 0, True),
        ("id-1", 1, True),
        ("id-2", 0, True),
    ]
    channel.close()


def test_a_fetch_brings_more_where_that_is_asked_for_and_does_not_wait_for_it(broker: Broker) -> None:
    channel = broker.channel()
    broker.send(*range(4))
    assert values(channel.fetch(1, 2)) == [0, 1, 2]
    assert values(channel.fetch(1, 2)) == [3]
    assert not channel.wait_fds()
    channel.close()


def test_message_in_the_inbox_of_a_killed_replica_is_not_lost(broker: Broker, server: Any) -> None:
    with held_by(broker, lease=60) as dying:
        assert dying.ask("fetch 1") == []
        os.kill(dying.pid, signal.SIGSTOP)
        broker.send("inbox")
        eventually(lambda: keys(server, broker, "fleet:inbox:*"))
        assert broker.depth() == 0
        dying.kill()
    channel = broker.channel(replica="g.0")
    [again] = gather(channel, 1)
    assert values([again]) == ["inbox"]
    assert again.attempts == 0
    channel.close()


def test_living_process_of_the_same_name_keeps_its_messages(broker: Broker) -> None:
    broker.send(1)
    with held_by(broker, lease=60) as alive:
        assert alive.ask("fetch 1") == [1]
        channel = broker.channel(replica="g.0")
        assert not channel.fetch(1)
        channel.close()
        assert alive.ask("holds") == [True]


def test_only_dead_processes_of_this_replica_on_this_host_are_siblings() -> None:
    host = os.uname().nodename
    assert is_dead_sibling(f"f/g.1@{host}:{2**22 + 1}:5", "f", "g.1")
    assert is_dead_sibling(f"f/g.1@{host}:{os.getpid()}:5", "f", "g.1")
    assert not is_dead_sibling(f"f/g.1@{host}:{os.getppid()}:5", "f", "g.1")
    assert not is_dead_sibling(f"f/g.10@{host}:{2**22 + 1}:5", "f", "g.1")
    assert not is_dead_sibling(f"f/g.1@elsewhere:{2**22 + 1}:5", "f", "g.1")
    assert not is_dead_sibling("junk", "f", "g.1")


def test_lease_that_ran_out_gives_the_messages_to_another_replica(broker: Broker, server: Any) -> None:
    broker.send(1, 2)
    heir = short_lease(broker)
    with held_by(broker) as dying:
        assert dying.ask("fetch 2") == [1, 2]
        dying.kill()
        assert values(gather(heir, 2)) == [1, 2]
    heir.close()


def forgets(broker: Broker, lease: float) -> bool:
    """Whether a frozen replica forgets what its heir has; False where the heir stood still for too long itself."""
    broker.send(1)
    heir = short_lease(broker, lease=lease)
    with held_by(broker) as frozen:
        assert frozen.ask("fetch 1") == [1]
        os.kill(frozen.pid, signal.SIGSTOP)
        taken = gather(heir, 1)
        heir.tend()
        tended = time.monotonic()
        os.kill(frozen.pid, signal.SIGCONT)
        frozen.ask("tend")
        held = frozen.ask("holds")
        frozen.ask("ack")
        frozen.ask("flush")
        kept = heir.holds(taken[0])
        broker.send(2)
        fetched = eventually(lambda: frozen.ask("fetch 1"))
        if time.monotonic() - tended > lease / 2:
            heir.close()
            return False
        assert (held, kept, fetched) == ([False], True, [2])
        heir.give_back(taken)
        assert values(gather(heir, 1)) == [1]
    heir.close()
    return True


def test_frozen_replica_forgets_what_was_given_away(redis_url: str) -> None:
    assert any(forgets(own_broker(redis_url), lease) for lease in (2 * LEASE, 8 * LEASE, 32 * LEASE))


def is_kept(broker: Broker, lease: float) -> bool:
    """Whether a lease that is renewed is respected; False where this process stood still for too long to tell."""
    broker.send(1)
    keeper, watcher = short_lease(broker, "g.0", lease=lease), short_lease(broker, "g.1", lease=lease)
    mine = gather(keeper, 1)
    keeper.tend()
    renewed = began = time.monotonic()
    while time.monotonic() < began + 4 * lease:
        keeper.tend()
        watcher.tend()
        taken = watcher.fetch(1)
        earlier, renewed = renewed, time.monotonic()
        if renewed - earlier > lease / 3:
            keeper.close()
            watcher.close()
            return False
        assert not taken
        time.sleep(0.02)
    assert keeper.holds(mine[0])
    keeper.close()
    watcher.close()
    return True


def test_renewed_lease_is_never_taken(redis_url: str) -> None:
    assert any(is_kept(own_broker(redis_url), lease) for lease in (LEASE, 6 * LEASE, 24 * LEASE))


def test_nothing_is_left_of_a_replica_that_closed(broker: Broker, server: Any) -> None:
    broker.send(1, 2)
    channel = broker.channel()
    channel.ack(channel.fetch(1))
    assert not channel.fetch(5)[1:]
    channel.close()
    assert broker.depth() == 1
    assert not keys(server, broker, "fleet:*")


# ---- connections lost


def test_lost_connection_keeps_what_is_in_memory(broker: Broker, server: Any) -> None:
    broker.send(1, 2, 3)
    channel = broker.channel()
    one, two = channel.fetch(2)
    channel.ack([one])
    cut_connections(server, broker)
    with pytest.raises(ChannelLost):
        channel.fetch(1)
    channel.open()
    assert channel.holds(two)
    assert not channel.holds(one)
    assert values(channel.fetch(5)) == [3]
    channel.ack([two])
    channel.close()
    assert broker.depth() == 1


def test_waiting_connection_that_is_lost_is_noticed(broker: Broker, server: Any) -> None:
    channel = broker.channel()
    assert not channel.fetch(1)
    cut_connections(server, broker)
    eventually(lambda: select.select(channel.wait_fds(), [], [], 0.2)[0])
    with pytest.raises(ChannelLost):
        channel.fetch(1)
    channel.open()
    broker.send(1)
    assert values(gather(channel, 1)) == [1]
    channel.close()


def test_taken_but_never_seen_messages_go_back(broker: Broker, server: Any) -> None:
    """The server ran the turn, and the connection died before its answer."""
    broker.send(1, 2)
    channel = broker.channel()
    taken = channel.fetch(2)
    del channel._held._messages[taken[0].tag]
    cut_connections(server, broker)
    with pytest.raises(ChannelLost):
        channel.fetch(1)
    channel.open()
    assert values(channel.fetch(2)) == [1]
    assert channel.holds(taken[1])
    channel.close()


def one_survives_an_emptied_server(broker: Broker, channel: Any, server: Any) -> None:
    """The message that waits is taken, the server forgets everything, and the message is still there in the end."""
    [mine] = channel.fetch(1)
    with redis.Redis.from_url(broker.url) as client:
        client.flushdb()
    cut_connections(server, broker)
    with pytest.raises(ChannelLost):
        channel.fetch(1)
    channel.open()
    assert channel.holds(mine)
    channel.close()
    assert broker.depth() == 1


def test_server_that_came_back_empty_gets_the_record_again(redis_url: str, server: Any) -> None:
    broker = Broker("redis", redis_url.removesuffix("/0") + "/9")
    broker.send(1)
    channel = broker.channel()
    one_survives_an_emptied_server(broker, channel, server)


def test_lease_that_vanished_is_made_again_before_anything_is_taken(redis_url: str) -> None:
    broker = Broker("redis", redis_url.removesuffix("/0") + "/10")
    channel = broker.channel()
    with redis.Redis.from_url(broker.url) as client:
        client.flushdb()
        broker.send(1)
        assert values(channel.fetch(1)) == [1]
        assert client.zcard("fleet:leases") == 1
        client.script_flush()
    broker.send(2)
    assert values(channel.fetch(1)) == [2]
    channel.close()


def test_tend_hands_over_buffered_acknowledgements(broker: Broker, server: Any) -> None:
    broker.send(*range(1200))
    channel = broker.channel()
    channel.ack(channel.fetch(1200))
    assert keys(server, broker, "fleet:held:*")
    channel.tend()
    assert not keys(server, broker, "fleet:held:*")
    channel.close()


# ---- rest


@pytest.fixture
def rested(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisChannel]:
    """Nothing came, and the next fetch is not due by the clock."""
    monkeypatch.setattr(rest, "QUIET_SECONDS", 0.0)
    channel = broker.channel()
    assert not channel.fetch(1)
    assert channel.poll_seconds is None
    monkeypatch.setattr(rest, "QUIET_SECONDS", 3600.0)
    yield channel
    channel.close()


def woken(channel: RedisChannel) -> bool:
    return bool(select.select(channel.wait_fds(), [], [], PATIENCE)[0])


def test_a_channel_at_rest_looks_at_no_queue_until_it_is_told(
    broker: Broker, rested: RedisChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, take = [], rested._turns.take
    monkeypatch.setattr(rested._turns, "take", lambda *words, **more: turns.append(words) or take(*words, **more))  # type: ignore[func-returns-value]
    for _ in range(3):
        assert rested.fetch(1) == []
    assert (turns, rested.poll_seconds) == ([], None)

    monkeypatch.setattr(rest.Rest, "is_quiet", True)
    rested.tend()  # renewing the lease is no reason to look either
    assert rested.fetch(1) == []
    assert turns == []

    for body in "xyz":
        broker.send(body)
    assert woken(rested)
    assert values(gather(rested, 3)) == ["x", "y", "z"]
    assert not rested.fetch(1)

    rested.fetch(0)
    made = len(turns)
    assert not rested.fetch(1), "nobody waited meanwhile"
    assert len(turns) > made


@pytest.fixture
def resting(rested: RedisChannel, monkeypatch: pytest.MonkeyPatch) -> RedisChannel:
    """It has been tended once when its wait was over."""
    monkeypatch.setattr(rest.Rest, "is_quiet", True)
    monkeypatch.setattr(connections_of_one, "TEND_SECONDS", 0.0)
    rested.fetch(0)
    assert not rested.fetch(1)
    rest_for(rested, 0.2)
    assert woken(rested), "the wait ends before the rest does"
    assert rested.rest_is_over()
    rested.tend()
    return rested


def rest_for(channel: RedisChannel, seconds: float) -> None:
    """Wait anew, until shortly before so much time is over."""
    channel._inboxes.disarm(channel._connections.main)
    channel.tend_at = time.monotonic() + seconds
    assert not channel.fetch(1)


def connections(server: Any, broker: Broker) -> list[str]:
    return sorted(one["name"].partition(":")[0] for one in server.client_list() if broker.queue in one["name"])


def test_a_channel_at_rest_has_one_connection(broker: Broker, server: Any, resting: RedisChannel) -> None:
    eventually(lambda: connections(server, broker) == ["fleet-wait"])
    assert not resting.fetch(1)
    broker.send("x")
    assert woken(resting)
    taken = gather(resting, 1)
    assert values(taken) == ["x"]
    resting.ack(taken)
    resting.flush()
    eventually(lambda: not server.hkeys(resting._keys.held))
    assert not resting.fetch(1)
    resting.close()
    eventually(lambda: not connections(server, broker))
    assert broker.depth() == 0


def test_what_ends_a_rest_is_taken_at_once_and_what_follows_over_a_connection_of_its_own(
    broker: Broker, server: Any, resting: RedisChannel
) -> None:
    broker.send("x", "y")
    assert values(gather(resting, 1)) == ["x"]
    assert connections(server, broker) == ["fleet-wait"]
    assert values(gather(resting, 1)) == ["y"]
    assert connections(server, broker) == ["fleet", "fleet-wait"]


def test_what_is_asked_of_a_channel_at_rest_while_it_waits_is_answered(
    broker: Broker, server: Any, resting: RedisChannel
) -> None:
    assert not resting.fetch(1)
    assert resting.backlog() == 0
    assert connections(server, broker) == ["fleet", "fleet-wait"]


def test_a_channel_at_rest_that_is_closed_leaves_nothing(broker: Broker, server: Any, resting: RedisChannel) -> None:
    assert not resting.fetch(1)
    resting.close()
    assert not keys(server, broker, "fleet:*")


def test_a_channel_at_rest_renews_its_lease_without_waiting(server: Any, resting: RedisChannel) -> None:
    keys = resting._keys

    def renewed() -> bool:
        server.zadd(keys.leases, {keys.holder: 1.0})
        resting._tending.registry.renew_at = 0.0
        resting.tend()
        return bool(eventually(lambda: server.zscore(keys.leases, keys.holder) > time.time() * 1000))

    assert renewed()
    server.script_flush()  # its refusal comes with the answer
    resting._tending.registry.renew_at = 0.0
    resting.tend()
    assert not resting.fetch(1), "what waits next hears that first"
    assert server.zscore(keys.leases, keys.holder) > time.time() * 1000


def test_a_channel_that_is_tended_every_second_waits_as_long_as_any(resting: RedisChannel, server: Any) -> None:
    resting.tend_at = 0.0
    assert not resting.fetch(1)
    until = resting._inboxes._waiting._waiters[0].until  # type: ignore[union-attr]
    assert until is not None
    assert until - time.monotonic() > BLOCK_SECONDS / 2


def test_a_channel_at_rest_that_waits_leaves_its_lease_alone_while_that_is_long_enough(
    server: Any, resting: RedisChannel, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = resting._keys
    monkeypatch.setattr(resting._tending.registry, "lease_seconds", 6000.0)
    rest_for(resting, 3600.0)
    server.zadd(keys.leases, {keys.holder: 1.0})
    resting._tending.registry.renew_at = 0.0
    resting.tend()
    assert server.zscore(keys.leases, keys.holder) == 1.0
    resting._tending.registry.renew_by = 0.0
    resting.tend()
    eventually(lambda: server.zscore(keys.leases, keys.holder) > time.time() * 1000)


def test_a_channel_at_rest_restores_what_a_dead_one_held(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker.send(1, 2)
    with held_by(broker) as dying:
        assert dying.ask("fetch 2") == [1, 2]
        monkeypatch.setattr(rest, "QUIET_SECONDS", 0.0)
        heir = short_lease(broker)
        assert heir.fetch(1) == []
        dying.kill()
        assert values(gather(heir, 2)) == [1, 2]
    heir.close()


def test_what_is_broadcast_reaches_whoever_subscribes(rested: RedisChannel, server: Any) -> None:
    with server.pubsub(ignore_subscribe_messages=True) as listening:
        listening.subscribe("topic")
        eventually(lambda: server.pubsub_numsub("topic")[0][1] == 1)
        told: list[int | None] = []
        for number in range(20):  # more than are told at once
            rested.broadcast("topic", b"%d" % number, hear=told.append)
        heard: list[bytes] = []

        def hears() -> bool:
            message = listening.get_message(timeout=0.1)
            heard.extend([message["data"]] if message else [])
            return len(heard) == 20

        eventually(hears)
    assert heard == [b"%d" % number for number in range(20)]
    assert rested.backlog() == 0, "its answers are told from others"
    assert told == [1] * 20


def test_what_is_broadcast_at_rest_goes_over_the_connection_that_waits(
    broker: Broker, server: Any, resting: RedisChannel
) -> None:
    told: list[int | None] = []
    for number in range(20):
        resting.broadcast("nobody", b"%d" % number, hear=told.append)
    assert not resting.fetch(1)
    assert told == [0] * 20
    eventually(lambda: connections(server, broker) == ["fleet-wait"])


def test_a_user_who_may_not_tell_others_is_told_that_nobody_knows(
    broker: Broker, server: Any, resting: RedisChannel
) -> None:
    told: list[int | None] = []
    server.acl_setuser("default", enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-publish"])
    try:
        resting.broadcast("nobody", b"", hear=told.append)
        assert not resting.fetch(1)
    finally:
        server.acl_setuser("default", enabled=True, nopass=True, keys=["*"], channels=["*"], categories=["+@all"])
    assert told == [None]


def test_a_channel_at_rest_looks_when_a_message_is_due(broker: Broker, rested: RedisChannel, server: Any) -> None:
    prefix = broker.options["global_keyprefix"]
    for seconds in (0.3, 3600.0):
        entry, due = f"{prefix}{broker.queue}\nafter {seconds}", time.time() + seconds
        server.zadd(f"{prefix}fleet:delayed:{broker.queue}", {entry: int(due * 1000)})
    assert woken(rested)
    eventually(lambda: bool(rested.fetch(1)))


@pytest.mark.parametrize("priority", [0, 3, 9])
def test_a_channel_at_rest_is_woken_by_a_message_of_any_priority(
    broker: Broker, rested: RedisChannel, priority: int
) -> None:
    for _ in range(2):  # the second time it looks by the clock again
        broker.send("x", priority=priority)
        assert rested.poll_seconds is not None or woken(rested)
        assert values(gather(rested, 1)) == ["x"]
        assert not rested.fetch(1)


def test_a_channel_at_rest_is_woken_by_a_message_with_a_date_that_another_put_off(
    broker: Broker, rested: RedisChannel, server: Any
) -> None:
    due = time.time() + 3600
    server.zadd(f"{broker.options['global_keyprefix']}fleet:delayed:{broker.queue}", {"x": int(due * 1000)})
    assert woken(rested)
    assert not rested.fetch(1)
    assert rested.poll_seconds == POLL_SECONDS


def test_a_channel_at_rest_looks_by_the_clock_again_after_it_was_cut(
    broker: Broker, rested: RedisChannel, server: Any
) -> None:
    cut_connections(server, broker)
    with pytest.raises(ChannelLost):
        rested.fetch(1)
    rested.open()
    assert not rested.fetch(1)
    assert rested.poll_seconds == POLL_SECONDS


def test_where_the_server_does_not_tell_of_changes_it_is_asked(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(WatchingLink, "_is_accepted", lambda *_: False)
    channel = broker.channel()
    assert not channel.fetch(1)
    assert channel.poll_seconds == POLL_SECONDS
    broker.send("x", priority=9)
    assert values(gather(channel, 1)) == ["x"]
    channel.close()


# ---- delayed messages


def delayed(broker: Broker, seconds: float) -> RedisChannel | None:
    """A channel that has put off "b", "a" and "later"; None where that took so long that one was due already."""
    broker.send("b", "a", "later")
    channel: RedisChannel = broker.channel()
    b, a, later = channel.fetch(3)
    now = time.time()
    assert channel.delay(later, due=now + 3600)
    assert channel.delay(b, due=now + 1.5 * seconds)
    assert channel.delay(a, due=now + seconds)
    taken, poll = channel.fetch(3), channel.poll_seconds
    if time.time() >= now + seconds:
        channel.close()
        return None
    assert not taken
    assert poll is not None
    assert 0 < poll < 0.5 or seconds >= 0.5
    return channel


def test_delayed_messages_come_when_due_the_earliest_first(redis_url: str) -> None:
    channels = (delayed(own_broker(redis_url), seconds) for seconds in (0.2, 2.0, 20.0))
    channel = next(filter(None, channels))
    assert values(gather(channel, 2)) == ["a", "b"]
    channel.fetch(1)
    assert channel.poll_seconds == POLL_SECONDS, "the next is due in an hour"
    channel.close()


def test_delayed_message_survives_its_replica(broker: Broker) -> None:
    broker.send(1)
    channel = broker.channel()
    channel.delay(channel.fetch(1)[0], due=time.time() + 0.2)
    channel.close()
    assert broker.depth() == 0
    channel = broker.channel(replica="g.1")
    assert values(gather(channel, 1)) == [1]
    channel.close()


# ---- strange things


def test_junk_in_a_queue_is_delivered_as_junk(broker: Broker, server: Any) -> None:
    junk = [b"not json", b'{"body": 1}', b'"text"', b"\xff\xfe", b'{"body": "%%%", "properties": {"body_encoding": 1}}']
    for item in junk:
        server.lpush(f"{broker.options['global_keyprefix']}{broker.queue}", item)
    channel = broker.channel()
    taken = channel.fetch(10)
    assert len(taken) == len(junk)
    assert taken[0].body == junk[0]
    channel.give_back(taken)
    assert [delivery.original for delivery in gather(channel, len(junk))] == [given_back(item) for item in junk]
    channel.close()


def test_what_nobody_began_to_work_on_goes_back_as_it_was(broker: Broker) -> None:
    broker.send(1, 2, 3)
    channel = broker.channel()
    taken = gather(channel, 3)
    channel.give_back(taken[:1])
    channel.give_back(taken[1:], unmarked=True)
    again = gather(channel, 3)
    assert {values([each])[0]: each.redelivered for each in again} == {1: True, 2: False, 3: False}
    assert [each.original for each in again if not each.redelivered] == [each.original for each in taken[1:]]
    channel.close()


def test_key_prefix_and_credentials_of_the_url_are_kombus(broker: Broker) -> None:
    access = redis_access("redis://me:p%40ss@host:1234/5", {"global_keyprefix": "x:", "priority_steps": [0, 5]})
    assert (access.parameters["username"], access.parameters["password"]) == ("me", "p@ss")
    assert (access.parameters["host"], access.parameters["port"], access.parameters["db"]) == ("host", 1234, 5)
    assert access.lists("q") == ("x:q", "x:q\x06\x165")
    assert access.list_of("q", 4) == "x:q"
    assert access.list_of("q", "9") == access.list_of("q", 5) == "x:q\x06\x165"
    socket = redis_access("redis+socket:///run/broker.sock?virtual_host=3")
    assert (socket.parameters["path"], socket.parameters["db"]) == ("/run/broker.sock", 3)
    secure = redis_access("rediss://host/0?ssl_cert_reqs=required")
    assert secure.parameters["connection_class"] is redis.SSLConnection


def test_envelope_is_the_one_kombu_writes(broker: Broker, server: Any) -> None:
    broker.send([1])
    name = f"{broker.options['global_keyprefix']}{broker.queue}"
    ours = json.loads(server.lindex(name, 0))
    channel = broker.channel()
    import kombu

    with kombu.Connection(broker.url, transport_options=broker.options) as connection:
        connection.Producer().publish([1], exchange=broker.queue, routing_key=broker.queue)
    theirs = json.loads(server.lindex(name, 0))
    assert ours.keys() == theirs.keys()
    assert ours["properties"].keys() >= theirs["properties"].keys()
    channel.close()


def test_waiting_that_ends_as_soon_as_it_began_holds_nobody_up(broker: Broker) -> None:
    """The server may read the command to wait after the command to stop waiting: they come over two connections."""
    channel = broker.channel(*(QueueSpec(f"{broker.queue}-{number}") for number in range(4)))
    for _ in range(300):
        assert not channel.fetch(1)
        assert not channel.fetch(0)
    channel.close()
