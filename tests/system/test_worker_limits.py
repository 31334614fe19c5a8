"""Time limits and deaths: what ends, what goes on, and what the worker says about it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fleet.core.spec import TaskPolicy
from fleet.worker.lifecycle import EXIT_REPLACE
from tests.conftest import eventually
from tests.worker.workers import Shop

pytestmark = pytest.mark.system


@pytest.fixture
def shop(redis_url: str, short_tmp: Path) -> Iterator[Shop]:
    made = Shop(short_tmp, redis_url)
    yield made
    made.close()


def test_a_hard_limit_in_prefork_ends_the_child_and_its_children(shop: Shop) -> None:
    worker = shop.worker("prefork", 2)
    shop.send("too_slow", 1)
    [message] = eventually(shop.dead)
    assert "time limit" in message.headers["x-fleet-error"]
    shop.send("note", 2)
    eventually(lambda: shop.done()[2] == 1)
    eventually(
        lambda: not [p for p in psutil.Process(worker.pid).children(recursive=True) if "sleep(60)" in str(p.cmdline())]
    )
    assert worker.term() == 0


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 2)])
def test_a_soft_limit_is_raised_inside_the_task(shop: Shop, pool: str, slots: int) -> None:
    shop.worker(pool, slots)
    shop.send("too_slow_softly", 1)
    [message] = eventually(shop.dead)
    assert "soft time limit" in message.headers["x-fleet-error"]


def test_a_hard_limit_in_solo_replaces_the_process(shop: Shop) -> None:
    worker = shop.worker(task=TaskPolicy(prefetch=4))
    shop.send("too_slow", 1)
    shop.send_notes([2, 3])
    assert worker.wait() == EXIT_REPLACE
    assert "this process is replaced" in worker.log()
    [message] = eventually(shop.dead)
    assert "hard time limit of 0.5 s" in message.headers["x-fleet-error"]
    assert shop.depth() == 2, "what had not started was not handed back"
    eventually(lambda: not [p for p in psutil.process_iter() if _cmdline(p)[-1:] == [str(shop.out)]])
    worker.start()
    eventually(lambda: set(shop.done()) == {2, 3})


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_hard_limit_in_threads_drains_and_replaces_the_process(shop: Shop) -> None:
    worker = shop.worker("threads", 2)
    shop.send("note", 1, 1.5)
    eventually(lambda: shop.started()[1] == 1)
    shop.send("too_slow", 2)
    assert worker.wait() == EXIT_REPLACE
    assert shop.done()[1] == 1, "the neighbour was not finished"
    assert len(eventually(shop.dead)) == 1
    eventually(lambda: not [p for p in psutil.process_iter() if _cmdline(p)[-1:] == [str(shop.out)]])


@pytest.mark.parametrize(("pool", "slots"), [("solo", 1), ("prefork", 2), ("threads", 2)])
def test_sys_exit_in_a_task_fails_the_task_and_not_the_worker(shop: Shop, pool: str, slots: int) -> None:
    worker = shop.worker(pool, slots)
    shop.send("exits", 1)
    assert "SystemExit" in eventually(shop.dead)[0].headers["x-fleet-error"]
    shop.send("note", 2)
    eventually(lambda: shop.done()[2] == 1)
    assert worker.term() == 0


def test_a_cold_stop_reaches_a_solo_task_that_holds_the_main_thread(shop: Shop) -> None:
    worker = shop.worker()
    shop.send("blocked", 1, 40)
    eventually(lambda: shop.started()[1] == 1)
    worker.signal(signal.SIGTERM)
    worker.wait_state("draining")
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 0
    assert shop.depth() == 1


def test_an_app_that_cannot_be_imported_is_explained(shop: Shop) -> None:
    worker = shop.worker(app="no_such_module:app", ready=False)
    assert worker.wait() == 1
    assert "no_such_module" in worker.log()
    assert "is 'no_such_module' installed" in worker.log()
    worker = shop.worker(app="shop_tasks:nothing", ready=False)
    assert worker.wait() == 1
    assert "it has tasks" in worker.log()
