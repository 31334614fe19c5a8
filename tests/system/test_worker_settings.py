"""Settings of a Celery app under fleet's worker: honoured where the manifest is silent, else named when it starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from celery.exceptions import WorkerLostError

from tests.conftest import eventually
from tests.system.remote import RemoteShop
from tests.system.test_worker_celery import APP, WAIT

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

MORE = """

app.conf.worker_max_tasks_per_child = 2
app.conf.worker_max_memory_per_child = 4_000_000
app.conf.worker_prefetch_multiplier = 1
app.conf.worker_deduplicate_successful_tasks = True
app.conf.broker_transport_options = {"queue_order_strategy": "priority"}


@app.task(acks_late=True, reject_on_worker_lost=False)
def dies_once():
    write("died")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=["redis", "rabbitmq"])
def shop(request: pytest.FixtureRequest, redis_url: str, short_tmp: Path) -> Iterator[RemoteShop]:
    made = RemoteShop(short_tmp, request.getfixturevalue(f"{request.param}_url"), redis_url)
    (short_tmp / "capp.py").write_text(APP + MORE)
    yield made
    made.close()


def pids(shop: RemoteShop, count: int) -> list[int]:
    return [shop.send("who").get(**WAIT)[3] for _ in range(count)]


def test_limits_of_children_come_from_the_app(shop: RemoteShop) -> None:
    shop.worker("prefork", 1)
    seen = pids(shop, 6)
    assert len(set(seen)) == 3
    stats = shop.ask("stats")["pool"]
    assert (stats["max-tasks-per-child"], stats["max-memory-per-child"]) == (2, 4_000_000 * 1024)


def test_the_manifest_goes_before_the_app(shop: RemoteShop) -> None:
    shop.worker("prefork", 1, pool_options={"max_tasks_per_child": 100})
    assert len(set(pids(shop, 6))) == 1


def test_a_task_that_is_not_to_be_requeued_has_one_attempt(shop: RemoteShop) -> None:
    shop.worker("prefork", 1)
    with pytest.raises(WorkerLostError):
        shop.send("dies_once").get(**WAIT)
    assert shop.lines().count("died") == 1


def test_it_has_one_attempt_too_where_the_whole_worker_dies(redis_url: str, short_tmp: Path) -> None:
    shop = RemoteShop(short_tmp, redis_url, redis_url)
    (short_tmp / "capp.py").write_text(APP + MORE)
    try:
        worker = shop.worker("solo", 1)
        result = shop.send("dies_once")
        worker.wait()
        worker.start()
        with pytest.raises(WorkerLostError):
            result.get(**WAIT)
        assert shop.lines().count("died") == 1
    finally:
        shop.close()


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads", "gevent", "eventlet", "asyncio"])
def test_what_has_no_effect_is_named_when_the_worker_starts(shop: RemoteShop, pool: str) -> None:
    worker = shop.worker(pool, 1)
    log = eventually(worker.log)
    for name in ("worker_prefetch_multiplier", "worker_deduplicate_successful_tasks", "queue_order_strategy"):
        assert log.count(f"{name} has no effect in this worker") == 1
    assert ("worker_max_tasks_per_child has no effect" in log) == (pool != "prefork")
