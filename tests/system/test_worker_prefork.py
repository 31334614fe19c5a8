"""A worker with prefork children on a real broker: every start method, and what is left of a child that died."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet.core.spec import TaskPolicy
from tests.conftest import eventually
from tests.worker.workers import RunningWorker, Shop

pytestmark = pytest.mark.system

TASKS = """
import ctypes, logging, multiprocessing, os, sys, time
from concurrent.futures import ProcessPoolExecutor
from shop_tasks import write
from fleet import Tasks
from fleet.signals import worker_process_init, worker_process_shutdown

tasks = Tasks("prefork")
log = logging.getLogger(__name__)
HOARD = []
FAREWELLS = os.environ.get("FAREWELLS", os.devnull)


@worker_process_init.connect
def hello(*args, **facts):
    write(FAREWELLS, f"init {os.getpid()}")


@worker_process_shutdown.connect
def farewell(*args, **facts):
    write(FAREWELLS, f"shutdown {os.getpid()}")


@tasks.task
def note(path, number):
    write(path, number)


@tasks.task
def segfaults(path, number):
    write(path, number)
    log.info("about to read what is not mine")
    ctypes.string_at(0)


@tasks.task
def leaves(path, number):
    write(path, number)
    log.info("slamming the door")
    os._exit(3)


@tasks.task
def spreads(path, number, method):
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(abs, [-1, -2])) == [1, 2]
    queue = context.Queue()
    process = context.Process(target=queue.put, args=(number,), daemon=True)
    process.start()
    assert queue.get() == number
    process.join()
    write(path, number)


@tasks.task
def eats(path, number):
    write(path, number)
    log.info("hungry")
    while True:
        HOARD.append(bytearray(8 << 20))
        time.sleep(0.01)
"""

every_method = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])


@pytest.fixture
def shop(redis_url: str, short_tmp: Path) -> Iterator[Shop]:
    made = Shop(short_tmp, redis_url)
    yield made
    made.close()


def worker_of(shop: Shop, method: str, *, recycling: dict[str, int] | None = None, **fields: Any) -> RunningWorker:
    (shop.folder / "prefork_tasks.py").write_text(TASKS)
    options = {"start_method": method, **(recycling or {})}
    return shop.worker("prefork", 2, app="prefork_tasks:tasks", pool_options=options, **fields)


def send(shop: Shop, task: str, number: int) -> str:
    return str(shop.tasks.send(f"prefork_tasks.{task}", [str(shop.out), number], queue=shop.queue))


@every_method
@pytest.mark.parametrize(
    ("task", "exit_name", "words"),
    [("segfaults", "SIGSEGV", "Segmentation fault"), ("leaves", "exit code 3", "slamming the door")],
)
def test_a_poison_task_tells_how_it_died(shop: Shop, method: str, task: str, exit_name: str, words: str) -> None:
    worker = worker_of(shop, method, task=TaskPolicy(max_attempts=2))

    send(shop, task, 1)

    [message] = eventually(shop.dead)
    assert shop.done()[1] == 2
    assert message.headers["x-fleet-exit"] == exit_name
    assert exit_name in message.headers["x-fleet-error"]
    assert words in message.headers["x-fleet-log"]
    assert len(message.headers["x-fleet-log"]) <= 4096
    send(shop, "note", 2)
    eventually(lambda: shop.done()[2] == 1)
    assert worker.term() == 0


def test_tasks_may_start_processes_by_every_method(shop: Shop) -> None:
    worker = worker_of(shop, "fork")
    for number, method in enumerate(("fork", "spawn", "forkserver")):
        shop.tasks.send("prefork_tasks.spreads", [str(shop.out), number, method], queue=shop.queue)
    eventually(lambda: shop.done() == {0: 1, 1: 1, 2: 1})
    assert shop.dead() == []
    assert worker.term() == 0


def test_a_task_that_eats_memory_is_told_clearly_and_not_tried_again(shop: Shop) -> None:
    worker = worker_of(shop, "fork", recycling={"max_memory_per_child_bytes": 120 << 20})

    send(shop, "eats", 1)

    [message] = eventually(shop.dead)
    assert "its limit is 120 MiB" in message.headers["x-fleet-error"]
    assert "hungry" in message.headers["x-fleet-log"]
    assert shop.done()[1] == 1
    send(shop, "note", 2)
    eventually(lambda: shop.done()[2] == 1)
    assert worker.term() == 0


@every_method
def test_every_child_says_hello_and_farewell(shop: Shop, method: str) -> None:
    farewells = shop.folder / "farewells"
    worker = worker_of(shop, method, environ={"FAREWELLS": str(farewells)}, recycling={"max_tasks_per_child": 2})
    for number in range(6):
        send(shop, "note", number)
    eventually(lambda: sum(shop.done().values()) == 6)

    assert worker.term() == 0

    said = farewells.read_text().split("\n")
    born = {line.split()[1] for line in said if line.startswith("init")}
    left = [line.split()[1] for line in said if line.startswith("shutdown")]
    assert len(born) >= 3
    assert sorted(left) == sorted(born)


@every_method
def test_the_whole_worker_goes_when_it_is_killed(shop: Shop, method: str) -> None:
    worker = worker_of(shop, method)
    eventually(lambda: len(worker.children()) >= (1 if method == "forkserver" else 2))
    family = [child for process in worker.children() for child in (process, *process.children(recursive=True))]

    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()

    eventually(lambda: not [process for process in family if process.is_running() and process.status() != "zombie"])
