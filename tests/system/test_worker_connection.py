"""A broken line to the broker: what runs goes on, its end is told later, and nothing runs twice because of it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import kombu
import pytest

from fleet.core.spec import TaskPolicy
from tests.conftest import eventually
from tests.servers import free_port
from tests.worker.workers import Shop

pytestmark = pytest.mark.system


class Line:
    """A TCP line to a broker that can be cut and mended, go silent, or swallow what RabbitMQ delivers."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._target = (parts.hostname, parts.port)
        self._port = free_port()
        self.url = url.replace(f":{parts.port}", f":{self._port}")
        self.kind = parts.scheme
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server: socket.socket | None = None
        self._silent: set[socket.socket] = set()
        self._withheld: set[socket.socket] = set()
        self.mend()

    def mend(self) -> None:
        server = self._server = socket.create_server(("127.0.0.1", self._port), reuse_port=True)
        threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def cut(self) -> None:
        """Refuse new connections and break all there are."""
        server, self._server = self._server, None
        if server is not None:
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
        self._pairs.clear()

    def silence(self) -> None:
        """From now on nothing passes on the connections there are, and nobody is told."""
        self._silent |= {end for pair in self._pairs for end in pair}

    def withhold(self) -> None:
        """From now on RabbitMQ's deliveries do not pass on the connections there are; all else does."""
        self._withheld |= {near for near, _ in self._pairs}

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(self._target)
                self._pairs.append((near, far))
                back = self._pump_frames if self.url.startswith("amqp") else self._pump
                threading.Thread(target=self._pump, args=(near, far), daemon=True).start()
                threading.Thread(target=back, args=(far, near), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if source not in self._silent:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def _pump_frames(self, source: socket.socket, sink: socket.socket) -> None:
        """From RabbitMQ, which sends nothing but frames: type, channel, size, payload, end."""
        swallowing = False
        with suppress(OSError), source.makefile("rb") as stream:
            while len(head := stream.read(7)) == 7:
                kind, _, size = struct.unpack(">BHI", head)
                payload = stream.read(size + 1)
                if kind == 1:
                    swallowing = sink in self._withheld and payload[:4] == b"\x00\x3c\x00\x3c"
                if sink not in self._silent and not (swallowing and kind in (1, 2, 3)):
                    sink.sendall(head + payload)
            sink.shutdown(socket.SHUT_WR)


PATIENCE = {"redis": "", "amqp": "?heartbeat=2"}
"""What lets a silent peer be noticed sooner. By default two heartbeats of 10 seconds, or 20 seconds of no answer."""


@pytest.fixture(params=["redis", "rabbitmq"])
def direct(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[Shop]:
    made = Shop(short_tmp, request.getfixturevalue(f"{request.param}_url"))
    yield made
    made.close()


@pytest.fixture
def line(direct: Shop) -> Iterator[Line]:
    made = Line(direct.url)
    yield made
    made.cut()


def over(direct: Shop, line: Line, pool: str, slots: int, **fields: object):  # type: ignore[no-untyped-def]
    """A worker of the shop that reaches its broker over the line."""
    worker = direct.worker(pool, slots, start=False, **fields)
    worker.spec = worker.spec.from_json({**worker.spec.to_json(), "broker": {"url": line.url + PATIENCE[line.kind]}})
    return worker.start()


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 2), ("threads", 2)])
def test_a_task_that_ran_through_a_broken_line_is_not_repeated(direct: Shop, line: Line, pool: str, slots: int) -> None:
    worker = over(direct, line, pool, slots)
    direct.send("note", 1, 2.0)
    eventually(lambda: direct.started()[1] == 1)
    line.cut()
    eventually(lambda: "no connection" in (v.note if (v := worker.view()) else ""))
    line.mend()
    eventually(lambda: direct.done()[1] == 1)
    direct.send("note", 2)
    eventually(lambda: direct.done()[2] == 1)
    assert worker.term() == 0
    assert direct.started()[1] == 1
    assert direct.depth() == 0


def test_the_end_of_a_task_is_told_when_the_line_is_back(direct: Shop, line: Line) -> None:
    worker = over(direct, line, "prefork", 2, task=TaskPolicy(prefetch=6))
    direct.send_notes(range(2), 1.0)
    eventually(lambda: len(direct.started()) == 2)
    line.cut()
    eventually(lambda: len(direct.done()) == 2)
    line.mend()
    direct.send("broken", 5)
    assert eventually(direct.dead)
    assert worker.term() == 0
    assert direct.started()[0] == direct.started()[1] == 1
    assert direct.depth() == 0


def test_a_worker_starts_when_its_broker_comes(direct: Shop, line: Line) -> None:
    line.cut()
    worker = direct.worker(start=False)
    worker.spec = worker.spec.from_json({**worker.spec.to_json(), "broker": {"url": line.url}})
    worker.start(ready=False)
    eventually(lambda: "no connection" in (v.note if (v := worker.view()) else ""))
    line.mend()
    worker.wait_state("ready")
    assert worker.term() == 0


def test_term_without_a_broker_ends_at_once(direct: Shop, line: Line) -> None:
    worker = over(direct, line, "solo", 1)
    line.cut()
    eventually(lambda: "no connection" in (v.note if (v := worker.view()) else ""))
    assert worker.term() == 0


@pytest.mark.parametrize(
    ("direct", "pool"), [("redis", "solo"), ("rabbitmq", "solo"), ("rabbitmq", "prefork")], indirect=["direct"]
)
def test_a_peer_that_goes_silent_is_noticed_and_the_worker_resumes(direct: Shop, line: Line, pool: str) -> None:
    worker = over(direct, line, pool, 1 if pool == "solo" else 2)
    direct.send("note", 1, 2.0)
    eventually(lambda: direct.started()[1] == 1)
    line.silence()
    eventually(lambda: "the connection to the broker is lost" in worker.log())
    direct.send("note", 2)
    eventually(lambda: direct.done()[2] == 1)
    assert worker.term() == 0
    assert direct.done() == {1: 1, 2: 1}
    assert direct.started()[1] == 1
    assert eventually(lambda: direct.depth() == 0)


def test_an_idle_worker_notices_a_silent_peer(rabbit_shop: Shop) -> None:
    line = Line(rabbit_shop.url)
    worker = over(rabbit_shop, line, "threads", 2)
    line.silence()
    rabbit_shop.send("note", 1)
    eventually(lambda: rabbit_shop.done()[1] == 1)
    assert worker.term() == 0
    line.cut()


@pytest.fixture
def rabbit_shop(rabbitmq_url: str, short_tmp: Path) -> Iterator[Shop]:
    made = Shop(short_tmp, rabbitmq_url)
    yield made
    made.close()


def test_a_connection_over_which_nothing_comes_any_more_is_rebuilt(rabbit_shop: Shop) -> None:
    line = Line(rabbit_shop.url)
    worker = over(rabbit_shop, line, "threads", 2, environ={"FLEET_STALL_SECONDS": "2"})
    rabbit_shop.send("note", 0)
    eventually(lambda: rabbit_shop.done()[0] == 1)
    line.withhold()
    rabbit_shop.send_notes(range(1, 7))
    eventually(lambda: len(rabbit_shop.done()) == 7)
    assert "messages wait, slots are free, and nothing came" in worker.log()
    assert worker.term() == 0
    assert set(rabbit_shop.done().values()) == {1}
    line.cut()


def test_messages_that_another_consumer_alone_may_have_do_not_end_the_worker(rabbit_shop: Shop) -> None:
    with kombu.Connection(rabbit_shop.url) as connection:
        arguments = {"x-single-active-consumer": True}
        name = rabbit_shop.queue
        queue = kombu.Queue(name, kombu.Exchange(name), name, queue_arguments=arguments)
        consumer = kombu.Consumer(connection, [queue], on_message=lambda message: None, prefetch_count=1)
        consumer.consume()
        worker = rabbit_shop.worker("threads", 2, environ={"FLEET_STALL_SECONDS": "1"})
        rabbit_shop.send_notes(range(4))
        eventually(lambda: "the broker keeps them for somebody else" in worker.log())
        assert worker.log().count("the connection to the broker is lost") == 1
        consumer.cancel()
    eventually(lambda: len(rabbit_shop.done()) == 4)
    assert worker.term() == 0


def test_a_solo_task_that_blocks_past_the_heartbeat_keeps_its_connection(rabbitmq_url: str, short_tmp: Path) -> None:
    shop = Shop(short_tmp, f"{rabbitmq_url}?heartbeat=2")
    try:
        worker = shop.worker()
        shop.send("blocked", 1, 8)  # RabbitMQ hangs up after two heartbeats that did not come
        eventually(lambda: shop.done()[1] == 1)
        assert worker.term() == 0
        assert "lost" not in worker.log()
        assert shop.started() == {1: 1}
        assert shop.depth() == 0
    finally:
        shop.close()
