"""gevent and eventlet workers on real brokers: thousands of waiting tasks, and what ends them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded

from fleet.core.spec import TaskPolicy
from tests.conftest import PATIENCE, eventually
from tests.system.test_worker_celery import WAIT, CeleryShop
from tests.worker.workers import PROJECT, RunningWorker, Shop

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

GREEN = ("gevent", "eventlet")

TASKS = '''
import ctypes, multiprocessing, os, signal, time
from fleet import Tasks

tasks = Tasks("green")


def write(path, text):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (str(text) + "\\n").encode())
    os.close(descriptor)


@tasks.task
def meet(path, number, everybody, seconds, gate=""):
    """Returns when everybody has come: only tasks that run at the same time ever do. And when the gate is open."""
    write(path + ".started", number)
    while len(open(path + ".started").readlines()) < everybody:
        time.sleep(0.5)
    while gate and not os.path.exists(gate):
        time.sleep(0.5)
    time.sleep(seconds)
    write(path, number)


@tasks.task(max_retries=0, time_limit_seconds=0.3)
def spins(path):
    write(path + ".spins", "once")
    while True:
        pass


@tasks.task(time_limit_seconds=0.3)
def blocks(path):
    """C code that no signal gets through to."""
    write(path + ".blocks", "once")
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    ctypes.CDLL(None).sleep(120)


def double(number):
    return number * 2


def once(path):
    """Whether this is the first run of it."""
    first = not os.path.exists(path + ".freezes")
    write(path + ".freezes", "once")
    return first


@tasks.task
def freezes(path, how):
    """Its first run stops the hub, and with it the signals and the deadline of a drain."""
    if once(path):
        if how == "pool":
            with multiprocessing.get_context("fork").Pool(2) as pool:
                pool.map(double, range(4))
        elif how == "code":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - {signal.SIGTERM})
            ctypes.CDLL(None).sleep(3600)
        while True:
            pass
    write(path, 7)


@tasks.task
async def coroutine(path):
    write(path + ".coroutine", "never")
'''


@pytest.fixture(params=["redis", "rabbitmq"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def shop(short_tmp: Path, url: str) -> Iterator[Shop]:
    with closing(green_shop(short_tmp, url)) as made:
        yield made


def green_shop(folder: Path, url: str) -> Shop:
    (folder / "green_tasks.py").write_text(TASKS)
    return Shop(folder, url)


@pytest.fixture
def celery_shop(short_tmp: Path, url: str, redis_url: str) -> Iterator[CeleryShop]:
    made = CeleryShop(short_tmp, url, redis_url)
    yield made
    made.close()


def green_worker(shop: Shop, pool: str, slots: int, **fields: object) -> RunningWorker:
    return shop.worker(pool, slots, app="green_tasks:tasks", **fields)


def send(shop: Shop, task: str, *args: object) -> None:
    shop.tasks.send(f"green_tasks.{task}", [str(shop.out), *args], queue=shop.queue)


def lines(shop: Shop, what: str) -> list[str]:
    path = Path(f"{shop.out}.{what}")
    return path.read_text().split() if path.exists() else []


@pytest.mark.parametrize("pool", GREEN)
def test_a_thousand_tasks_wait_at_once_and_term_in_the_middle_loses_none(shop: Shop, pool: str) -> None:
    worker = green_worker(shop, pool, 1000)
    arguments = [[str(shop.out), number, 1000, 0.0, str(shop.gate())] for number in range(1010)]
    shop.tasks.send_many("green_tasks.meet", arguments, queue=shop.queue)
    eventually(lambda: len(lines(shop, "started")) >= 1000)

    worker.signal(signal.SIGTERM)
    worker.wait_state("draining")
    shop.gate().touch()
    assert worker.wait() == 0

    assert len(shop.done()) + shop.depth() == 1010, "everything is done or in its queue again"
    assert shop.depth() >= 1, "a draining worker takes nothing new"
    green_worker(shop, pool, 100)
    eventually(lambda: len(shop.done()) == 1010)
    assert set(shop.done().values()) == {1}
    assert shop.depth() == 0


@pytest.mark.parametrize("pool", GREEN)
def test_a_spinning_task_meets_its_limit_and_its_neighbours_go_on(shop: Shop, pool: str) -> None:
    worker = green_worker(shop, pool, 10)
    shop.tasks.send_many("green_tasks.meet", [[str(shop.out), number, 3, 0.5] for number in range(3)], queue=shop.queue)
    send(shop, "spins")

    eventually(lambda: len(shop.dead()) == 1)
    eventually(lambda: len(shop.done()) == 3)
    assert worker.term() == 0
    assert "hard time limit of 0.3 s" in worker.log()


@pytest.mark.parametrize(("broker", "pool"), [("redis", "gevent"), ("redis", "eventlet")])
def test_a_task_that_blocks_past_its_limit_costs_the_process_and_is_not_run_for_ever(
    request: pytest.FixtureRequest, short_tmp: Path, broker: str, pool: str
) -> None:
    with closing(green_shop(short_tmp, request.getfixturevalue(f"{broker}_url"))) as shop:
        worker = green_worker(shop, pool, 10, task=TaskPolicy(max_attempts=1))
        shop.tasks.send_many("green_tasks.meet", [[str(shop.out), 1, 1, 0.0, str(shop.gate())]], queue=shop.queue)
        eventually(lambda: lines(shop, "started") == ["1"])
        send(shop, "blocks")

        assert worker.wait() == 75
        assert "blocks the whole process past its limits" in worker.log()
        found = worker.view()
        assert found is not None
        assert (found.state, found.note.split(":")[0]) == ("draining", "replaced")

        worker.start()  # who comes next finds both, and counts the death for the one that blocked
        [message] = eventually(shop.dead)
        assert message.headers["task"] == "green_tasks.blocks"
        assert lines(shop, "blocks") == ["once"]
        shop.gate().touch()
        eventually(lambda: shop.done() == {1: 1})
        assert shop.dead() == []


@pytest.mark.parametrize("how", ["pool", "code", "python"])
@pytest.mark.parametrize(("broker", "pool"), [("redis", "gevent"), ("rabbitmq", "eventlet")])
def test_a_task_that_stops_the_hub_does_not_stop_the_deadline_of_a_drain(
    request: pytest.FixtureRequest, short_tmp: Path, broker: str, pool: str, how: str
) -> None:
    with closing(green_shop(short_tmp, request.getfixturevalue(f"{broker}_url"))) as shop:
        worker = green_worker(shop, pool, 5, drain_timeout_seconds=1.0)
        shop.tasks.send_many("green_tasks.meet", [[str(shop.out), 1, 1, 0.0, str(shop.gate())]], queue=shop.queue)
        eventually(lambda: lines(shop, "started") == ["1"])
        send(shop, "freezes", how)
        eventually(lambda: lines(shop, "freezes") == ["once"])

        assert worker.term() == 0
        found = worker.view()
        assert found is not None
        assert (found.state, found.busy) == ("stopped", 0)
        print(worker.log())

        shop.gate().touch()
        worker.start()  # both come again, and none is blamed for a death
        eventually(lambda: shop.done() == {1: 1, 7: 1})
        assert shop.dead() == []
        assert worker.term() == 0


@pytest.mark.parametrize("pool", GREEN)
def test_the_connection_is_tended_while_tasks_run(short_tmp: Path, rabbitmq_url: str, pool: str) -> None:
    with closing(green_shop(short_tmp, f"{rabbitmq_url}?heartbeat=2")) as shop:
        worker = green_worker(shop, pool, 1)
        send(shop, "meet", 1, 1, 7.0)  # RabbitMQ hangs up after two heartbeats that did not come
        eventually(lambda: shop.done() == {1: 1})

        assert worker.term() == 0
        assert "lost" not in worker.log()
        assert lines(shop, "started") == ["1"]


@pytest.mark.parametrize("pool", GREEN)
def test_async_tasks_are_refused_with_a_word_about_other_pools(shop: Shop, pool: str) -> None:
    green_worker(shop, pool, 10)
    send(shop, "coroutine")

    [message] = eventually(shop.dead)
    assert "async def" in str(message.headers)
    assert lines(shop, "coroutine") == []


@pytest.mark.parametrize("pool", GREEN)
def test_a_celery_app_has_results_limits_control_and_revocation(celery_shop: CeleryShop, pool: str) -> None:
    shop = celery_shop
    worker = shop.worker(pool, 50)
    node = f"shopfleet.shop.0@{socket.gethostname()}"
    gate = shop.folder / "gate"
    bystander, target = shop.send("waits", str(gate)), shop.send("sleeps", 60)
    eventually(lambda: shop.lines().count("sleeps") == 2)
    inspect = shop.app.control.inspect(destination=[node], timeout=PATIENCE)

    assert inspect.ping() == {node: {"ok": "pong"}}
    assert {task["id"] for task in inspect.active()[node]} == {bystander.id, target.id}
    assert inspect.stats()[node]["pool"]["max-concurrency"] == 50
    shop.app.control.revoke(target.id, terminate=True)
    with pytest.raises(TaskRevokedError):
        target.get(**WAIT)
    gate.touch()
    assert bystander.get(**WAIT) == "slept"

    assert [shop.send("add", n, n).get(**WAIT) for n in range(3)] == [0, 2, 4]
    assert shop.send("softly").get(**WAIT) == "caught"
    with pytest.raises(SoftTimeLimitExceeded):
        shop.send("uncaught").get(**WAIT)
    with pytest.raises(TimeLimitExceeded):
        shop.send("limited").get(**WAIT)
    assert worker.term() == 0
    assert shop.lines().count("signal worker_process_init") == 1
    assert shop.lines().count("signal task_revoked") == 1


EVENTLET_APP = """
import os
from celery import Celery, signals
from celery._state import task_join_will_block

app = Celery("capp", broker="memory://", backend=os.environ["RESULTS"])
app.conf.result_expires = 60


def receive(name):
    def write(**facts):
        with open(os.environ["OUT"], "a") as out:
            out.write(f"{name} {type(facts['sender']).__name__} {sorted(facts.keys() - {'sender', 'signal'})}\\n")
    return write


for name in ("started", "preshutdown", "postshutdown", "apply"):
    getattr(signals, f"eventlet_pool_{name}").connect(receive(name), weak=False)


backends = []


@app.task
def joins():
    return task_join_will_block()


@app.task
def count_backends():
    backends.append(app.backend)
    return len(set(map(id, backends)))
"""


@pytest.mark.parametrize("pool", GREEN)
def test_celery_knows_what_kind_of_pool_it_runs_in(short_tmp: Path, redis_url: str, pool: str) -> None:
    shop = CeleryShop(short_tmp, redis_url, redis_url)
    (short_tmp / "capp.py").write_text(EVENTLET_APP)
    try:
        worker = shop.worker(pool, 5)
        assert shop.app.send_task("capp.joins").get(**WAIT) is False
        assert [shop.app.send_task("capp.count_backends").get(**WAIT) for _ in range(3)] == [1, 1, 1]
        assert worker.term() == 0
        told = [
            "started EventletPool []",
            *["apply EventletPool ['args', 'kwargs', 'target']"] * 4,
            "preshutdown EventletPool []",
            "postshutdown EventletPool []",
        ]
        assert shop.lines() == (told if pool == "eventlet" else [])
    finally:
        shop.close()


@pytest.mark.parametrize("pool", GREEN)
def test_a_process_that_imported_too_much_is_refused(short_tmp: Path, pool: str) -> None:
    document = short_tmp / "w.json"
    document.write_text(json.dumps({"spec": {"pool": {"type": pool}}}))
    (short_tmp / "sitecustomize.py").write_text("import asyncio")

    done = subprocess.run(
        [sys.executable, "-m", "fleet.worker", str(document)],
        env={**os.environ, "PYTHONPATH": f"{short_tmp}:{PROJECT}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert f"too late to patch this process for {pool}: imported before: asyncio" in done.stderr
    assert "hint: patch before anything else" in done.stderr
