"""Workers on transports without a server: a folder, and an SQLite file. For development, and to try things out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.core.spec import TaskPolicy
from tests.conftest import eventually
from tests.worker.workers import Shop

pytestmark = pytest.mark.system

POOLS = [("solo", 1), ("threads", 3), ("prefork", 2)]


@pytest.fixture(params=["filesystem", "sqlalchemy"])
def shop(request: pytest.FixtureRequest, short_tmp: Path) -> Iterator[Shop]:
    urls = {"filesystem": f"filesystem://{short_tmp}/broker", "sqlalchemy": f"sqla+sqlite:///{short_tmp}/broker.db"}
    made = Shop(short_tmp, urls[request.param])
    yield made
    made.close()


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_tasks_run_once_and_the_queue_is_empty_afterwards(shop: Shop, pool: str, slots: int) -> None:
    shop.send_notes(range(20))
    worker = shop.worker(pool, slots)
    eventually(lambda: len(shop.done()) == 20)
    assert worker.term() == 0
    assert set(shop.done().values()) == {1}
    assert shop.depth() == 0


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_stop_in_the_middle_loses_nothing(shop: Shop, pool: str, slots: int) -> None:
    shop.send_notes(range(12), 0.3)
    first = shop.worker(pool, slots, task=TaskPolicy(prefetch=6))
    eventually(lambda: shop.started())
    assert first.term() == 0
    assert len(shop.done()) + shop.depth() == 12
    shop.worker(pool, slots, replica="shop.1")
    eventually(lambda: len(shop.done()) == 12)
    assert set(shop.done().values()) == {1}


def test_two_workers_share_a_queue_and_nothing_runs_twice(shop: Shop) -> None:
    shop.send_notes(range(40), 0.02)
    workers = [shop.worker("threads", 2, replica=f"shop.{index}") for index in range(2)]
    eventually(lambda: len(shop.done()) == 40)
    assert [worker.term() for worker in workers] == [0, 0]
    assert set(shop.done().values()) == {1}


def test_a_failing_task_is_tried_again_and_ends_with_the_dead_letters(shop: Shop) -> None:
    shop.worker()
    shop.send("broken", 5)
    eventually(lambda: shop.depth(f"{shop.queue}.dead") == 1)
    assert shop.done()[5] == 3


def test_what_the_transport_cannot_promise_is_said_once(shop: Shop) -> None:
    worker = shop.worker()
    assert worker.term() == 0
    assert worker.log().count("is for development: a message leaves its queue when it is fetched") == 1
