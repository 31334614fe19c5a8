"""A Celery app on a fleet worker behaves as on Celery's own, for producers that know only Celery."""

from __future__ import annotations

import gc
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu.pools
import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError, TimeLimitExceeded, WorkerLostError

from fleet.core.spec import TaskPolicy
from tests.conftest import PATIENCE, eventually
from tests.worker.workers import RunningWorker

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

APP = """
import os, signal, time
from celery import Celery, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

app = Celery("capp", broker="memory://", backend=os.environ["RESULTS"])
app.conf.task_default_queue = os.environ["QUEUE"]
app.conf.result_expires = 60
app.conf.task_track_started = True


def write(text):
    descriptor = os.open(os.environ["OUT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (str(text) + "\\n").encode())
    os.close(descriptor)


for name in ("worker_init", "worker_ready", "worker_process_init", "task_prerun", "task_failure", "task_revoked"):
    def receive(name=name, **kw):
        write("signal " + name)
    getattr(signals, name).connect(receive, weak=False)


@app.task
def add(x, y):
    return x + y


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def flaky(self, wanted):
    if self.request.retries < wanted:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task
def broken():
    raise ValueError("as asked")


@app.task(bind=True, acks_late=True)
def rejects(self, requeue):
    seen = os.path.exists(os.environ["OUT"]) and open(os.environ["OUT"]).read().count("rejected")
    if seen and requeue:
        return "after requeue"
    write("rejected")
    raise Reject("no", requeue=requeue)


@app.task
def ignores():
    write("ignored")
    raise Ignore()


@app.task(acks_late=True)
def sleeps(seconds):
    write("sleeps")
    time.sleep(seconds)
    return "slept"


@app.task(acks_late=True)
def waits(gate):
    write("sleeps")
    while not os.path.exists(gate):
        time.sleep(0.05)
    return "slept"


@app.task(soft_time_limit=1.5)
def softly():
    try:
        time.sleep(20)
    except SoftTimeLimitExceeded:
        return "caught"


@app.task(soft_time_limit=0.4)
def uncaught():
    time.sleep(20)


@app.task(time_limit=0.5)
def limited():
    time.sleep(20)


@app.task(acks_late=True)
def dies_late():
    write("died")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def dies():
    write("died")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True)
def who(self):
    return [self.request.id, self.request.hostname, self.request.delivery_info["routing_key"], os.getpid()]


@app.task
def collect(results):
    return sorted(results)
"""

POOLS = [("solo", 1), ("prefork", 2)]
WAIT: dict[str, Any] = {"timeout": PATIENCE, "interval": 0.02}


class CeleryShop:
    """A Celery app in a folder, its workers, and the same app here as a producer."""

    def __init__(self, folder: Path, url: str, results: str) -> None:
        self.folder = folder
        self.url = url
        self.out = folder / "out"
        self.queue = f"c{uuid.uuid4().hex[:8]}"
        self.workers: list[RunningWorker] = []
        self.environ = {"RESULTS": results, "QUEUE": self.queue, "OUT": str(self.out)}
        (folder / "capp.py").write_text(APP)
        self.app = Celery("capp", broker=url, backend=results, set_as_current=False)
        self.app.conf.task_default_queue = self.queue
        self.app.conf.result_expires = 60

    def worker(self, pool: str, slots: int, **fields: Any) -> RunningWorker:
        made = RunningWorker(
            self.folder,
            self.url,
            pool=pool,
            slots=slots,
            queues=[self.queue],
            app="capp:app",
            environ=self.environ,
            **fields,
        )
        self.workers.append(made)
        return made.start()

    def sig(self, name: str, *args: Any, **options: Any) -> Any:
        return self.app.signature(f"capp.{name}", args=args, app=self.app, **options)

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        return self.app.send_task(f"capp.{name}", args=args, **options)

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines() if self.out.exists() else []

    def close(self) -> None:
        for worker in self.workers:
            worker.clean()
            if worker.log_path.exists():
                print(f"== {worker.replica}\n{worker.log()}")
        self.app.backend.result_consumer.stop()
        self.app.backend.client.connection_pool.disconnect()
        self.app.close()
        kombu.pools.reset()  # kombu shares its pools between all apps of one broker
        gc.collect()  # what Celery's client leaves open is reported here, where it is expected, and not in another test


@pytest.fixture(params=["redis", "rabbitmq"])
def shop(request: pytest.FixtureRequest, redis_url: str, short_tmp: Path) -> Iterator[CeleryShop]:
    made = CeleryShop(short_tmp, request.getfixturevalue(f"{request.param}_url"), redis_url)
    yield made
    made.close()


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_results_retries_and_canvas(shop: CeleryShop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    assert shop.send("add", 1, 2).get(**WAIT) == 3
    assert shop.send("flaky", 2).get(**WAIT) == 2
    assert group(shop.sig("add", n, n) for n in range(10)).apply_async().get(**WAIT) == [n * 2 for n in range(10)]
    assert chain(shop.sig("add", 1, 2), shop.sig("add", 3), shop.sig("add", 4)).apply_async().get(**WAIT) == 10
    header = [shop.sig("add", n, n) for n in range(10)]
    assert chord(header, shop.sig("total")).apply_async().get(**WAIT) == 90
    with pytest.raises(ValueError, match="as asked"):
        shop.send("broken").get(**WAIT)
    assert worker.term() == 0
    assert {"signal worker_init", "signal worker_process_init", "signal worker_ready"} <= set(shop.lines())
    assert "signal task_failure" in shop.lines()


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_the_request_is_celerys(shop: CeleryShop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    result = shop.send("who")
    task_id, hostname, queue, pid = result.get(**WAIT)
    assert task_id == result.id
    assert hostname.startswith("shopfleet.shop.0@")
    assert queue == shop.queue
    assert (pid == worker.pid) == (pool == "solo")


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_failed_chord_header_fails_the_chord(shop: CeleryShop, pool: str, slots: int) -> None:
    shop.worker(pool, slots)
    result = chord([shop.sig("add", 1, 1), shop.sig("broken")], shop.sig("total")).apply_async()
    with pytest.raises(Exception, match="as asked"):
        result.get(**WAIT)


def test_ignore_leaves_no_result_and_reject_requeues_or_buries(shop: CeleryShop) -> None:
    shop.worker("prefork", 1)
    ignored = shop.send("ignores")
    assert shop.send("rejects", True).get(**WAIT) == "after requeue"
    assert "ignored" in shop.lines()
    assert not ignored.ready()
    with pytest.raises(Exception, match="no"):
        shop.send("rejects", False).get(**WAIT)


def test_countdown_expires_and_revoked(shop: CeleryShop) -> None:
    shop.worker("prefork", 2)
    before = time.time()
    assert shop.send("add", 5, 6, countdown=1).get(**WAIT) == 11
    assert time.time() - before >= 0.99
    with pytest.raises(TaskRevokedError, match="expired"):
        shop.send("add", 1, 1, countdown=1, expires=0.5).get(**WAIT)


def test_an_unknown_task_fails_with_not_registered(shop: CeleryShop) -> None:
    shop.worker("prefork", 1)
    with pytest.raises(Exception, match=r"capp\.nobody"):
        shop.send("nobody").get(**WAIT)


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_soft_limit_is_celerys_exception(shop: CeleryShop, pool: str, slots: int) -> None:
    from celery.exceptions import SoftTimeLimitExceeded

    shop.worker(pool, slots)
    assert shop.send("softly").get(**WAIT) == "caught"
    with pytest.raises(SoftTimeLimitExceeded):
        shop.send("uncaught").get(**WAIT)


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_hard_limit_is_stored_as_time_limit_exceeded(shop: CeleryShop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    with pytest.raises(TimeLimitExceeded):
        shop.send("limited").get(**WAIT)
    if pool == "solo":
        assert worker.wait() == 75
        worker.start()
    assert shop.send("add", 1, 1).get(**WAIT) == 2


def test_a_lost_child_is_stored_as_worker_lost(shop: CeleryShop) -> None:
    shop.worker("prefork", 2, task=TaskPolicy(max_attempts=3))
    with pytest.raises(WorkerLostError):
        shop.send("dies").get(**WAIT)
    assert shop.lines().count("died") == 1, "an early acknowledged task ran twice"
    with pytest.raises(WorkerLostError):
        shop.send("dies_late").get(**WAIT)
    assert shop.lines().count("died") == 4, "a late acknowledged task has three attempts"


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_busy_worker_answers_control_commands(shop: CeleryShop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    result = shop.send("sleeps", 60)
    eventually(lambda: "sleeps" in shop.lines())
    node = f"shopfleet.shop.0@{os.uname().nodename}"
    inspect = shop.app.control.inspect(destination=[node], timeout=PATIENCE)
    assert inspect.ping() == {node: {"ok": "pong"}}
    [[running]] = inspect.active().values()
    assert running["id"] == result.id
    assert inspect.stats()[node]["pid"] == worker.pid
    assert "capp.add" in inspect.registered()[node]
    assert inspect.active_queues()[node][0]["name"] == shop.queue
    shop.app.control.revoke(result.id, terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(**WAIT)
    eventually(lambda: "signal task_revoked" in shop.lines())
    if pool == "solo":
        assert worker.wait() == 75


def test_a_revoked_task_does_not_run_and_shutdown_stops_the_worker(shop: CeleryShop) -> None:
    worker = shop.worker("solo", 1)
    node = f"shopfleet.shop.0@{os.uname().nodename}"
    gate = shop.folder / "gate"
    busy = shop.send("waits", str(gate))
    eventually(lambda: "sleeps" in shop.lines())
    second = shop.send("sleeps", 1.5)
    assert shop.app.control.revoke(second.id, destination=[node], reply=True, timeout=PATIENCE)
    gate.touch()
    assert busy.get(**WAIT) == "slept"
    with pytest.raises(TaskRevokedError):
        second.get(**WAIT)
    assert shop.lines().count("sleeps") == 1
    shop.app.control.shutdown(destination=[node])
    assert worker.wait() == 0
