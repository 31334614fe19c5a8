"""A process in which ``worker_process_init`` raises runs no task; after a few attempts the replica says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.system.test_worker_signals import Hall
from tests.system.worlds import make

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

INIT = """
import os


def tell(text):
    with open(os.environ.get("OUT", "out"), "a") as out:
        out.write(text + "\\n")


@worker_process_init.connect
def connect_database(**_):
    tell("init")
    left = int(open("failures").read())
    if left:
        open("failures", "w").write(str(left - 1))
        raise ConnectionError("no database")


@app.task
def fine():
    tell("ran")
"""
SOURCES = {
    "celery": """
import os
from celery import Celery
from celery.signals import worker_process_init

app = Celery("sapp", broker=os.environ["FLEET_BROKER_URL"], backend="cache+memory://")
"""
    + INIT,
    "registry": """
from fleet import Tasks
from fleet.signals import worker_process_init

app = Tasks("sapp")
"""
    + INIT,
}


class InitHall(Hall):
    def fails(self, times: int) -> None:
        (self.folder / "failures").write_text(str(times))

    def lines(self) -> list[str]:
        return self.out.read_text().splitlines() if self.out.exists() else []


@pytest.fixture(params=sorted(SOURCES))
def hall(request: pytest.FixtureRequest, redis_url: str, short_tmp: Path) -> Iterator[InitHall]:
    made = InitHall(short_tmp, redis_url, SOURCES[request.param])
    yield made
    made.close()


@pytest.mark.parametrize(
    ("pool", "attempts", "options"),
    [
        ("solo", 1, {}),
        ("threads", 1, {}),
        ("gevent", 1, {}),
        ("eventlet", 1, {}),
        ("asyncio", 1, {}),
        ("prefork", 5, {}),
        ("prefork", 5, {"start_method": "spawn"}),
        ("prefork", 5, {"start_method": "forkserver"}),
    ],
)
def test_a_worker_whose_slots_cannot_start_says_why_and_takes_nothing(
    hall: InitHall, pool: str, attempts: int, options: dict[str, Any]
) -> None:
    hall.fails(1000)
    hall.send("fine")
    worker = hall.worker(pool, 1, ready=False, pool_options=options)
    assert worker.wait() == 1
    view = worker.view()
    assert view is not None
    assert (view.state, view.note) == ("failed", "ConnectionError: no database")
    assert hall.lines() == ["init"] * attempts
    hall.fails(0)
    worker.start()
    eventually(lambda: "ran" in hall.lines())


def test_a_slot_that_starts_after_all_takes_work(hall: InitHall) -> None:
    hall.fails(3)
    hall.send("fine")
    worker = hall.worker("prefork", 1)
    eventually(lambda: "ran" in hall.lines())
    assert hall.lines() == ["init"] * 4 + ["ran"]
    assert worker.term() == 0


def test_a_slot_that_cannot_be_replaced_leaves_the_others_at_work(hall: InitHall) -> None:
    hall.fails(0)
    worker = hall.worker("prefork", 2)
    hall.fails(1000)
    first = worker.children()[0]
    first.kill()
    eventually(lambda: hall.lines().count("init") >= 2 + 6)
    hall.send("fine")
    eventually(lambda: "ran" in hall.lines())
    assert worker.term() == 0


def test_apply_and_status_tell_why(short_tmp: Path) -> None:
    world = make(short_tmp)
    (short_tmp / "world_tasks.py").write_text(SOURCES["registry"].replace("app = ", "tasks = app = "))
    (short_tmp / "failures").write_text("100000")
    restart = "restart: {backoff: {initial: 0.1s, max: 0.2s}, maxCrashes: 2}"
    world.write(f"    a: {{pool: {{type: prefork, concurrency: 1}}, replicas: 1, queues: [a], {restart}}}\n")
    try:
        result = world.fleet("apply", str(world.manifest), code=None)
        assert result.returncode != 0
        assert "no database" in result.stdout + result.stderr
        worker = eventually(lambda: [w for w in [world.workers()["a.0"]] if w["state"] == "failed"])[0]
        assert "no database" in worker["note"]
    finally:
        world.close()
