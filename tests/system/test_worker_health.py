"""A worker that hangs, waits or loses its broker: what its record tells, and what it writes about its stacks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.core.health import PATIENCE, Condition, Health, Patience, judge
from fleet.core.spec import TaskPolicy
from fleet.replica.process_identity import lives
from fleet.replica.record import RecordView, read
from tests.conftest import eventually
from tests.system.test_worker_connection import Line
from tests.worker.workers import TASKS, RunningWorker, Shop

pytestmark = pytest.mark.system

HASTY = Patience(silence_seconds=3.0, overrun_seconds=1.0, idle_seconds=3.0)
POOLS = [("solo", 1), ("prefork", 2), ("threads", 2)]


WAITING = """

@tasks.task
async def waits(path, number):
    write(path + ".started", number)
    await asyncio.sleep(60)
"""


@pytest.fixture
def shop(redis_url: str, short_tmp: Path) -> Iterator[Shop]:
    made = Shop(short_tmp, redis_url)
    yield made
    made.close()


def health(worker: RunningWorker, patience: Patience = HASTY) -> Health:
    record = read(worker.record_path)
    living = record is not None and lives(record.pid, record.started_ticks)
    return judge(record, lives=living, now=time.time(), patience=patience)


def becomes(worker: RunningWorker, condition: Condition) -> Health:
    def there() -> Health | None:
        found = health(worker)
        return found if found.condition is condition else None

    return eventually(there)  # type: ignore[return-value]


def consumed_since(worker: RunningWorker, moment: float) -> RecordView | None:
    record = read(worker.record_path)
    return record if record is not None and record.consumed_at > moment else None


@pytest.mark.parametrize(("pool", "slots"), POOLS)
def test_a_frozen_process_is_stuck_until_it_goes_on(shop: Shop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    becomes(worker, Condition.READY)
    worker.signal(signal.SIGSTOP)
    assert "no heartbeat for" in becomes(worker, Condition.STUCK).reason
    worker.signal(signal.SIGCONT)
    becomes(worker, Condition.READY)
    worker.kill()
    becomes(worker, Condition.DEAD)


def test_a_solo_worker_in_a_blocking_call_is_busy_and_not_stuck(shop: Shop) -> None:
    worker = shop.worker(task=TaskPolicy(time_limit_seconds=600))
    shop.send("blocked", 1, 5)
    busy = becomes(worker, Condition.BUSY)
    assert busy.busy_until is not None
    assert busy.busy_until > time.time() + 500
    seen = set()

    def over() -> bool:
        found = health(worker).condition
        if not shop.done():
            seen.add(found)
        return bool(shop.done())

    eventually(over)
    assert seen <= {Condition.BUSY, Condition.READY}
    assert worker.term() == 0
    assert health(worker).condition is Condition.STOPPED


def test_a_greenlet_that_blocks_all_others_makes_the_worker_stuck(shop: Shop) -> None:
    worker = shop.worker("gevent", 4)
    shop.send("note", 1, 600.0)
    eventually(lambda: shop.started()[1] == 1)
    becomes(worker, Condition.READY)
    shop.send("blocked_until", 2, str(shop.gate()))
    eventually(lambda: shop.started()[2] == 1)

    def stuck_by_both() -> bool:
        return "runs shop_tasks.blocked_until, shop_tasks.note" in becomes(worker, Condition.STUCK).reason

    assert eventually(stuck_by_both)
    shop.gate().touch()
    becomes(worker, Condition.READY)


def test_a_worker_without_its_broker_is_not_consuming(redis_url: str, short_tmp: Path) -> None:
    line = Line(redis_url)
    shop = Shop(short_tmp, line.url)
    try:
        worker = shop.worker("threads", 2)
        line.cut()
        assert "no connection to the broker" in becomes(worker, Condition.NOT_CONSUMING).reason
        mended_at = time.time()
        line.mend()
        record = eventually(lambda: consumed_since(worker, mended_at))
        assert record.line_up
        assert health(worker, PATIENCE).condition is Condition.READY
    finally:
        shop.close()
        line.cut()


def test_the_probe_of_a_real_worker(shop: Shop) -> None:
    worker = shop.worker()
    command = [sys.executable, "-m", "fleet", "health", "--probe", "progress"]
    environ = {**os.environ, "FLEET_RECORD": str(worker.record_path)}

    def probe() -> int:
        return subprocess.run(command, env=environ, cwd=Path(__file__).parents[2], capture_output=True).returncode

    assert probe() == 0
    worker.kill()
    assert probe() == 1


# --- stacks


def log_of(worker: RunningWorker) -> str:
    """All of it: stacks are long."""
    return worker.log_path.read_text()


def test_usr1_tells_the_threads_and_their_tasks(shop: Shop) -> None:
    worker = shop.worker("threads", 2)
    task = shop.send("note", 1, 60.0)
    eventually(lambda: shop.started()[1] == 1)
    worker.signal(signal.SIGUSR1)
    eventually(lambda: f"runs shop_tasks.note[{task}]:" in log_of(worker))
    log = log_of(worker)
    assert "thread pool-" in log
    assert "time.sleep(seconds)" in log
    assert "most recent call first" in log, "the bare stacks are missing"
    assert worker.process is not None
    assert worker.process.poll() is None, "asking killed it"


def test_usr1_tells_the_greenlets_and_their_tasks(shop: Shop) -> None:
    worker = shop.worker("gevent", 4)
    tasks = [shop.send("note", number, 60.0) for number in range(3)]
    eventually(lambda: shop.started().total() == 3)
    worker.signal(signal.SIGUSR1)
    eventually(lambda: all(f"runs shop_tasks.note[{task}]:" in log_of(worker) for task in tasks))
    assert "greenlet Greenlet" in log_of(worker)
    assert "thread MainThread:" in log_of(worker)


def test_usr1_tells_coroutines_and_their_tasks(shop: Shop) -> None:
    (shop.folder / "shop_tasks.py").write_text(TASKS + WAITING)
    worker = shop.worker("asyncio", 4)
    task = shop.send("waits", 1)
    eventually(lambda: shop.started()[1] == 1)
    worker.signal(signal.SIGUSR1)
    eventually(lambda: f"runs shop_tasks.waits[{task}]:" in log_of(worker))
    assert "await asyncio.sleep(60)" in log_of(worker)


def test_usr1_reaches_a_solo_worker_in_c_code(shop: Shop) -> None:
    worker = shop.worker()
    task = shop.send("blocked", 1, 60)
    eventually(lambda: shop.started()[1] == 1)
    worker.signal(signal.SIGUSR1)
    eventually(lambda: f"thread MainThread runs shop_tasks.blocked[{task}]:" in log_of(worker))
    assert "most recent call first" in log_of(worker)
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 0


def test_usr1_tells_where_an_import_hangs(shop: Shop) -> None:
    (shop.folder / "hangs.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    worker = shop.worker(app="hangs:app", ready=False)
    eventually(lambda: "importing" in log_of(worker))
    worker.signal(signal.SIGUSR1)
    eventually(lambda: 'hangs.py", line 3 in <module>' in log_of(worker))
    assert worker.process is not None
    assert worker.process.poll() is None, "asking killed it"


def slots_of(worker: RunningWorker) -> list[int]:
    """The pids of its slots; there may be a helper process beside them."""
    return [child.pid for child in worker.children() if " slot " in " ".join(child.cmdline())]


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_usr1_reaches_every_child(shop: Shop, start_method: str) -> None:
    worker = shop.worker("prefork", 3, pool_options={"start_method": start_method})
    blocked, sleeping = shop.send("blocked", 1, 60), shop.send("note", 2, 60.0)
    eventually(lambda: shop.started().total() == 2)
    children = slots_of(worker)
    worker.signal(signal.SIGUSR1)
    eventually(lambda: all(f"child {pid} runs " in log_of(worker) for pid in children))
    eventually(lambda: log_of(worker).count("most recent call first") == 4)
    log = log_of(worker)
    assert f"runs shop_tasks.blocked[{blocked}]" in log
    assert f"runs shop_tasks.note[{sleeping}]" in log
    assert log.count("runs no task") == 1
    assert "in blocked" in log
    assert slots_of(worker) == children, "asking killed a child"
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 0
