"""Work that must be neither lost nor run twice nor go round for ever, as Celery's own worker has it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.exceptions import TaskRevokedError

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
