"""What waits at each kind of broker, for how long, and with whom: on real ones, also when they go away."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.transport.sqlalchemy import Channel

from fleet.broker.backlog.sampler import Sampler
from fleet.broker.channels.kombu import KombuChannel
from fleet.broker.envelope import SENT_AT_HEADER
from fleet.broker.publisher import Outgoing, Publisher
from fleet.broker.redis_link import Link
from fleet.core.autoscale.sample import QueueSample
from fleet.core.spec import QueueSpec
from tests.brokers import Broker, gather
from tests.conftest import eventually
from tests.servers import RedisServer, free_port
from tests.worker.holder import holder
from tests.worker.workers import Shop

UNKNOWN = QueueSample(None, None)
NOBODY = QueueSample(0, None)

Make = Callable[..., Sampler]


@pytest.fixture
def sampler() -> Iterator[Make]:
    """Makes samplers that are closed in the end."""
    made: list[Sampler] = []

    def make(url: str, *, fleet: str = "shop", **more: Any) -> Sampler:
        made.append(Sampler(url, fleet=fleet, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def on_redis(redis_url: str) -> Broker:
    return Broker("redis", redis_url)


@pytest.fixture
def on_rabbitmq(rabbitmq_url: str) -> Broker:
    return Broker("rabbitmq", rabbitmq_url)


def send(broker: Broker, *sent_at: float, body: str = "1", priority: int = 0, **headers: Any) -> None:
    """Messages as fleet sends them, stamped so."""
    with Publisher(broker.url, options=broker.options) as publisher:
        for moment in sent_at:
            stamped = {**headers, SENT_AT_HEADER: moment}
            publisher.send(Outgoing(broker.queue, body, stamped, {"priority": priority}))


def seen(sampler: Sampler, queue: str) -> QueueSample:
    sample = sampler.sample([queue])
    assert sample.problem == ""
    return sample.queues[queue]


# --- Redis ------------------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_all_priorities_of_a_queue_wait_and_the_oldest_of_them_counts(on_redis: Broker, sampler: Make) -> None:
    looks = sampler(on_redis.url)
    assert seen(looks, on_redis.queue) == NOBODY
    send(on_redis, 1500.5, 1600.0)
    send(on_redis, 1400.0, 1400.25, priority=3)
    send(on_redis, 1700.0, priority=9)

    assert seen(looks, on_redis.queue) == QueueSample(5, 1400.25)


@pytest.mark.system
@pytest.mark.parametrize("priority", [0, 9])
def test_one_forged_message_does_not_make_a_queue_old(on_redis: Broker, sampler: Make, priority: int) -> None:
    send(on_redis, 5.0, priority=priority)
    send(on_redis, 1500.0, 1600.0)

    assert seen(sampler(on_redis.url), on_redis.queue) == QueueSample(3, 1500.0 if priority == 0 else 1600.0)


@pytest.mark.system
def test_the_age_of_a_large_message_is_found_too(on_redis: Broker, sampler: Make) -> None:
    send(on_redis, 1500.0, body=json.dumps(["x" * 3_000_000, {"eta": "no"}]))

    assert seen(sampler(on_redis.url), on_redis.queue) == QueueSample(1, 1500.0)


@pytest.mark.system
def test_a_message_of_somebody_else_waits_for_nobody_knows_how_long(on_redis: Broker, sampler: Make) -> None:
    on_redis.send(f'"{SENT_AT_HEADER}": 5.0')

    assert seen(sampler(on_redis.url), on_redis.queue) == QueueSample(1, None)


@pytest.mark.system
@pytest.mark.parametrize(
    ("eta", "since"),
    [
        (datetime.fromtimestamp(2000.0, UTC).isoformat(), 2000.0),
        (datetime.fromtimestamp(1000.0, UTC).isoformat(), 1500.0),
        ("1970-01-01T00:33:20", 2000.0),
        ("tomorrow", 1500.0),
        (None, 1500.0),
    ],
)
def test_a_message_with_a_date_waits_from_that_date_on(
    on_redis: Broker, sampler: Make, eta: str | None, since: float
) -> None:
    send(on_redis, 1500.0, eta=eta)

    assert seen(sampler(on_redis.url), on_redis.queue) == QueueSample(1, since)


@pytest.mark.system
def test_delayed_messages_wait_once_they_are_due_although_nobody_has_looked(on_redis: Broker, sampler: Make) -> None:
    on_redis.send(1, 2)
    channel = on_redis.channel()
    due, later = gather(channel, 2)
    moment = round(time.time()) - 60.0
    channel.delay(due, due=moment)
    channel.delay(later, due=time.time() + 3600)

    assert seen(sampler(on_redis.url), on_redis.queue) == QueueSample(1, moment)
    channel.close()


@pytest.mark.system
def test_what_a_worker_holds_is_told_by_replica_and_only_to_its_own_fleet(
    tmp_path: Path, redis_url: str, sampler: Make
) -> None:
    shop = Shop(tmp_path, redis_url)
    fleet = shop.queue
    try:
        shop.worker("threads", 3, fleet=fleet, replica="thumbs.4")
        looks = sampler(redis_url, fleet=fleet)
        assert looks.sample([]).held == {"thumbs.4": 0}
        shop.send_notes(range(5), seconds=60)

        def is_full() -> bool:
            found = looks.sample([shop.queue])
            return (found.held, found.queues[shop.queue].waiting) == ({"thumbs.4": 3}, 2)

        assert eventually(is_full)
        assert sampler(redis_url, fleet="elsewhere").sample([]).held == {}
    finally:
        shop.close()


@pytest.mark.system
def test_what_a_dead_replica_held_is_told_until_it_is_given_to_others(on_redis: Broker, sampler: Make) -> None:
    on_redis.send(1, 2, 3, 4)
    fleet = on_redis.queue
    looks = sampler(on_redis.url, fleet=fleet)
    with holder(on_redis.url, on_redis.queue, fleet=fleet, replica="thumbs.0", lease=60.0) as dead:
        assert dead.ask("fetch 3") == [1, 2, 3]
        dead.kill()
    assert looks.sample([]).held == {"thumbs.0": 3}
    with holder(on_redis.url, on_redis.queue, fleet=fleet, replica="thumbs.1") as alive:
        assert alive.ask("fetch 1") == [4]
        assert looks.sample([]).held == {"thumbs.0": 3, "thumbs.1": 1}
    successor = on_redis.channel(replica="thumbs.0", fleet=fleet)

    after = looks.sample([on_redis.queue])

    assert after.held is not None
    assert (after.held["thumbs.0"], after.queues[on_redis.queue].waiting) == (0, 3)
    successor.close()


@pytest.mark.system
def test_a_key_prefix_is_honoured(redis_url: str, sampler: Make) -> None:
    broker = Broker("redis", redis_url, {"global_keyprefix": "mine:"})
    send(broker, 1500.0, 1600.0)
    channel = broker.channel(replica="thumbs.0", fleet="prefixed")
    gather(channel, 1)

    sample = sampler(redis_url, fleet="prefixed", options=broker.options).sample([broker.queue])

    assert (dict(sample.queues), sample.held) == ({broker.queue: QueueSample(1, 1600.0)}, {"thumbs.0": 1})
    assert sampler(redis_url, fleet="prefixed").sample([broker.queue]).queues[broker.queue] == NOBODY
    channel.close()


@pytest.fixture
def restricted(redis_url: str) -> Iterator[Callable[..., str]]:
    """The URL of a user who may do what these rules say."""
    with redis.Redis.from_url(redis_url) as client:

        def url_of(*rules: str) -> str:
            client.execute_command("ACL", "SETUSER", "watcher", "reset", "on", ">s3cret", *rules)
            return redis_url.replace("redis://", "redis://watcher:s3cret@")

        yield url_of
        client.execute_command("ACL", "DELUSER", "watcher")


@pytest.mark.system
def test_without_scripts_the_depths_are_still_known(
    on_redis: Broker, sampler: Make, restricted: Callable[..., str]
) -> None:
    send(on_redis, 1500.0)

    sample = sampler(restricted("~*", "+@all", "-@scripting")).sample([on_redis.queue])

    assert (dict(sample.queues), sample.problem) == ({on_redis.queue: QueueSample(1, None)}, "")
    assert sample.held is not None


@pytest.mark.system
def test_what_a_user_may_not_see_is_not_known_and_the_rest_is(
    on_redis: Broker, sampler: Make, restricted: Callable[..., str]
) -> None:
    send(on_redis, 1500.0)
    url = restricted("~q-*", "~fleet:delayed:*", "+@all", "-@scripting")

    sample = sampler(url).sample([on_redis.queue, "others"])

    assert dict(sample.queues) == {on_redis.queue: QueueSample(1, None), "others": UNKNOWN}
    assert sample.held is None
    assert "refuses" in sample.problem
    assert "s3cret" not in sample.problem


@pytest.mark.system
def test_a_key_of_another_type_is_no_queue_and_spoils_nothing(on_redis: Broker, sampler: Make) -> None:
    send(on_redis, 1500.0)
    with redis.Redis.from_url(on_redis.url) as client:
        client.set(f"{on_redis.queue}-text", "hello")

    sample = sampler(on_redis.url).sample([f"{on_redis.queue}-text", on_redis.queue])

    assert dict(sample.queues) == {f"{on_redis.queue}-text": UNKNOWN, on_redis.queue: QueueSample(1, 1500.0)}
    assert "WRONGTYPE" in sample.problem


@pytest.mark.system
def test_fifty_queues_are_looked_at_in_two_breaths(
    on_redis: Broker, sampler: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(on_redis, 1500.0)
    breaths = []
    ask = Link.ask_many
    monkeypatch.setattr(Link, "ask_many", lambda link, commands: breaths.append(len(commands)) or ask(link, commands))
    monkeypatch.setattr(Link, "call", None)
    looks = sampler(on_redis.url)
    queues = [on_redis.queue, *(f"{on_redis.queue}-{number}" for number in range(49))]
    looks.sample(queues)
    breaths.clear()

    found = looks.sample(queues).queues

    assert len(breaths) == 2
    assert found == dict.fromkeys(queues, NOBODY) | {on_redis.queue: QueueSample(1, 1500.0)}


@pytest.mark.system
def test_a_server_that_goes_and_comes_back_is_asked_again(sampler: Make) -> None:
    server = RedisServer(persistent=True).start()
    broker = Broker("redis", server.url)
    looks = sampler(server.url)
    try:
        send(broker, 1500.0)
        assert seen(looks, broker.queue) == QueueSample(1, 1500.0)
        server.stop()

        for _ in range(2):
            gone = looks.sample([broker.queue, "other"])
            assert dict(gone.queues) == {broker.queue: UNKNOWN, "other": UNKNOWN}
            assert gone.held is None
            assert "does not answer" in gone.problem

        server.start()
        assert seen(looks, broker.queue) == QueueSample(1, 1500.0), "its memory of scripts is gone, the queue is not"
    finally:
        server.remove()


@pytest.mark.system
def test_a_connection_lost_between_two_looks_is_no_problem(on_redis: Broker, sampler: Make) -> None:
    looks = sampler(on_redis.url, fleet=on_redis.queue)
    assert seen(looks, on_redis.queue) == NOBODY
    with redis.Redis.from_url(on_redis.url) as client:
        (mine,) = [one for one in client.client_list() if one["name"] == f"fleet-samples:{on_redis.queue}"]
        client.client_kill_filter(_id=mine["id"])

    assert seen(looks, on_redis.queue) == NOBODY


@pytest.mark.system
def test_a_server_that_hangs_is_not_waited_for(sampler: Make) -> None:
    server = RedisServer().start()
    assert server._process is not None
    looks = sampler(server.url, answer_seconds=0.2)
    try:
        assert eventually(lambda: looks.sample(["q"]).queues["q"] == NOBODY)
        server._process.send_signal(signal.SIGSTOP)
        hung = [looks.sample(["q"]) for _ in range(2)]
        server._process.send_signal(signal.SIGCONT)

        assert [(sample.queues["q"], bool(sample.problem)) for sample in hung] == [(UNKNOWN, True)] * 2
        assert eventually(lambda: looks.sample(["q"]).queues["q"] == NOBODY)
    finally:
        server._process.send_signal(signal.SIGCONT)
        server.remove()


# --- RabbitMQ ---------------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_rabbitmq_tells_what_is_ready_and_a_queue_that_is_not_there_is_empty(
    on_rabbitmq: Broker, sampler: Make
) -> None:
    on_rabbitmq.send(1, 2, 3)
    queue, looks = on_rabbitmq.queue, sampler(on_rabbitmq.url)
    names = [f"{queue}-none", queue, f"{queue}-neither"]

    for _ in range(2):
        sample = looks.sample(names)
        assert dict(sample.queues) == dict(zip(names, [NOBODY, QueueSample(3), NOBODY], strict=True))
        assert (sample.held, sample.problem) == (None, "")

    channel = on_rabbitmq.channel()
    gather(channel, 2)
    assert eventually(lambda: looks.sample([queue]).queues[queue] == QueueSample(1))
    channel.close()


@pytest.mark.system
def test_a_connection_to_rabbitmq_lost_between_two_looks_is_no_problem(on_rabbitmq: Broker, sampler: Make) -> None:
    on_rabbitmq.send(1)
    looks = sampler(on_rabbitmq.url)
    assert seen(looks, on_rabbitmq.queue) == QueueSample(1)
    source: Any = looks._source
    source._connection.connection.sock.shutdown(socket.SHUT_RDWR)

    assert seen(looks, on_rabbitmq.queue) == QueueSample(1)


# --- the others -------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_file(tmp_path: Path) -> Iterator[Broker]:
    yield Broker("sqlalchemy", f"sqla+sqlite:///{tmp_path}/broker.db")
    for engine, _ in Channel._engines.values():
        engine.dispose()
    Channel._engines.clear()


def test_files_wait_since_they_were_written(tmp_path: Path, sampler: Make) -> None:
    broker = Broker("filesystem", f"filesystem://{tmp_path}/spool")
    looks = sampler(broker.url)
    assert seen(looks, broker.queue) == NOBODY
    broker.send(1, 2, 3)
    broker.send(1, queue=f"{broker.queue}.more")
    files = sorted((tmp_path / "spool").glob(f"*.{broker.queue}.msg"))
    for file, moment in zip(files, [1700, 1500, 1600], strict=True):
        os.utime(file, (moment, moment))

    assert seen(looks, broker.queue) == QueueSample(3, 1500.0)
    channel = KombuChannel(broker.url, queues=[QueueSpec(broker.queue)])
    channel.open()
    gather(channel, 3)
    assert seen(looks, broker.queue) == NOBODY
    channel.close()


def test_rows_wait_since_they_were_sent(in_file: Broker, sampler: Make) -> None:
    looks = sampler(in_file.url)
    assert seen(looks, in_file.queue) == NOBODY
    send(in_file, 1500.0, 1600.0, 1700.0)
    assert seen(looks, in_file.queue) == QueueSample(3, 1600.0), "as the middle one says"
    channel = KombuChannel(in_file.url, queues=[QueueSpec(in_file.queue)])
    channel.open()
    gather(channel, 1)

    assert seen(looks, in_file.queue) == QueueSample(2, 1700.0), "a row that was delivered stays, and waits no more"
    channel.close()
    in_file.send("of somebody else", queue="theirs")
    assert seen(looks, "theirs") == QueueSample(1, None)


def test_a_look_leaves_the_database_to_its_writers(in_file: Broker, sampler: Make) -> None:
    import sqlite3

    looks = sampler(in_file.url)
    send(in_file, 1500.0)
    assert seen(looks, in_file.queue) == QueueSample(1, 1500.0)

    with closing(sqlite3.connect(in_file.url.removeprefix("sqla+sqlite:///"), timeout=0)) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("DELETE FROM kombu_message")
        writer.commit()

    assert seen(looks, in_file.queue) == NOBODY


def test_memory_is_counted_within_the_process(sampler: Make) -> None:
    broker = Broker("memory", "memory://")
    looks = sampler(broker.url)
    assert seen(looks, broker.queue) == NOBODY
    broker.send(1, 2)

    assert seen(looks, broker.queue) == QueueSample(2, None)


def test_a_transport_that_cannot_count_says_so(sampler: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from kombu.transport import memory, virtual

    monkeypatch.setattr(memory.Channel, "_size", virtual.Channel._size)

    sample = sampler("memory://").sample(["q"])

    assert sample.queues["q"] == UNKNOWN
    assert sample.problem == "the broker memory:// does not tell what waits in q"


# --- brokers that are away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "redis://me:s3cret@127.0.0.1:{port}/0",
        "amqp://me:s3cret@127.0.0.1:{port}//",
        "redis://me:s3cret@127.0.0.1:{port};redis://me:s3cret@127.0.0.1:{port}",
        "redis+socket:///nowhere/{port}.sock?virtual_host=0&password=s3cret",
        "nonsense://me:s3cret@host{port}",
        "redis://me:s3cret@host:port/{port}",
        "sqla+sqlite:////nowhere/{port}/broker.db",
    ],
)
def test_a_broker_that_is_not_there_is_a_value(sampler: Make, address: str) -> None:
    sample = sampler(address.format(port=free_port()), answer_seconds=1.0).sample(["a", "b"])

    assert (dict(sample.queues), sample.held) == ({"a": UNKNOWN, "b": UNKNOWN}, None)
    assert "does not answer" in sample.problem
    assert "s3cret" not in sample.problem


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_server_that_never_answers_is_given_up(sampler: Make, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        looks = sampler(f"{scheme}://127.0.0.1:{mute.getsockname()[1]}//", answer_seconds=0.2)

        assert "does not answer" in looks.sample(["q"]).problem


def test_a_sampler_shows_no_password() -> None:
    assert repr(Sampler("redis://:s3cret@host", fleet="shop")) == "<Sampler redis://:**@host>"
