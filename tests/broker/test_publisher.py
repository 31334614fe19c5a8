"""Sending: fast, from threads and forks, and with clear errors."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from fleet.broker.connection import is_redis
from fleet.broker.publisher import Outgoing, Publisher, depths
from fleet.errors import Unreachable
from tests.brokers import Broker, filesystem, gather, values
from tests.conftest import eventually
from tests.servers import free_port

SERVERS = [pytest.param("redis", marks=pytest.mark.system), pytest.param("rabbitmq", marks=pytest.mark.system)]


@pytest.fixture(params=SERVERS)
def broker(request: pytest.FixtureRequest) -> Broker:
    return Broker(request.param, request.getfixturevalue(f"{request.param}_url"))


def outgoing(broker: Broker, value: int, **fields: Any) -> Outgoing:
    return Outgoing(broker.queue, str(value), **fields)


def test_many_messages_arrive_once_and_in_order(broker: Broker) -> None:
    heard: list[int] = []
    with Publisher(broker.url) as publisher:
        sent = publisher.send_many((outgoing(broker, n) for n in range(1234)), batch=500, progress=heard.append)
    assert (sent, heard) == (1234, [500, 1000, 1234])
    assert broker.depth() == 1234
    channel = broker.channel(slots=1234)
    taken = gather(channel, 1234)
    assert values(taken) == list(range(1234))
    channel.ack(taken)
    channel.close()


def test_one_batch_may_go_to_several_queues_and_priorities(broker: Broker) -> None:
    other = f"{broker.queue}-other"
    with Publisher(broker.url) as publisher:
        publisher.send_many(
            [
                outgoing(broker, 1, properties={"priority": 9}),
                outgoing(broker, 2, properties={"priority": 0}),
                Outgoing(other, "3"),
            ]
        )
    assert depths(broker.url, [broker.queue, other]) == {broker.queue: 2, other: 1}


def test_threads_share_a_publisher(broker: Broker) -> None:
    with Publisher(broker.url) as publisher:
        threads = [
            threading.Thread(target=lambda: [publisher.send(outgoing(broker, n)) for n in range(50)]) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert eventually(lambda: broker.depth() == 400)


def test_forked_child_has_a_connection_of_its_own(broker: Broker) -> None:
    with Publisher(broker.url) as publisher:
        publisher.send(outgoing(broker, 1))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                publisher.send(outgoing(broker, 2))
                publisher.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        publisher.send(outgoing(broker, 3))
    assert broker.depth() == 3


def test_connection_lost_while_idle_is_made_again(broker: Broker) -> None:
    with Publisher(broker.url) as publisher:
        publisher.send(outgoing(broker, 1))
        wire: Any = publisher._wire
        sock = wire._link._connection._sock if broker.kind == "redis" else wire._connection.connection.sock
        sock.shutdown(2)
        publisher.send(outgoing(broker, 2))
    assert broker.depth() == 2


@pytest.mark.system
def test_credentials_that_are_refused_are_an_error_with_a_hint(redis_url: str) -> None:
    address = redis_url.replace("redis://", "redis://nobody:s3cret@")
    with pytest.raises(Unreachable) as refused:
        Publisher(address).send(Outgoing("q", "1"))
    assert "s3cret" not in str(refused.value)
    assert "password" in refused.value.hint


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_server_that_is_not_there_is_an_error_with_a_hint(scheme: str) -> None:
    address = f"{scheme}://me:s3cret@127.0.0.1:{free_port()}//"
    for call in (lambda: Publisher(address).send(Outgoing("q", "1")), lambda: depths(address, ["q"])):
        with pytest.raises(Unreachable) as gone:
            call()
        assert "does not answer" in str(gone.value)
        assert "s3cret" not in str(gone.value)
        assert gone.value.hint
        assert gone.value.exit_code == 10


def test_socket_that_is_not_there_is_an_error(short_tmp: Path) -> None:
    with pytest.raises(Unreachable, match=r"no\.sock"):
        depths(f"redis+socket://{short_tmp}/no.sock?virtual_host=0", ["q"])


@pytest.mark.parametrize("address", ["nonsense://x", "redis://host:port/x", "redis://host/abc"])
def test_url_that_cannot_be_is_an_error(address: str) -> None:
    with pytest.raises(Unreachable):
        Publisher(address).send(Outgoing("q", "1"))


@pytest.mark.system
def test_depth_counts_every_priority(redis_url: str) -> None:
    broker = Broker("redis", redis_url)
    for priority in (0, 3, 6, 9, 4):
        broker.send(1, priority=priority)
    assert depths(redis_url, [broker.queue, f"{broker.queue}-none"]) == {broker.queue: 5, f"{broker.queue}-none": 0}


@pytest.mark.system
def test_depth_of_a_queue_that_rabbitmq_does_not_know_is_unknown(rabbitmq_url: str) -> None:
    broker = Broker("rabbitmq", rabbitmq_url)
    broker.send(1)
    missing = f"{broker.queue}-none"
    assert depths(rabbitmq_url, [missing, broker.queue, missing + "2"]) == {
        missing: None,
        broker.queue: 1,
        missing + "2": None,
    }


@pytest.mark.system
def test_refused_message_is_an_error(rabbitmq_url: str) -> None:
    import kombu

    broker = Broker("rabbitmq", rabbitmq_url)
    with kombu.Connection(rabbitmq_url) as connection:
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        kombu.Queue(broker.queue, kombu.Exchange(broker.queue), broker.queue, queue_arguments=arguments)(
            connection
        ).declare()
    with Publisher(rabbitmq_url) as publisher:
        publisher.send(outgoing(broker, 1))
        with pytest.raises(Unreachable, match="refused"):
            publisher.send(outgoing(broker, 2))


@pytest.mark.system
def test_full_redis_is_an_error(redis_url: str) -> None:
    broker = Broker("redis", redis_url)
    with redis.Redis.from_url(redis_url) as client, Publisher(redis_url) as publisher:
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(Unreachable, match="maxmemory"):
                publisher.send(outgoing(broker, 1))
        finally:
            client.config_set("maxmemory", 0)
        publisher.send(outgoing(broker, 2))
    assert broker.depth() == 1


def test_other_transports_are_sent_to_through_kombu(tmp_path: Path) -> None:
    broker = Broker("filesystem", "filesystem://", filesystem(tmp_path))
    broker.send(1, 2)
    assert broker.depth() == 2


def test_lists_of_servers_and_sentinels_are_left_to_kombu() -> None:
    assert is_redis("redis://h")
    assert is_redis("rediss://h")
    assert is_redis("redis+socket:///x")
    assert not is_redis("redis://a;redis://b")
    assert not is_redis("sentinel://a")
    assert not is_redis("amqp://a")
    assert not is_redis("h")
