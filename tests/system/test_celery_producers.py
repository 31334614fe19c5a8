"""A producer written with plain Celery works against a fleet, on Redis and on RabbitMQ."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import PATIENCE
from tests.system.worlds import World

pytestmark = pytest.mark.system

APP = """
import os
from celery import Celery

app = Celery("shopapp", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_RESULTS"])
app.conf.task_default_queue = "shop-" + os.environ["SHOP_MARK"]
app.conf.broker_connection_retry_on_startup = True
app.conf.result_expires = 60


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
"""

PRODUCER = """
import json
from celery import chain, chord, group
from shopapp import add, app, broken, flaky, total

WAIT = dict(timeout=120)
answers = {}
answers["delay"] = add.delay(1, 2).get(**WAIT)
answers["send_task"] = app.send_task("shopapp.add", args=[20, 22]).get(**WAIT)
answers["countdown"] = add.apply_async((5, 6), countdown=1).get(**WAIT)
answers["group"] = group(add.s(n, n) for n in range(10)).apply_async().get(**WAIT)
answers["chain"] = chain(add.s(1, 2), add.s(3), add.s(4)).apply_async().get(**WAIT)
answers["chord"] = chord((add.s(n, n) for n in range(10)), total.s()).apply_async().get(**WAIT)
answers["retry"] = flaky.delay(2).get(**WAIT)
try:
    broken.delay().get(**WAIT)
except ValueError as error:
    answers["failure"] = str(error)
expired = add.apply_async((1, 1), countdown=2, expires=1)
try:
    expired.get(**WAIT)
except Exception as error:
    answers["expired"] = type(error).__name__
print(json.dumps(answers))
"""

EXPECTED = {
    "delay": 3,
    "send_task": 42,
    "countdown": 11,
    "group": [n * 2 for n in range(10)],
    "chain": 10,
    "chord": 90,
    "retry": 2,
    "failure": "as asked",
    "expired": "TaskRevokedError",
}

POOLS = {"solo": "pool: solo, replicas: 2", "prefork": "pool: {type: prefork, concurrency: 2}, replicas: 1"}


@pytest.mark.parametrize("pool", sorted(POOLS))
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_results_retries_and_canvas_are_celerys_own(
    world: World, request: pytest.FixtureRequest, redis_url: str, broker: str, pool: str
) -> None:
    url = redis_url if broker == "redis" else request.getfixturevalue("rabbitmq_url")
    mark = f"{broker}-{pool}"
    (world.root / "shopapp.py").write_text(APP)
    (world.root / "producer.py").write_text(PRODUCER)
    world.environ |= {"SHOP_BROKER": url, "SHOP_RESULTS": redis_url, "SHOP_MARK": mark}
    env = json.dumps({name: world.environ[name] for name in ("SHOP_BROKER", "SHOP_RESULTS", "SHOP_MARK")})
    world.write(f"    shop: {{app: 'shopapp:app', {POOLS[pool]}, queues: [shop-{mark}], env: {env}}}\n", broker=url)
    world.apply()

    answers: dict[str, Any] = json.loads(_produce(world))

    assert answers == EXPECTED


def test_celerys_own_worker_serves_a_group_of_the_same_fleet(world: World, redis_url: str) -> None:
    (world.root / "shopapp.py").write_text(APP)
    world.environ |= {"SHOP_BROKER": redis_url, "SHOP_RESULTS": redis_url, "SHOP_MARK": "own"}
    env = json.dumps({name: world.environ[name] for name in ("SHOP_BROKER", "SHOP_RESULTS", "SHOP_MARK")})
    world.write(
        f"    shop: {{app: 'shopapp:app', worker: celery, pool: {{type: prefork, concurrency: 2}}, replicas: 1,"
        f" queues: [shop-own], env: {env}}}\n",
        broker=redis_url,
    )
    world.apply()
    (world.root / "producer.py").write_text("from shopapp import add\nprint(add.delay(1, 2).get(timeout=120))\n")
    assert _produce(world).strip() == "3"


def _produce(world: World) -> str:
    result = subprocess.run(
        [sys.executable, "producer.py"],
        cwd=world.root,
        env=world.env(),
        text=True,
        capture_output=True,
        timeout=2 * PATIENCE,
    )
    assert result.returncode == 0, f"{result.stderr[-3000:]}\n{world.logs()}"
    return result.stdout
