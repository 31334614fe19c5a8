"""Work that must be neither lost nor run twice nor go round for ever, as Celery's own worker has it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import kombu
import pytest
import redis
from celery.exceptions import TaskRevokedError

from fleet.broker.publisher import depths
from fleet.core.spec import TaskPolicy
from tests.conftest import PATIENCE, eventually
from tests.system.test_worker_celery import WAIT, CeleryShop
from tests.worker.workers import PROJECT, RunningWorker

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

POOLS = [("solo", 1), ("prefork", 1), ("threads", 1), ("gevent", 1), ("eventlet", 1), ("asyncio", 1)]

APP = """
import os, time
from celery import Celery
from celery.exceptions import Reject

app = Celery("capp", broker="memory://", backend=os.environ["RESULTS"])
app.conf.task_default_queue = os.environ["QUEUE"]
app.conf.result_expires = 60


def write(text):
    descriptor = os.open(os.environ["OUT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (str(text) + "\\n").encode())
    os.close(descriptor)


@app.task
def add(x, y):
    return x + y


@app.task(bind=True, acks_late=True)
def until_redelivered(self):
    write("once more")
    if not self.request.delivery_info["redelivered"]:
        raise Reject("not yet", requeue=True)
    return "redelivered"


@app.task(bind=True, acks_late=True)
def put_back(self, times):
    write("put back")
    if open(os.environ["OUT"]).read().count("put back") < times:
        raise Reject("not yet", requeue=True)
    return "in the end"


@app.task
def holds(gate):
    write("holds")
    while not os.path.exists(gate):
        time.sleep(0.05)
    return "released"


@app.task
def must_not_run():
    write("it ran")


@app.task
def noted(number):
    write(f"noted {number}")
    return number
"""


@pytest.fixture(params=["redis", "rabbitmq"])
def shop(request: pytest.FixtureRequest, redis_url: str, short_tmp: Path) -> Iterator[CeleryShop]:
    made = CeleryShop(short_tmp, request.getfixturevalue(f"{request.param}_url"), redis_url)
    (short_tmp / "capp.py").write_text(APP)
    yield made
    made.close()


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_what_goes_back_to_its_queue_is_redelivered(shop: CeleryShop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    assert shop.send("until_redelivered").get(**WAIT) == "redelivered"
    assert shop.lines().count("once more") == 2
    assert shop.send("put_back", 5).get(**WAIT) == "in the end"
    assert shop.lines().count("put back") == 5
    assert worker.term() == 0


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_task_that_expires_in_the_worker_is_revoked(shop: CeleryShop, pool: str, slots: int) -> None:
    gate = shop.folder / "gate"
    worker = shop.worker(pool, slots, task=TaskPolicy(prefetch=4))
    first = shop.send("holds", str(gate))
    eventually(lambda: "holds" in shop.lines())
    if pool == "solo":  # it fetches between its tasks only
        gate.touch()
        gate = shop.folder / "second"
        first = shop.send("holds", str(gate))
    expires = time.time() + 3
    late = shop.send("must_not_run", expires=3)
    if pool != "solo":
        eventually(lambda: (view := worker.view()) is not None and view.waiting == 1)
    eventually(lambda: time.time() > expires)
    gate.touch()
    assert first.get(**WAIT) == "released"
    if pool != "solo" or "redis" in shop.url:
        with pytest.raises(TaskRevokedError, match="expired"):
            late.get(**WAIT)
    assert shop.send("add", 1, 1).get(**WAIT) == 2
    assert "it ran" not in shop.lines()


@pytest.mark.parametrize("acks", ["late", "early"])
def test_a_killed_solo_worker_repeats_what_it_was_running_and_every_result_is_there(
    shop: CeleryShop, acks: Literal["late", "early"]
) -> None:
    """Also those that were to be stored together with the next ones."""
    with shop.app.connection_for_write() as connection, connection.Producer() as producer:
        sent = [shop.send("noted", number, producer=producer) for number in range(600)]
    worker = shop.worker("solo", 1, task=TaskPolicy(acks=acks))
    for done in (150, 400):
        eventually(lambda: len(shop.lines()) > done, every=0.005)  # noqa: B023
        worker.kill()
        worker.start()
    keys = [shop.app.backend.get_key_for_task(one.id) for one in sent]
    lost = 0 if acks == "late" else 2  # what was running, and had been acknowledged before
    eventually(lambda: shop.app.backend.client.exists(*keys) >= 600 - lost)
    lines = Counter(shop.lines())
    assert len(lines) >= 600 - lost
    if acks == "early" or "redis" in shop.url:
        assert lines.total() <= 600 + 2
    assert worker.term() == 0


def test_a_worker_without_queues_takes_from_the_apps_default_queue(shop: CeleryShop) -> None:
    worker = RunningWorker(shop.folder, shop.url, queues=[], app="capp:app", environ=shop.environ)
    shop.workers.append(worker)
    worker.start()
    assert shop.send("add", 1, 2).get(**WAIT) == 3
    assert f"on {shop.queue}" in worker.log()


def test_fleet_worker_needs_no_more_than_the_app(shop: CeleryShop) -> None:
    environ = {**os.environ, **shop.environ, "CELERY_BROKER_URL": shop.url, "PYTHONPATH": f"{shop.folder}:{PROJECT}"}
    environ.pop("FLEET_BROKER_URL", None)
    (shop.folder / "capp.py").write_text(APP.replace('broker="memory://"', f'broker="{shop.url}"'))
    command = [sys.executable, "-m", "fleet", "worker", "-A", "capp:app"]
    with (shop.folder / "by-hand.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=shop.folder, env=environ, stdout=log, stderr=log)
    try:
        assert shop.send("add", 1, 2).get(**WAIT) == 3
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


QUEUES = """
from kombu import Exchange, Queue
from kombu.common import Broadcast

name = os.environ["QUEUE"]
app.conf.task_create_missing_queue_type = "quorum"
app.conf.task_queues = [
    Queue(name, Exchange(name + ".x", type="topic"), routing_key="to." + name),
    Queue(
        name + ".own",
        Exchange(name + ".x", type="topic"),
        routing_key="own." + name,
        queue_arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": name + ".graves"},
    ),
    Broadcast(name + ".news"),
]


@app.task(acks_late=True)
def refuses():
    raise Reject("never", requeue=False)


@app.task
def heard():
    write("heard " + str(os.getppid()))
"""


@pytest.fixture
def queues_shop(rabbitmq_url: str, redis_url: str, short_tmp: Path) -> Iterator[CeleryShop]:
    made = CeleryShop(short_tmp, rabbitmq_url, redis_url)
    (short_tmp / "capp.py").write_text(APP + QUEUES)
    yield made
    made.close()


def worker_of(shop: CeleryShop, replica: str, *queues: str, ready: bool = True, **fields: Any) -> RunningWorker:
    made = RunningWorker(
        shop.folder, shop.url, replica=replica, queues=queues, app="capp:app", environ=shop.environ, **fields
    )
    shop.workers.append(made)
    return made.start(ready=ready)


def declared_as(shop: CeleryShop, queue: kombu.Queue) -> None:
    """The app's own declaration must be that of the worker: RabbitMQ refuses any other."""
    with kombu.Connection(shop.url) as connection:
        queue(connection.channel()).declare()


def test_queues_are_declared_as_the_app_itself_would(queues_shop: CeleryShop) -> None:
    shop = queues_shop
    name = shop.queue
    worker = worker_of(shop, "shop.0", name, f"{name}.missing")
    topic = kombu.Exchange(f"{name}.x", type="topic")
    declared_as(
        shop,
        kombu.Queue(
            name,
            topic,
            routing_key=f"to.{name}",
        ),
    )
    with kombu.Connection(shop.url) as connection:
        found = kombu.Queue(f"{name}.missing")(connection.channel()).queue_declare(passive=True)
        assert found.queue == f"{name}.missing"
    with kombu.Connection(shop.url) as connection, pytest.raises(connection.channel_errors, match="quorum"):
        kombu.Queue(f"{name}.missing")(connection.channel()).queue_declare()
    shop.app.send_task("capp.add", (1, 2), exchange=topic, routing_key=f"to.{name}").get(**WAIT)
    assert worker.term() == 0


def test_every_worker_gets_a_broadcast(queues_shop: CeleryShop) -> None:
    shop = queues_shop
    news = f"{shop.queue}.news"
    workers = [worker_of(shop, f"shop.{number}", news, pool="threads") for number in range(2)]
    shop.app.send_task("capp.heard", exchange=kombu.Exchange(news, type="fanout"), routing_key="any")
    eventually(lambda: sum(line.startswith("heard") for line in shop.lines()) == 2)
    for worker in workers:
        assert worker.term() == 0


@pytest.mark.parametrize(("where", "graves", "dead"), [(None, 1, 0), ("broker", 1, 0), ("fleet", 0, 1), ("none", 0, 0)])
def test_dead_letters_go_where_the_queue_says(queues_shop: CeleryShop, where: Any, graves: int, dead: int) -> None:
    shop = queues_shop
    own = f"{shop.queue}.own"
    with kombu.Connection(shop.url) as connection:
        kombu.Queue(f"{shop.queue}.graves")(connection.channel()).queue_declare()
    worker = worker_of(shop, "shop.0", own, task=TaskPolicy(dead_letters=where))
    topic = kombu.Exchange(f"{shop.queue}.x", type="topic")
    result = shop.app.send_task("capp.refuses", exchange=topic, routing_key=f"own.{shop.queue}")
    with pytest.raises(Exception, match="never"):
        result.get(**WAIT)
    names = [f"{shop.queue}.graves", f"{own}.dead", own]
    eventually(lambda: [depths(shop.url, [name])[name] or 0 for name in names] == [graves, dead, 0])
    assert worker.term() == 0


@pytest.fixture
def redis_queues_shop(redis_url: str, short_tmp: Path) -> Iterator[CeleryShop]:
    made = CeleryShop(short_tmp, redis_url, redis_url)
    (short_tmp / "capp.py").write_text(APP + QUEUES)
    yield made
    made.close()


def broadcast(shop: CeleryShop, news: str) -> None:
    """On Redis a producer publishes to what it has declared as a fanout exchange; of another kind it finds no queue."""
    exchange = kombu.Exchange(news, type="fanout")
    shop.app.send_task("capp.heard", exchange=exchange, routing_key=shop.queue, declare=[exchange])


def heard(shop: CeleryShop) -> int:
    return sum(line.startswith("heard") for line in shop.lines())


def test_every_worker_on_redis_gets_a_broadcast_in_every_pool(redis_queues_shop: CeleryShop) -> None:
    shop = redis_queues_shop
    news = f"{shop.queue}.news"
    pools = ["solo", "prefork", "threads", "gevent", "eventlet", "asyncio"]
    workers = [worker_of(shop, f"shop.{number}", news, shop.queue, pool=pool) for number, pool in enumerate(pools)]
    broadcast(shop, news)
    eventually(lambda: heard(shop) == len(pools))
    assert shop.send("add", 1, 1).get(**WAIT) == 2
    for worker in workers:
        assert worker.term() == 0
    assert heard(shop) == len(pools)


def test_a_broadcast_on_redis_waits_for_a_busy_worker_and_survives_its_death(redis_queues_shop: CeleryShop) -> None:
    shop = redis_queues_shop
    news, gate = f"{shop.queue}.news", shop.folder / "gate"
    worker = worker_of(shop, "shop.0", news, shop.queue, pool="solo")
    shop.send("holds", str(gate))
    eventually(lambda: "holds" in shop.lines())
    broadcast(shop, news)
    server = redis.Redis.from_url(shop.url)
    eventually(lambda: any(server.llen(key) for key in server.scan_iter("*inbox*")))
    worker.kill()
    gate.touch()
    again = worker_of(shop, "shop.0", news, shop.queue, pool="solo")
    eventually(lambda: heard(shop) == 1)
    assert again.term() == 0
    server.close()


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_revoke_is_stored_at_once_and_known_to_replicas_that_start_later(shop: CeleryShop, pool: str) -> None:
    gate = shop.folder / "gate"
    first = worker_of(shop, "shop.0", shop.queue, pool=pool)
    running = shop.send("holds", str(gate))
    eventually(lambda: "holds" in shop.lines())
    waiting = shop.send("must_not_run")
    dated = shop.send("must_not_run", countdown=3600)
    shop.app.control.revoke([waiting.id, dated.id, running.id], reply=True, timeout=PATIENCE, limit=1)
    for revoked in (waiting, dated):
        with pytest.raises(TaskRevokedError):
            revoked.get(**WAIT)
    second = worker_of(shop, "shop.1", shop.queue, pool=pool)
    assert shop.send("add", 1, 1).get(**WAIT) == 2
    gate.touch()
    assert running.get(**WAIT) == "released"
    assert first.term() == 0
    assert second.term() == 0
    assert "it ran" not in shop.lines()


def test_a_worker_that_starts_learns_what_is_revoked_from_celerys_worker_elsewhere(shop: CeleryShop) -> None:
    pool = "solo" if shop.url.startswith("redis") else "gevent"
    command = [sys.executable, "-m", "celery", "-A", "capp", "-b", shop.url, "worker", "-P", "solo", "-Q", "nothing"]
    with (shop.folder / "celery.log").open("wb") as log:
        elsewhere = subprocess.Popen(
            command, cwd=shop.folder, env={**os.environ, **shop.environ}, stdout=log, stderr=log
        )
    try:
        eventually(lambda: shop.app.control.ping(timeout=0.5))
        task = shop.send("must_not_run")
        assert shop.app.control.revoke(task.id, reply=True, timeout=PATIENCE, limit=1)
        shop.environ["FLEET_MINGLE_SECONDS"] = "10"
        worker = worker_of(shop, "shop.0", shop.queue, pool=pool)
        assert shop.send("add", 1, 1).get(**WAIT) == 2
        with pytest.raises(TaskRevokedError):
            task.get(**WAIT)
        assert "1 revoked ids learned from 1 workers elsewhere" in worker.log()
        second = worker_of(shop, "shop.1", shop.queue, pool=pool)
        replies = shop.app.control.broadcast(
            "revoked", reply=True, timeout=PATIENCE, limit=1, pattern="*.shop.1@*", matcher="glob"
        )
        assert [*replies[0].values()] == [[task.id]], "the first has asked for both"
        assert "learned" not in second.log()
        assert second.term() == 0
        assert worker.term() == 0
        assert "it ran" not in shop.lines()
    finally:
        elsewhere.terminate()
        elsewhere.wait()


PROCESS = """
import signal, sys


@app.task
def spoils():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    sys.stderr.close()
    sys.stdout.close()


@app.task
def closes():
    sys.stderr.close()
    sys.stdout.close()


@app.task(ignore_result=True)
def forks():
    os.fork()


@app.task(acks_late=True, ignore_result=True)
def shuts():
    write("shuts")
    if open(os.environ["OUT"]).read().count("shuts") == 1:
        os.closerange(3, 1000)
"""
SHARED = ["solo", "threads", "gevent", "eventlet", "asyncio"]
"""Pools whose tasks run in the worker's own process."""


@pytest.mark.parametrize("pool", SHARED)
def test_a_task_that_closes_all_descriptors_costs_the_process_and_comes_again(
    redis_url: str, short_tmp: Path, pool: str
) -> None:
    shop = CeleryShop(short_tmp, redis_url, redis_url)
    (short_tmp / "capp.py").write_text(APP + PROCESS)
    try:
        worker = worker_of(shop, "shop.0", shop.queue, pool=pool)
        shop.send("shuts")
        assert worker.wait() != 0
        worker.start()
        assert shop.send("add", 1, 1).get(**WAIT) == 2
        eventually(lambda: shop.lines().count("shuts") == 2)
        assert worker.term() == 0
    finally:
        shop.close()


@pytest.mark.parametrize(
    ("pool", "task"),
    [("solo", "spoils"), ("threads", "closes"), ("gevent", "spoils"), ("eventlet", "spoils"), ("asyncio", "closes")],
)
def test_what_a_task_does_to_its_process_is_put_back(redis_url: str, short_tmp: Path, pool: str, task: str) -> None:
    shop = CeleryShop(short_tmp, redis_url, redis_url)
    (short_tmp / "capp.py").write_text(APP + PROCESS)
    try:
        worker = worker_of(shop, "shop.0", shop.queue, pool=pool)
        shop.send(task).get(**WAIT)
        assert shop.send("add", 1, 1).get(**WAIT) == 2
        assert worker.term() == 0
        assert "draining -> stopped" in worker.log()
    finally:
        shop.close()


@pytest.mark.parametrize("pool", SHARED)
def test_a_fork_that_comes_back_from_its_task_ends(redis_url: str, short_tmp: Path, pool: str) -> None:
    shop = CeleryShop(short_tmp, redis_url, redis_url)
    (short_tmp / "capp.py").write_text(APP + PROCESS)
    try:
        worker = worker_of(shop, "shop.0", shop.queue, pool=pool)
        shop.send("forks")
        eventually(lambda: "the child came back from it" in worker.log())
        assert shop.send("add", 1, 1).get(**WAIT) == 2
        assert worker.term() == 0
    finally:
        shop.close()
