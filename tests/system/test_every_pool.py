"""A worker of every pool under everything that happens to workers: one fleet per broker, all pools at once.

The tests of one broker share the fleet and run in this order; each leaves it idle and whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet import Tasks
from fleet.broker.publisher import depths
from pools import available
from pools.traits import TRAITS
from tests.conftest import PATIENCE, eventually
from tests.servers import RabbitServer, RedisServer
from tests.system import worlds
from tests.system.worlds import World

pytestmark = pytest.mark.system

APP = '''
import ctypes, os, signal, time
from celery import Celery

app = Celery("every", broker=os.environ["FLEET_BROKER_URL"], backend=os.environ["EVERY_RESULTS"])
app.conf.update(task_acks_late=True, task_track_started=True, result_expires=300, worker_hijack_root_logger=False)
app.conf.broker_connection_retry_on_startup = True


def write(path, number):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, b"%d\\n" % number)
    os.close(descriptor)


@app.task(ignore_result=True)
def late(path, number, seconds=0.0):
    if seconds:
        time.sleep(seconds)
    write(path, number)


@app.task
def kept(path, number):
    """Its result is stored."""
    write(path, number)
    return number


@app.task(ignore_result=True, acks_late=False)
def early(path, number):
    write(path, number)


@app.task
def nap(seconds):
    """Sleeps in slices, so that Python code runs now and then."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)


@app.task
def spin(seconds):
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number += 1


@app.task
def stuck(seconds):
    """Sits in the C library: no Python code runs in this thread until it is over, or a signal comes."""
    left = int(seconds)
    while left > 0:
        left = ctypes.CDLL(None).sleep(left)


@app.task(acks_late=False)
def segfault(path, number):
    write(path, number)
    os.kill(os.getpid(), signal.SIGSEGV)


@app.task(ignore_result=True)
def poison(path, number):
    write(path, number)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def eat(mebibytes, seconds):
    heap = bytearray(mebibytes << 20)
    nap(seconds)
    return len(heap)
'''

CUSTOM = '''
from concurrent.futures import ThreadPoolExecutor
from celery.concurrency.base import BasePool, apply_target


class TaskPool(BasePool):
    """As somebody would have written it for Celery."""

    def on_start(self):
        self.executor = ThreadPoolExecutor(max_workers=self.limit)

    def on_stop(self):
        self.executor.shutdown()

    def on_apply(self, target, args=None, kwargs=None, callback=None, accept_callback=None, **options):
        return self.executor.submit(apply_target, target, args, kwargs, callback, accept_callback)
'''

SLOTS = {"solo": 1, "prefork": 3, "threads": 6, "gevent": 20, "eventlet": 20, "asyncio": 10, "custom": 4}
POOLS = os.environ.get("EVERY_POOLS", "").split() or [name for name in SLOTS if name == "custom" or name in available()]
LATE_AND_EARLY = 3_000
LATE = 4_000
MAX_ATTEMPTS = 2


class Fleet:
    """One fleet with a group of every pool, on one broker of its own."""

    def __init__(self, broker: RedisServer | RabbitServer, results: str, root: Path) -> None:
        self.broker = broker
        self.world: World = worlds.make(root)
        (root / "every_app.py").write_text(APP)
        (root / "every_custom.py").write_text(CUSTOM)
        self.world.environ |= {"EVERY_RESULTS": results}
        environ = json.dumps({"EVERY_RESULTS": results})
        groups = "".join(
            f"    {pool}: {{pool: {_pool(pool)}, replicas: 1, queues: [{pool}], env: {environ}}}\n" for pool in POOLS
        )
        self.world.manifest.write_text(
            f"""apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: world}}
spec:
  app: every_app:app
  release: {{workdir: {root}}}
  broker: {{url: "{broker.url}"}}
  defaults:
    task: {{maxAttempts: {MAX_ATTEMPTS}}}
    restart: {{maxCrashes: 100, backoff: {{initial: 100ms, max: 1s}}}}
    health: {{readyTimeout: 10m}}
  groups:
{groups}"""
        )
        self.tasks = Tasks("every", broker=broker.url)
        self._round = 0
        self._celery: Any = None

    @property
    def celery(self) -> Any:
        """The app as a producer has it."""
        if self._celery is None:
            from celery import Celery

            self._celery = Celery("every", broker=self.broker.url, backend=self.world.environ["EVERY_RESULTS"])
        return self._celery

    def close(self) -> None:
        """Take the fleet down, and let go of what talks to the brokers."""
        self.world.close()
        self.tasks.close()
        if self._celery is not None:
            self._celery.producer_pool.force_close_all()
            self._celery.pool.force_close_all()
            self._celery.backend.client.close()

    def file(self, pool: str) -> Path:
        """Where the tasks of this round write."""
        return self.world.root / f"{pool}-{self._round}"

    def next_round(self) -> None:
        self._round += 1

    def send(self, pool: str, task: str, numbers: range, *more: Any) -> None:
        path = str(self.file(pool))
        self.tasks.send_many(f"every_app.{task}", [[path, n, *more] for n in numbers], queue=pool)

    def done(self, pool: str) -> Counter[int]:
        path = self.file(pool)
        return Counter(map(int, path.read_bytes().split())) if path.exists() else Counter()

    def pids(self) -> dict[str, int]:
        """Pool -> pid of its worker."""
        return {name.partition(".")[0]: pid for name, pid in self.world.pids().items()}

    def all_ready(self) -> bool:
        return all(row["state"] == "ready" for row in self.world.workers().values())

    def ask(self, pool: str, task: str, *args: Any, **how: Any) -> Any:
        """Send with Celery; the pending result."""
        return self.celery.send_task(f"every_app.{task}", args, queue=pool, **how)

    def dead_letters(self) -> dict[str, int]:
        """Pool -> how many lie with the dead letters of its queue."""
        found = depths(self.broker.url, [f"{pool}.dead" for pool in POOLS])
        return {pool: found[f"{pool}.dead"] or 0 for pool in POOLS}

    def log(self, pool: str) -> str:
        return (self.world.home / "world" / "log" / f"{pool}.0.log").read_text()


def _pool(name: str) -> str:
    more = {"custom": ", class: 'every_custom:TaskPool'", "prefork": ", maxMemoryPerChild: 300Mi"}.get(name, "")
    return f"{{type: {name}{'' if name == 'solo' else f', concurrency: {SLOTS[name]}'}{more}}}"


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def fleet(request: pytest.FixtureRequest, redis_url: str) -> Iterator[Fleet]:
    broker = (RedisServer(persistent=True) if request.param == "redis" else RabbitServer()).start()
    root = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    made = Fleet(broker, redis_url.removesuffix("/0") + "/3", root)
    try:
        made.world.apply()
        yield made
    finally:
        made.close()
        broker.remove()
        shutil.rmtree(root, ignore_errors=True)


def test_nothing_is_lost_or_repeated_by_a_term_in_the_middle(fleet: Fleet) -> None:
    fleet.next_round()
    half = LATE_AND_EARLY
    for pool in POOLS:
        fleet.send(pool, "early", range(half))
        fleet.send(pool, "late", range(half, 2 * half))
    before = fleet.pids()
    for pool in POOLS:
        eventually(lambda pool=pool: len(fleet.done(pool)) > half // 10)
        os.kill(before[pool], signal.SIGTERM)

    wanted = Counter(range(2 * half))
    for pool in POOLS:
        eventually(lambda pool=pool: len(fleet.done(pool)) == 2 * half, within=5 * PATIENCE)
        assert fleet.done(pool) == wanted, f"{pool}: repeated {fleet.done(pool) - wanted}"
    eventually(fleet.all_ready)
    assert not set(before.values()) & set(fleet.pids().values())


@pytest.mark.parametrize("task", ["late", "kept"])
def test_nothing_is_lost_by_a_kill_in_the_middle(fleet: Fleet, task: str) -> None:
    fleet.next_round()
    for pool in POOLS:
        fleet.send(pool, task, range(LATE))
    before = fleet.pids()
    for pool in POOLS:
        eventually(lambda pool=pool: len(fleet.done(pool)) > LATE // 10)
        os.kill(before[pool], signal.SIGKILL)

    for pool in POOLS:
        eventually(lambda pool=pool: len(fleet.done(pool)) == LATE, within=5 * PATIENCE)
        repeated = fleet.done(pool) - Counter(range(LATE))
        assert repeated.total() <= SLOTS[pool], f"{pool}: more than ran at that moment came again: {repeated}"
    eventually(fleet.all_ready)


def test_workers_resume_by_themselves_after_a_restart_of_the_broker(fleet: Fleet) -> None:
    fleet.next_round()
    before = fleet.pids()
    for pool in POOLS:
        fleet.send(pool, "late", range(40 * SLOTS[pool]), 0.1)
    for pool in POOLS:
        eventually(lambda pool=pool: len(fleet.done(pool)) > 2 * SLOTS[pool])
    fleet.broker.stop()
    for pool in POOLS:
        eventually(lambda pool=pool: "connection to the broker is lost" in fleet.log(pool))
    fleet.broker.start()
    for pool in POOLS:
        eventually(lambda pool=pool: len(fleet.done(pool)) == 40 * SLOTS[pool], within=5 * PATIENCE)
    assert fleet.pids() == before, "a worker was replaced because its broker was away"


@pytest.mark.parametrize("task", ["nap", "spin"])
def test_a_soft_limit_reaches_the_task(fleet: Fleet, task: str) -> None:
    from celery.exceptions import SoftTimeLimitExceeded

    able = [pool for pool in POOLS if TRAITS[pool].soft_limit]
    asked = {pool: fleet.ask(pool, task, 600, soft_time_limit=1) for pool in able}
    for pool, result in asked.items():
        with pytest.raises(SoftTimeLimitExceeded):
            result.get(timeout=5 * PATIENCE)
        assert result.state == "FAILURE", pool


@pytest.mark.parametrize(("task", "args"), [("nap", (600,)), ("spin", (600,)), ("stuck", (600,))])
def test_a_hard_limit_ends_the_task_or_replaces_the_worker(fleet: Fleet, task: str, args: tuple[Any, ...]) -> None:
    fleet.next_round()
    able = [pool for pool in POOLS if TRAITS[pool].hard_limit]
    before = fleet.pids()
    asked = {pool: fleet.ask(pool, task, *args, time_limit=1) for pool in able}
    for pool, result in asked.items():
        assert "TimeLimit" in type(result.get(timeout=5 * PATIENCE, propagate=False)).__name__, pool
        fleet.send(pool, "late", range(10))
    for pool in able:
        eventually(lambda pool=pool: len(fleet.done(pool)) == 10)
    eventually(fleet.all_ready)
    after = fleet.pids()
    assert after.get("prefork") == before.get("prefork")
    for pool in able:
        if after[pool] != before[pool]:
            assert re.search("replaced|hard (time )?limit", fleet.log(pool)), pool


def ended(fleet: Fleet, pool: str, result: Any) -> bool:
    if result.state != "REVOKED":
        fleet.celery.control.revoke(result.id, terminate=True)
    state = result.state
    assert state == "REVOKED", f"{pool} {fleet.pids().get(pool)}: {state}; its log ends\n{fleet.log(pool)[-3000:]}"
    return True


def test_a_running_task_can_be_revoked_and_ended(fleet: Fleet) -> None:
    fleet.next_round()
    able = [pool for pool in POOLS if TRAITS[pool].terminate]
    asked = {pool: fleet.ask(pool, "nap", 900) for pool in able}
    for result in asked.values():
        eventually(lambda result=result: result.state == "STARTED")
    for pool, result in asked.items():
        # A worker that has just come back to its broker hears of a broadcast as soon as its queue is bound again.
        eventually(lambda pool=pool, result=result: ended(fleet, pool, result))
        fleet.send(pool, "late", range(10))
    for pool in able:
        eventually(lambda pool=pool: len(fleet.done(pool)) == 10)
    eventually(fleet.all_ready)


def test_a_task_that_segfaults_takes_its_slot_or_its_worker_and_nothing_else(fleet: Fleet) -> None:
    fleet.next_round()
    before = fleet.pids()
    for pool in POOLS:
        fleet.send(pool, "segfault", range(1))
        eventually(lambda pool=pool: fleet.done(pool)[0] == 1)
    for pool in POOLS:
        fleet.send(pool, "late", range(1, 11))
    for pool in POOLS:
        eventually(lambda pool=pool: len(fleet.done(pool)) == 11)
        assert fleet.done(pool)[0] == 1, "an early acknowledged task came again"
    eventually(fleet.all_ready)
    assert fleet.pids()["prefork"] == before["prefork"]
    assert "SIGSEGV" in fleet.log("prefork")


def test_a_task_that_kills_whatever_runs_it_ends_with_the_dead_letters(fleet: Fleet) -> None:
    fleet.next_round()
    before = fleet.dead_letters()
    for pool in POOLS:
        fleet.send(pool, "poison", range(1))
    for pool in POOLS:
        eventually(lambda pool=pool: fleet.dead_letters()[pool] > before[pool])
        assert fleet.done(pool)[0] == MAX_ATTEMPTS, pool
    assert fleet.dead_letters() == {pool: count + 1 for pool, count in before.items()}
    eventually(fleet.all_ready)


def test_a_child_that_eats_memory_past_its_limit_is_replaced(fleet: Fleet) -> None:
    fleet.next_round()
    worker = psutil.Process(fleet.pids()["prefork"])
    before = {child.pid for child in worker.children()}
    result = fleet.ask("prefork", "eat", 700, 600)
    result.get(timeout=5 * PATIENCE, propagate=False)
    eventually(lambda: before - {child.pid for child in worker.children()})
    fleet.send("prefork", "late", range(10))
    eventually(lambda: len(fleet.done("prefork")) == 10)
    assert worker.is_running()


def test_the_fleet_is_as_its_manifest_says_after_all_that(fleet: Fleet) -> None:
    fleet.world.fleet("plan", str(fleet.world.manifest), "--detailed-exitcode")
