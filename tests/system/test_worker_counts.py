"""What a worker counts of its own work: how many tasks, how long its slots were busy, what it holds. Real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.core.spec import TaskPolicy
from fleet.replica.record import RecordView
from fleet.replica.task_counters import ENDS, OTHER, CountersView, counters_path, read_counters
from tests.brokers import Broker
from tests.conftest import eventually
from tests.worker.workers import RunningWorker, Shop

pytestmark = pytest.mark.system

TIMED = """
import time
from fleet import Tasks

tasks = Tasks("timed")


@tasks.task
def timed(path, seconds):
    began = time.time()
    time.sleep(seconds)
    with open(path, "a") as file:
        file.write(f"{time.time() - began}\\n")


@tasks.task(max_retries=0)
def broken(path):
    raise ValueError("as asked")
"""


@pytest.fixture
def shop(tmp_path: Path, redis_url: str) -> Iterator[Shop]:
    made = Shop(tmp_path, redis_url)
    (tmp_path / "timed_tasks.py").write_text(TIMED)
    yield made
    made.close()


def view(worker: RunningWorker) -> RecordView:
    found = worker.view()
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("pool", "slots"), [("solo", 1), ("threads", 3), ("prefork", 3), ("gevent", 3), ("asyncio", 3)]
)
def test_slots_are_busy_for_as_long_as_tasks_take(shop: Shop, pool: str, slots: int) -> None:
    began = time.time()
    worker = shop.worker(pool, slots, app="timed_tasks:tasks")
    for _ in range(12):
        shop.tasks.send("timed_tasks.timed", [str(shop.out), 0.05], queue=shop.queue)
    shop.tasks.send("timed_tasks.broken", [str(shop.out)], queue=shop.queue)
    shop.tasks.send("timed_tasks.unheard_of", [], queue=shop.queue)
    found = eventually(lambda: (seen := view(worker)).processed == 14 and not seen.reserved and seen)
    took = [float(line) for line in shop.out.read_text().split()]

    assert isinstance(found, RecordView)
    assert (len(took), found.failed, found.retried) == (12, 2, 0)
    assert sum(took) <= found.busy_seconds <= (time.time() - began) * slots
    _check_counters(worker, took)


def _check_counters(worker: RunningWorker, took: list[float]) -> None:
    """The same by task; a name that the app does not have gets no row of its own."""

    def whole() -> CountersView:
        seen = read_counters(counters_path(worker.record_path))
        assert seen is not None
        assert sum(sum(task.ends) for task in seen.tasks.values()) == 14
        return seen

    counters = eventually(whole)
    ends = {
        name: {end: count for end, count in zip(ENDS, task.ends, strict=True) if count}
        for name, task in counters.tasks.items()
    }
    assert ends == {"timed_tasks.timed": {"done": 12}, "timed_tasks.broken": {"dead": 1}, OTHER: {"dead": 1}}
    timed = counters.tasks["timed_tasks.timed"]
    assert (timed.run.count, timed.wait.count) == (12, 12)
    assert timed.run.sum_seconds >= sum(took)
    assert counters.tasks[OTHER].run.count == 0


def test_messages_that_wait_in_a_worker_are_reserved(shop: Shop) -> None:
    worker = shop.worker("threads", 2, task=TaskPolicy(prefetch=6))
    shop.send_notes(range(9), seconds=30)

    def holding() -> Any:
        found = view(worker)
        assert (found.busy, found.reserved) == (2, 6)
        return found

    eventually(holding)


def test_what_rabbitmq_has_pushed_is_reserved_before_it_is_fetched(rabbitmq_url: str) -> None:
    broker = Broker("rabbitmq", rabbitmq_url)
    channel = broker.channel()
    channel.fetch(1)
    assert channel.pushed == 0
    broker.send(1)

    def arrived() -> bool:
        channel.tend()
        return bool(channel.pushed == 1)

    eventually(arrived)
    assert len(channel.fetch(1)) == 1
    assert channel.pushed == 0
    channel.close()
