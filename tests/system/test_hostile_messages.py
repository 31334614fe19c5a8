"""No message can kill a worker, stop its helpers, or go round for ever: each ends as done, failed or dead letter.

``FLEET_HOSTILE=10000`` sends that many to every pool; by default it is a few hundred.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from fleet.core.spec import TaskPolicy
from tests.conftest import PATIENCE, eventually
from tests.worker.hostile import Hostile
from tests.worker.workers import RunningWorker, Shop

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

COUNT = int(os.environ.get("FLEET_HOSTILE", "200"))
POOLS = [("solo", 1), ("prefork", 2), ("threads", 3), ("gevent", 5), ("eventlet", 5), ("asyncio", 5)]

TASKS = """
from fleet import Tasks

tasks = Tasks("shop")


@tasks.task(max_retries=0)
def anything(*args, **kwargs):
    return None


@tasks.task(max_retries=0, time_limit_seconds=1e300, soft_time_limit_seconds=float("inf"))
def unlimited(path):
    open(path, "a").write("1\\n")
"""


def send(hostile: Hostile, broker: str, url: str) -> None:
    if broker == "redis":
        hostile.send_to_redis(url, COUNT)
    else:
        hostile.send_to_rabbitmq(url, COUNT)


def all_ended(worker: RunningWorker, count: int) -> bool:
    assert worker.process is not None
    assert worker.process.poll() is None, worker.log()
    view = worker.view()
    return view is not None and view.processed >= count


@pytest.mark.parametrize(("pool", "slots"), POOLS)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_hostile_messages_end_and_the_worker_lives(
    request: pytest.FixtureRequest, short_tmp: Path, broker: str, pool: str, slots: int
) -> None:
    shop = Shop(short_tmp, request.getfixturevalue(f"{broker}_url"))
    (short_tmp / "shop_tasks.py").write_text(TASKS)
    try:
        worker = shop.worker(pool, slots, task=TaskPolicy(prefetch=4))
        send(Hostile("shop_tasks.anything", shop.queue, seed=hash(pool) % 1000), broker, shop.url)
        eventually(lambda: all_ended(worker, COUNT), within=PATIENCE + COUNT / 10)
        shop.send("unlimited")
        eventually(lambda: shop.done()[1] == 1)
        view = eventually(lambda: (v := worker.view()) is not None and v.processed > COUNT and v)
        assert view.state == "ready"
        assert view.processed == COUNT + 1
        assert view.failed > 0
        assert shop.depth() == 0
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert shop.depth() == 0
        assert shop.depth(f"{shop.queue}.dead") == view.failed
    finally:
        shop.close()
