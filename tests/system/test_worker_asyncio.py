"""The asyncio pool in a worker, ``async def`` tasks of a Celery app in every pool, and a pool written for Celery."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from fleet.core.spec import TaskPolicy
from fleet.worker.lifecycle import EXIT_REPLACE
from tests.conftest import PATIENCE, eventually
from tests.worker.workers import RunningWorker, Shop

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

TASKS = '''
import asyncio, contextvars, os, time
from fleet import Retry, Tasks
from pools import SoftTimeLimit

tasks = Tasks("aio")
word = contextvars.ContextVar("word", default="")


def write(path, text):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (str(text) + "\\n").encode())
    os.close(descriptor)


@tasks.task
async def note(path, number, seconds=0.0):
    word.set(str(number))
    write(path + ".started", f"{number} {os.getpid()}")
    await asyncio.sleep(seconds)
    assert word.get() == str(number)
    assert tasks.current is not None
    write(path, number)


@tasks.task
async def meet(path, number, gate):
    """Waits until somebody opens the gate: all that wait there run at once."""
    write(path + ".started", f"{number} {os.getpid()}")
    while not os.path.exists(gate):
        await asyncio.sleep(0.05)
    write(path, number)


@tasks.task
def plain(path, number):
    time.sleep(0.01)
    write(path, number)


@tasks.task(max_retries=0, soft_time_limit_seconds=0.3)
async def softly(path, number, catch):
    try:
        await asyncio.sleep(60)
    except SoftTimeLimit:
        if not catch:
            raise
        write(path, number)


@tasks.task(max_retries=0, time_limit_seconds=0.3)
async def too_slow(path, number):
    await asyncio.sleep(60)


@tasks.task(max_retries=0, time_limit_seconds=0.5)
async def blocks(path, number):
    write(path + ".started", f"{number} {os.getpid()}")
    time.sleep(60)


@tasks.task(max_retries=2, backoff_seconds=0.05)
async def broken(path, number):
    write(path, number)
    raise ValueError("as asked")
'''


class AsyncShop(Shop):
    """A registry of ``async def`` tasks."""

    def __init__(self, folder: Path, url: str) -> None:
        super().__init__(folder, url)
        (folder / "aio_tasks.py").write_text(TASKS)

    def worker(self, pool: str = "asyncio", slots: int = 1, **fields: Any) -> RunningWorker:
        return super().worker(pool, slots, app="aio_tasks:tasks", **fields)

    def send(self, task: str, *args: Any, queue: str = "", **how: Any) -> str:
        return self.tasks.send(f"aio_tasks.{task}", [str(self.out), *args], queue=queue or self.queue, **how)

    def send_many(self, task: str, calls: Any) -> None:
        self.tasks.send_many(f"aio_tasks.{task}", [[str(self.out), *call] for call in calls], queue=self.queue)


@pytest.fixture(params=["redis", "rabbitmq"])
def shop(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[AsyncShop]:
    made = AsyncShop(short_tmp, request.getfixturevalue(f"{request.param}_url"))
    yield made
    made.close()


@pytest.fixture
def redis_shop(redis_url: str, short_tmp: Path) -> Iterator[AsyncShop]:
    made = AsyncShop(short_tmp, redis_url)
    yield made
    made.close()


def test_five_hundred_tasks_wait_at_the_same_time(shop: AsyncShop) -> None:
    gate = shop.folder / "gate"
    worker = shop.worker(slots=500)
    shop.send_many("meet", ([number, str(gate)] for number in range(500)))
    eventually(lambda: len(shop.started()) == 500)
    eventually(lambda: (v := worker.view()) is not None and v.busy == 500)
    gate.touch()
    eventually(lambda: len(shop.done()) == 500)
    view = eventually(lambda: (v := worker.view()) is not None and v.processed == 500 and v)
    assert view.failed == 0
    assert max(shop.done().values()) == 1
    assert worker.term() == 0
    assert shop.depth() == 0


def test_a_thousand_tasks_of_both_kinds_run_once_each(shop: AsyncShop) -> None:
    shop.send_many("note", ([number] for number in range(500)))
    shop.send_many("plain", ([number] for number in range(500, 1000)))
    worker = shop.worker(slots=20)
    eventually(lambda: len(shop.done()) == 1000)
    eventually(lambda: (v := worker.view()) is not None and (v.processed, v.failed) == (1000, 0))
    assert max(shop.done().values()) == 1
    assert worker.term() == 0


def test_term_in_the_middle_loses_nothing_and_runs_nothing_twice(shop: AsyncShop) -> None:
    shop.send_many("note", ([number, 0.2] for number in range(300)))
    shop.send_many("meet", ([number, str(shop.gate())] for number in range(300, 350)))
    worker = shop.worker(slots=20, task=TaskPolicy(prefetch=40))
    eventually(lambda: len(shop.done()) >= 20)
    worker.signal(signal.SIGTERM)
    worker.wait_state("draining", "stopped")
    shop.gate().touch()
    assert worker.wait() == 0
    assert worker.view() is not None
    assert worker.view().state == "stopped"  # type: ignore[union-attr]
    assert len(shop.done()) < 350
    shop.worker(slots=100)
    eventually(lambda: len(shop.done()) == 350)
    assert max(shop.done().values()) == 1


def test_a_second_term_puts_running_tasks_back_at_once(shop: AsyncShop) -> None:
    worker = shop.worker(slots=3)
    shop.send_many("note", ([number, 60.0] for number in range(3)))
    eventually(lambda: len(shop.started()) == 3)
    worker.signal(signal.SIGTERM)
    worker.wait_state("draining")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    eventually(lambda: shop.depth() == 3)
    assert not shop.done()


def test_a_soft_limit_is_raised_at_the_await(shop: AsyncShop) -> None:
    worker = shop.worker(slots=4)
    shop.send("softly", 1, True)
    eventually(lambda: shop.done()[1] == 1)
    shop.send("softly", 2, False)
    [message] = eventually(shop.dead)
    assert "soft time limit of 0.3 s" in message.headers["x-fleet-error"]
    assert worker.term() == 0


def test_a_hard_limit_ends_one_task_and_the_worker_goes_on(redis_shop: AsyncShop) -> None:
    worker = redis_shop.worker(slots=4)
    redis_shop.send("note", 1, 1.0)
    redis_shop.send("too_slow", 2)
    [message] = eventually(redis_shop.dead)
    assert "hard time limit of 0.3 s" in message.headers["x-fleet-error"]
    eventually(lambda: redis_shop.done()[1] == 1)
    redis_shop.send("note", 3)
    eventually(lambda: redis_shop.done()[3] == 1)
    assert worker.term() == 0


def test_a_task_that_blocks_the_loop_has_its_worker_replaced(redis_shop: AsyncShop) -> None:
    shop = redis_shop
    worker = shop.worker(slots=4, drain_timeout_seconds=1.0, task=TaskPolicy(prefetch=8))
    shop.send("note", 1, 3.0)
    eventually(lambda: shop.started()[1] == 1)
    shop.send("blocks", 2)
    eventually(lambda: shop.started()[2] == 1)
    shop.send_many("note", ([number] for number in range(3, 7)))
    assert worker.wait() == EXIT_REPLACE
    [message] = eventually(shop.dead)
    assert "hard time limit of 0.5 s" in message.headers["x-fleet-error"]
    worker.start()
    eventually(lambda: set(shop.done()) == {1, 3, 4, 5, 6})
    assert max(shop.done().values()) == 1


def test_a_failing_task_is_retried_and_then_buried(redis_shop: AsyncShop) -> None:
    worker = redis_shop.worker(slots=2)
    redis_shop.send("broken", 1)
    [message] = eventually(redis_shop.dead)
    assert message.headers["x-fleet-error"] == "ValueError: as asked"
    assert "Traceback" in message.headers["x-fleet-traceback"]
    assert redis_shop.done()[1] == 3
    eventually(lambda: (v := worker.view()) is not None and (v.processed, v.failed, v.retried) == (1, 1, 2))


@pytest.mark.parametrize(("pool", "slots"), [("threads", 2), ("asyncio", 2)])
def test_a_soft_limit_reaches_an_async_task_in_threads_too(redis_shop: AsyncShop, pool: str, slots: int) -> None:
    redis_shop.worker(pool, slots)
    redis_shop.send("softly", 1, True)
    eventually(lambda: redis_shop.done()[1] == 1)


# --- the task that this project began with ------------------------------------------------------------------------

SEED = """
from concurrent.futures import ProcessPoolExecutor
from fleet import Tasks

tasks = Tasks("seed")


def square(number):
    return number * number


@tasks.task
def fan_out(path):
    with ProcessPoolExecutor(max_workers=4) as executor:
        squares = list(executor.map(square, range(20)))
    with open(path, "a") as file:
        file.write(" ".join(map(str, squares)))
"""


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 2), ("threads", 2), ("asyncio", 2)])
def test_a_task_may_open_a_process_pool(redis_url: str, short_tmp: Path, pool: str, slots: int) -> None:
    shop = Shop(short_tmp, redis_url)
    (short_tmp / "seed.py").write_text(SEED)
    try:
        worker = shop.worker(pool, slots, app="seed:tasks")
        shop.tasks.send("seed.fan_out", [str(shop.out)], queue=shop.queue)
        eventually(lambda: shop.out.exists() and len(shop.out.read_text().split()) == 20)
        assert [int(word) for word in shop.out.read_text().split()] == [number * number for number in range(20)]
        assert worker.term() == 0
    finally:
        shop.close()


# --- a Celery app ---------------------------------------------------------------------------------------------------

APP = """
import asyncio, os, threading
from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded

app = Celery("aapp", broker="memory://", backend=os.environ["RESULTS"])
app.conf.task_default_queue = os.environ["QUEUE"]
app.conf.result_expires = 60


def write(text):
    descriptor = os.open(os.environ["OUT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (str(text) + "\\n").encode())
    os.close(descriptor)


@signals.task_prerun.connect
def prerun(task_id=None, **kw):
    write("prerun")


@app.task
def add(x, y):
    return x + y


@app.task
async def add_slowly(x, y):
    await asyncio.sleep(0.01)
    return x + y


@app.task(bind=True, max_retries=3)
async def flaky(self, wanted):
    await asyncio.sleep(0)
    if self.request.retries < wanted:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task(autoretry_for=(ValueError,), default_retry_delay=0.1, max_retries=3, bind=True)
async def retries_itself(self):
    await asyncio.sleep(0)
    if self.request.retries < 1:
        raise ValueError("again")
    return self.request.retries


@app.task
async def broken():
    await asyncio.sleep(0)
    raise ValueError("as asked")


@app.task(bind=True)
async def who(self, seconds=0.0):
    before = self.request.id
    await asyncio.sleep(seconds)
    return [before, self.request.id, self.request.hostname]


@app.task(soft_time_limit=1.5)
async def softly():
    try:
        await asyncio.sleep(20)
    except SoftTimeLimitExceeded:
        return "caught"


@app.task(soft_time_limit=0.4)
async def uncaught():
    await asyncio.sleep(20)


@app.task(time_limit=0.4)
async def limited():
    await asyncio.sleep(20)


@app.task(acks_late=True)
async def sleeps():
    write("sleeps")
    await asyncio.sleep(60)


@app.task(bind=True)
async def awaits_another(self):
    return await add_slowly(1, 2) + await add_slowly(3, 4)


@app.task
def where():
    return threading.current_thread().name
"""

WAIT: dict[str, Any] = {"timeout": PATIENCE, "interval": 0.02}
EVERY_POOL = [("solo", 1), ("prefork", 2), ("threads", 2), ("asyncio", 4)]


class AsyncCelery:
    """A Celery app with ``async def`` tasks, its worker, and the same app here as a producer."""

    def __init__(self, folder: Path, url: str, results: str) -> None:
        self.folder, self.url = folder, url
        self.out = folder / "out"
        self.queue = f"a{uuid.uuid4().hex[:8]}"
        self.workers: list[RunningWorker] = []
        self.environ = {"RESULTS": results, "QUEUE": self.queue, "OUT": str(self.out)}
        (folder / "aapp.py").write_text(APP)
        self.app = Celery("aapp", broker=url, backend=results, set_as_current=False)
        self.app.conf.task_default_queue = self.queue
        self.app.conf.result_expires = 60

    def worker(self, pool: str, slots: int, **fields: Any) -> RunningWorker:
        environ = {**self.environ, **fields.pop("environ", {})}
        made = RunningWorker(
            self.folder,
            self.url,
            pool=pool,
            slots=slots,
            queues=[self.queue],
            app="aapp:app",
            environ=environ,
            **fields,
        )
        self.workers.append(made)
        return made.start()

    def send(self, name: str, *args: Any, **options: Any) -> Any:
        return self.app.send_task(f"aapp.{name}", args=args, **options)

    def sig(self, name: str, *args: Any) -> Any:
        return self.app.signature(f"aapp.{name}", args=args, app=self.app)

    def close(self) -> None:
        for worker in self.workers:
            worker.clean()
            print(worker.log())
        self.app.close()


@pytest.fixture
def celery_shop(redis_url: str, short_tmp: Path) -> Iterator[AsyncCelery]:
    made = AsyncCelery(short_tmp, redis_url, redis_url)
    yield made
    made.close()


@pytest.mark.parametrize(("pool", "slots"), EVERY_POOL)
def test_async_tasks_of_a_celery_app_return_results(celery_shop: AsyncCelery, pool: str, slots: int) -> None:
    shop = celery_shop
    worker = shop.worker(pool, slots)
    assert shop.send("add_slowly", 1, 2).get(**WAIT) == 3
    assert shop.send("flaky", 2).get(**WAIT) == 2
    assert shop.send("retries_itself").get(**WAIT) == 1
    with pytest.raises(ValueError, match="as asked"):
        shop.send("broken").get(**WAIT)
    assert shop.send("awaits_another").get(**WAIT) == 10
    assert (
        chain(shop.sig("add_slowly", 1, 1), shop.sig("add", 5), shop.sig("add_slowly", 1)).apply_async().get(**WAIT)
        == 8
    )
    assert shop.out.read_text().count("prerun") >= 10
    assert worker.term() == 0


@pytest.mark.parametrize(("pool", "slots"), EVERY_POOL)
def test_an_async_task_sees_its_own_request(celery_shop: AsyncCelery, pool: str, slots: int) -> None:
    shop = celery_shop
    shop.worker(pool, slots)
    results = [shop.send("who", 0.05) for _ in range(8)]
    for result in results:
        before, after, node = result.get(**WAIT)
        assert (before, after) == (result.id, result.id)
        assert node == f"shopfleet.shop.0@{os.uname().nodename}"


@pytest.mark.parametrize(("pool", "slots"), [("threads", 2), ("asyncio", 2)])
def test_a_soft_limit_of_an_async_celery_task_is_celerys(celery_shop: AsyncCelery, pool: str, slots: int) -> None:
    shop = celery_shop
    shop.worker(pool, slots)
    assert shop.send("softly").get(**WAIT) == "caught"
    with pytest.raises(SoftTimeLimitExceeded):
        shop.send("uncaught").get(**WAIT)


@pytest.mark.parametrize(("pool", "slots"), [("threads", 2), ("asyncio", 2)])
def test_a_hard_limit_and_a_revocation_end_an_async_celery_task(
    celery_shop: AsyncCelery, pool: str, slots: int
) -> None:
    shop = celery_shop
    worker = shop.worker(pool, slots)
    with pytest.raises(TimeLimitExceeded):
        shop.send("limited").get(**WAIT)
    revoked = shop.send("sleeps")
    eventually(lambda: "sleeps" in shop.out.read_text())
    shop.app.control.revoke(revoked.id, terminate=True)
    with pytest.raises(TaskRevokedError):
        revoked.get(**WAIT)
    assert shop.send("add_slowly", 1, 2).get(**WAIT) == 3
    assert worker.term() == 0


# --- pools of other people ----------------------------------------------------------------------------------------

POOL = """
from celery.concurrency.thread import TaskPool


class Mine(TaskPool):
    def on_start(self):
        assert self.app is not None and self.app.main == "aapp"
        print("my own pool with", self.limit, flush=True)
"""


@pytest.mark.parametrize(
    "path", ["my_pool:Mine", "celery.concurrency.solo:TaskPool", "celery.concurrency.prefork:TaskPool"]
)
def test_a_pool_written_for_celery_runs_in_a_worker(celery_shop: AsyncCelery, path: str) -> None:
    shop = celery_shop
    (shop.folder / "my_pool.py").write_text(POOL)
    slots = 1 if "solo" in path else 3
    worker = shop.worker("custom", slots, pool_options={"class_path": path})
    results = [shop.send("add", number, 1) for number in range(50)]
    assert [result.get(**WAIT) for result in results] == list(range(1, 51))
    assert shop.send("add_slowly", 1, 2).get(**WAIT) == 3
    with pytest.raises(ValueError, match="as asked"):
        shop.send("broken").get(**WAIT)
    if path == "my_pool:Mine":
        assert "my own pool with 3" in worker.log_path.read_text()
        assert shop.send("where").get(**WAIT).startswith("ThreadPoolExecutor")
    assert worker.term() == 0


def test_the_environment_names_a_custom_pool(celery_shop: AsyncCelery) -> None:
    shop = celery_shop
    (shop.folder / "my_pool.py").write_text(POOL)
    worker = shop.worker("custom", 2, environ={"CELERY_CUSTOM_WORKER_POOL": "my_pool:Mine"})
    assert shop.send("add", 1, 2).get(**WAIT) == 3
    assert "my own pool with 2" in worker.log()
    assert worker.term() == 0


def test_a_cold_stop_does_not_wait_for_threads_of_others(redis_url: str, short_tmp: Path) -> None:
    shop = Shop(short_tmp, redis_url)
    try:
        worker = shop.worker("custom", 2, pool_options={"class_path": "celery.concurrency.thread:TaskPool"})
        shop.send("note", 1, 30.0)
        eventually(lambda: shop.started()[1] == 1)
        worker.signal(signal.SIGTERM)
        worker.wait_state("draining")
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        eventually(lambda: shop.depth() == 1)
    finally:
        shop.close()
