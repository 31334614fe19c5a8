"""Events as Celery's monitors read them: an app's own receiver, ``celery events``, Flower."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, eventually
from tests.system.remote import NODE, RemoteShop, ids
from tests.system.test_worker_celery import WAIT

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture(params=["redis", "rabbitmq"])
def shop(request: pytest.FixtureRequest, redis_url: str, short_tmp: Path) -> Iterator[RemoteShop]:
    made = RemoteShop(short_tmp, request.getfixturevalue(f"{request.param}_url"), redis_url)
    yield made
    made.close()


@pytest.fixture
def redis_shop(redis_url: str, short_tmp: Path) -> Iterator[RemoteShop]:
    made = RemoteShop(short_tmp, redis_url, redis_url)
    yield made
    made.close()


class Watcher(threading.Thread):
    """Collects what Celery's own event receiver hears of one node."""

    def __init__(self, shop: RemoteShop) -> None:
        super().__init__(daemon=True)
        self.shop = shop
        self.events: list[dict[str, Any]] = []
        self.receiver: Any = None

    def run(self) -> None:
        with self.shop.app.connection_for_read() as connection:
            self.receiver = self.shop.app.events.Receiver(connection, handlers={"*": self.hear})
            # In one go: between two captures it is not subscribed, and what is sent then is lost.
            self.receiver.capture(limit=None, timeout=None, wakeup=False)

    def hear(self, event: dict[str, Any]) -> None:
        if event["hostname"] == NODE:
            self.events.append(event)

    def of(self, kind: str, uuid: str = "") -> dict[str, Any] | None:
        found = [event for event in self.events if event["type"] == kind and uuid in (event.get("uuid"), "")]
        return found[-1] if found else None

    def kinds(self, uuid: str) -> list[str]:
        return [event["type"] for event in self.events if event.get("uuid") == uuid]

    def close(self) -> None:
        eventually(lambda: self.receiver is not None)
        self.receiver.should_stop = True
        self.join(PATIENCE)


@pytest.fixture
def watcher(shop: RemoteShop) -> Iterator[Watcher]:
    made = Watcher(shop)
    made.start()
    yield made
    made.close()


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 1), ("threads", 1)])
def test_a_receiver_hears_what_happens_to_tasks(shop: RemoteShop, watcher: Watcher, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    unseen = shop.send("add", 1, 1)
    unseen.get(**WAIT)
    eventually(lambda: [shop.ask("heartbeat"), watcher.of("worker-heartbeat")][1])
    assert shop.control("enable_events") == {"ok": "task events enabled"}
    assert shop.ask("enable_events") == {"ok": "task events already enabled"}
    added, failed = shop.send("add", 2, 3), shop.send("broken")
    retried = shop.send("flaky", 1)
    task_id = uuid.uuid4().hex
    shop.ask("revoke", task_id=task_id)  # before it is sent: nothing can be too late
    revoked = shop.send("add", 5, 5, countdown=1, task_id=task_id)
    unknown = shop.send("nobody")
    eventually(lambda: watcher.of("task-succeeded", retried.id) and watcher.of("task-revoked", revoked.id))
    eventually(lambda: watcher.of("task-failed", unknown.id))
    assert watcher.kinds(added.id) == ["task-received", "task-started", "task-succeeded"]
    assert watcher.kinds(failed.id) == ["task-received", "task-started", "task-failed"]
    assert "task-retried" in watcher.kinds(retried.id)
    assert watcher.kinds(unseen.id) == []
    received = watcher.of("task-received", added.id)
    assert received is not None
    assert received["name"] == "capp.add"
    assert received["args"] == "(2, 3)"
    assert (received["retries"], received["eta"], received["root_id"]) == (0, None, added.id)
    assert {"pid", "clock", "timestamp", "utcoffset", "kwargs", "expires", "parent_id"} <= set(received)
    succeeded, failure = watcher.of("task-succeeded", added.id), watcher.of("task-failed", failed.id)
    assert succeeded is not None
    assert failure is not None
    assert succeeded["result"] == "5"
    assert succeeded["runtime"] >= 0
    assert succeeded["clock"] > received["clock"]
    assert failure["exception"] == "ValueError('as asked')"
    assert "as asked" in failure["traceback"]
    end = watcher.of("task-revoked", revoked.id)
    assert end is not None
    assert (end["terminated"], end["expired"]) == (False, False)
    assert shop.ask("disable_events") == {"ok": "task events disabled"}
    silent = shop.send("add", 1, 2)
    silent.get(**WAIT)
    assert worker.term() == 0
    offline = eventually(lambda: watcher.of("worker-offline"))
    assert watcher.kinds(silent.id) == []
    assert offline is not None
    assert {"freq", "sw_ident", "sw_ver", "sw_sys", "active", "processed", "loadavg"} <= set(offline)
    assert offline["processed"] >= 5


def test_the_end_of_a_terminated_solo_task_is_told(shop: RemoteShop, watcher: Watcher) -> None:
    worker = shop.worker("solo", 1)
    eventually(lambda: [shop.ask("heartbeat"), watcher.of("worker-heartbeat")][1])
    shop.ask("enable_events")
    result = shop.send("sleeps", 60)
    eventually(lambda: watcher.of("task-started", result.id))
    shop.ask("revoke", task_id=result.id, terminate=True)
    assert worker.wait() == 75
    ended = eventually(lambda: watcher.of("task-revoked", result.id))
    assert ended is not None
    assert ended["terminated"] is True
    assert eventually(lambda: watcher.of("worker-offline"))


def test_an_app_that_wants_events_has_them_from_the_start(shop: RemoteShop, watcher: Watcher) -> None:
    with (shop.folder / "capp.py").open("a") as file:
        file.write("\napp.conf.worker_send_task_events = True\n")
    shop.worker("threads", 2)
    eventually(lambda: [shop.ask("heartbeat"), watcher.of("worker-heartbeat")][1])
    results = [shop.send("add", number, number) for number in range(200)]
    eventually(lambda: all(watcher.of("task-succeeded", result.id) for result in results))


def test_celery_events_dumps_them(redis_shop: RemoteShop) -> None:
    redis_shop.worker("threads", 1)
    dump = subprocess.Popen(
        [sys.executable, "-m", "celery", "-b", redis_shop.url, "-A", "capp", "events", "--dump"],
        cwd=redis_shop.folder,
        env={**redis_shop.tool_environ(), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=(redis_shop.folder / "dump").open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        said = redis_shop.folder / "dump"
        redis_shop.ask("enable_events")
        eventually(lambda: [redis_shop.ask("heartbeat"), " heartbeat: " in said.read_text()][1])
        result = redis_shop.send("add", 1, 2)
        eventually(lambda: f"task succeeded: capp.add({result.id})" in said.read_text())
    finally:
        dump.kill()
        dump.wait()


class Flower:
    """A real Flower on a port of its own."""

    def __init__(self, shop: RemoteShop) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = shop.folder / "flower.log"
        options = ["--address=127.0.0.1", f"--port={self.port}", "--inspect-timeout=5000"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-b", shop.url, "-A", "capp", "flower", *options],
            cwd=shop.folder,
            env={**shop.tool_environ(), "FLOWER_UNAUTHENTICATED_API": "true"},
            stdin=subprocess.DEVNULL,
            stdout=self.log.open("wb"),
            stderr=subprocess.STDOUT,
        )

    def get(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as reply:
                return str(reply.read().decode())
        except OSError as error:
            assert self.process.poll() is None, self.log.read_text()
            raise AssertionError(f"{path}: {error}") from error

    def json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def post(self, path: str, **fields: Any) -> Any:
        """What it answers, a document. Fields of calls are JSON, those of all other endpoints a form."""
        is_call = "apply/" in path or "send-task/" in path
        data = json.dumps(fields) if is_call else urllib.parse.urlencode(fields)
        url = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(url, data=data.encode(), timeout=PATIENCE) as reply:
                return json.loads(reply.read())
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from error

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def flower(redis_shop: RemoteShop) -> Iterator[Flower]:
    made = Flower(redis_shop)
    yield made
    made.close()


def test_flower_shows_workers_and_tasks(redis_shop: RemoteShop, flower: Flower) -> None:
    worker = redis_shop.worker("prefork", 2)
    eventually(lambda: flower.get("/healthcheck"))
    shown = eventually(lambda: flower.json("/api/workers?refresh=1").get(NODE))
    assert shown["stats"]["pid"] == worker.pid
    assert shown["active_queues"][0]["name"] == redis_shop.queue
    assert any(name.startswith("capp.add") for name in shown["registered"])
    eventually(lambda: flower.json("/api/workers?status=1").get(NODE) is True)
    eventually(lambda: redis_shop.ask("enable_events") == {"ok": "task events already enabled"})
    added, failed = redis_shop.send("add", 20, 22), redis_shop.send("broken")
    eventually(lambda: states(flower) == {added.id: "SUCCESS", failed.id: "FAILURE"})
    task = flower.json("/api/tasks")[added.id]
    assert (task["name"], task["result"], task["worker"]) == ("capp.add", "42", NODE)
    assert "42" in flower.get(f"/task/{added.id}")
    page = flower.get(f"/worker/{NODE}")
    assert str(worker.pid) in page
    assert redis_shop.queue in page
    assert NODE in flower.get("/workers")
    assert redis_shop.queue in flower.get("/broker")
    assert f'worker="{NODE}"' in flower.get("/metrics")
    assert flower.json("/api/queues/length") == {"active_queues": [{"name": redis_shop.queue, "messages": 0}]}
    assert flower.json(f"/api/task/result/{added.id}")["result"] == 42
    assert "ValueError" in flower.json(f"/api/task/info/{failed.id}")["exception"]
    steered(redis_shop, flower)
    flower.post(f"/api/worker/shutdown/{NODE}")
    assert worker.wait() == 0
    eventually(lambda: flower.json("/api/workers?status=1").get(NODE) is False)


def steered(shop: RemoteShop, flower: Flower) -> None:
    """Each endpoint that does something does it, in a worker of prefork with two slots."""

    def slots() -> int:
        return int(shop.ask("stats")["pool"]["max-concurrency"])

    flower.post(f"/api/worker/pool/grow/{NODE}", n="2")
    assert slots() == 4
    flower.post(f"/api/worker/pool/shrink/{NODE}", n="1")
    assert slots() == 3
    flower.post(f"/api/worker/pool/autoscale/{NODE}", min="1", max="2")
    assert slots() <= 2
    flower.post(f"/api/worker/pool/restart/{NODE}")
    flower.post(f"/api/worker/queue/add-consumer/{NODE}", queue="more")
    assert {one["name"] for one in shop.ask("active_queues")} == {shop.queue, "more"}
    flower.post(f"/api/worker/queue/cancel-consumer/{NODE}", queue="more")
    assert {one["name"] for one in shop.ask("active_queues")} == {shop.queue}
    flower.post("/api/task/timeout/capp.add", workername=NODE, soft="30", hard="100")
    flower.post("/api/task/rate-limit/capp.add", workername=NODE, ratelimit="200/s")
    assert flower.post("/api/task/apply/capp.add", args=[1, 2], queue=shop.queue)["result"] == 3
    for how in ("async-apply", "send-task"):
        sent = flower.post(f"/api/task/{how}/capp.add", args=[1, 2], queue=shop.queue)["task-id"]
        eventually(lambda task=sent: flower.json(f"/api/task/result/{task}").get("result") == 3)
    spinning = shop.send("spins", 600)
    eventually(lambda: spinning.id in ids(shop.ask("active")))
    flower.post(f"/api/task/revoke/{spinning.id}", terminate="true")
    eventually(lambda: flower.json(f"/api/task/info/{spinning.id}")["state"] == "REVOKED")


def states(flower: Flower) -> dict[str, str]:
    return {uuid: task["state"] for uuid, task in flower.json("/api/tasks").items()}
