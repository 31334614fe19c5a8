"""A broken line to the broker: what runs goes on, its end is told later, and nothing runs twice because of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fleet.core.desired import TaskPolicy
from tests.conftest import eventually
from tests.servers import free_port
from tests.worker.workers import Shop

pytestmark = [pytest.mark.system, pytest.mark.timeout(100)]


class Line:
    """A TCP line to a broker that can be cut and mended."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._target = (parts.hostname, parts.port)
        self._port = free_port()
        self.url = url.replace(f":{parts.port}", f":{self._port}")
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server: socket.socket | None = None
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

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(self._target)
                self._pairs.append((near, far))
                for a, b in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


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
    worker.spec = worker.spec.from_json({**worker.spec.to_json(), "broker": {"url": line.url}})
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
