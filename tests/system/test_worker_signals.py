"""Signals: what an app that listens to all of them hears, under every pool and under Celery's own worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest

from fleet import Tasks
from fleet.core.spec import TaskPolicy
from tests.conftest import PATIENCE, eventually
from tests.worker.workers import RunningWorker

pytestmark = [
    pytest.mark.system,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

HEAR = '''
import json, os, time

NAMES = """worker_init worker_ready worker_shutting_down worker_shutdown worker_before_create_process
    worker_process_init worker_process_shutdown
    task_received task_prerun task_postrun task_success task_failure task_retry task_revoked task_rejected
    task_unknown"""


def hear(signals, names):
    for heard in names.split():
        def receive(sender, signal, heard=heard, **arguments):
            request = arguments.get("request")
            task = getattr(sender, "name", "") or getattr(request, "name", "") or arguments.get("name", "")
            line = {"signal": heard, "pid": os.getpid(), "task": task if heard.startswith("task") else ""}
            line |= {"arguments": sorted(arguments), "id": getattr(request, "id", None) or arguments.get("task_id")}
            with open(os.environ["OUT"], "a") as out:
                out.write(json.dumps(line) + "\\n")
        getattr(signals, heard).connect(receive, **({"weak": False} if signals.__name__ == "celery.signals" else {}))
'''

CELERY = (
    HEAR
    + """
from celery import Celery, signals

hear(signals, NAMES + " celeryd_init celeryd_after_setup")
app = Celery("sapp", broker=os.environ["FLEET_BROKER_URL"], backend="cache+memory://")
app.conf.worker_hijack_root_logger = False


@app.task
def fine(number=0, seconds=0.0):
    time.sleep(seconds)
    return "fine"


@app.task
def broken():
    raise ValueError("as asked")


@app.task(bind=True, max_retries=1)
def again(self):
    if not self.request.retries:
        raise self.retry(countdown=0)
"""
)

REGISTRY = (
    HEAR
    + """
from fleet import Retry, Tasks, signals

hear(signals, NAMES)
app = Tasks("sapp")


@app.task
def fine(number=0, seconds=0.0):
    time.sleep(seconds)


@app.task(max_retries=0)
def broken():
    raise ValueError("as asked")


@app.task(max_retries=1)
def again():
    if not app.current.retries:
        raise Retry(after_seconds=0)


@app.task(max_retries=0)
def endless():
    time.sleep(60)
"""
)


class Hall:
    """An app that writes down what it hears, its workers, and its queue."""

    def __init__(self, folder: Path, url: str, source: str) -> None:
        self.folder = folder
        self.url = url
        self.out = folder / "heard"
        self.queue = f"s{uuid.uuid4().hex[:8]}"
        self.workers: list[RunningWorker] = []
        self.tasks = Tasks("sapp", broker=url)
        (folder / "sapp.py").write_text(source)

    def worker(self, pool: str, slots: int, *, ready: bool = True, **fields: Any) -> RunningWorker:
        environ = {"OUT": str(self.out)}
        made = RunningWorker(
            self.folder,
            self.url,
            pool=pool,
            slots=slots,
            queues=[self.queue],
            app="sapp:app",
            environ=environ,
            **fields,
        )
        self.workers.append(made)
        return made.start(ready=ready)

    def send(self, name: str, *args: Any, **how: Any) -> str:
        return self.tasks.send(f"sapp.{name}", args, queue=self.queue, **how)

    def send_all(self) -> None:
        """One task of each kind, and a message that is none."""
        self.send("fine")
        self.send("broken")
        self.send("again")
        self.send("fine", expires=-5.0)
        self.send("nobody_knows")
        with kombu.Connection(self.url) as connection:
            connection.SimpleQueue(self.queue).put({"junk": True})

    def heard(self) -> list[dict[str, Any]]:
        lines = self.out.read_text().splitlines(keepends=True) if self.out.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def kinds(self) -> set[tuple[str, str]]:
        return {(one["signal"], one["task"]) for one in self.heard()}

    def told(self) -> set[tuple[str, ...]]:
        """The same with the names of the arguments."""
        return {(one["signal"], one["task"], *one["arguments"]) for one in self.heard()}

    def pids(self, name: str) -> list[int]:
        return [one["pid"] for one in self.heard() if one["signal"] == name]

    def await_ends(self) -> None:
        """Until the last of ``send_all`` has told its end."""
        ends = {
            ("task_success", "sapp.fine"),
            ("task_failure", "sapp.broken"),
            ("task_success", "sapp.again"),
            ("task_revoked", "sapp.fine"),
            ("task_unknown", "sapp.nobody_knows"),
            ("task_rejected", ""),
        }
        eventually(lambda: ends <= self.kinds())

    def close(self) -> None:
        for worker in self.workers:
            worker.clean()
            if worker.log_path.exists():
                print(f"== {worker.replica}\n{worker.log()}")
        if self.tasks._publisher is not None:
            self.tasks._publisher[1].close()


@pytest.fixture(params=["celery", "registry"])
def hall(request: pytest.FixtureRequest, redis_url: str, short_tmp: Path) -> Iterator[Hall]:
    made = Hall(short_tmp, redis_url, CELERY if request.param == "celery" else REGISTRY)
    yield made
    made.close()


@pytest.fixture(scope="module")
def celerys(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, ...]]:
    """What Celery's own prefork worker lets the same app hear."""
    hall = Hall(tmp_path_factory.mktemp("celery"), redis_url, CELERY)
    environ = {**os.environ, "OUT": str(hall.out), "FLEET_BROKER_URL": redis_url}
    command = [sys.executable, "-m", "celery", "-A", "sapp", "worker", "-P", "prefork", "-c", "1", "-Q", hall.queue]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
    log = (hall.folder / "log").open("wb")
    with log, subprocess.Popen([*command, *quiet], cwd=hall.folder, env=environ, stdout=log, stderr=log) as process:
        try:
            eventually(lambda: ("worker_ready", "") in hall.kinds())
            hall.send_all()
            hall.await_ends()
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)
        finally:
            process.kill()
            print((hall.folder / "log").read_text()[-3000:], *hall.heard(), sep="\n")
            hall.close()
    return hall.told()


@pytest.mark.parametrize(
    ("pool", "slots"), [("solo", 1), ("prefork", 2), ("threads", 2), ("gevent", 4), ("asyncio", 2)]
)
def test_everything_that_celery_tells_is_told_in_every_pool(
    hall: Hall, celerys: set[tuple[str, ...]], pool: str, slots: int, request: pytest.FixtureRequest
) -> None:
    worker = hall.worker(pool, slots)
    hall.send_all()
    hall.await_ends()
    assert worker.term() == 0

    missing = () if pool == "prefork" else ("worker_before_create_process",)
    missing += () if "celery" in request.node.callspec.id else ("celeryd_init", "celeryd_after_setup")
    assert hall.told() == {told for told in celerys if told[0] not in missing}
    in_slots = {"task_prerun", "task_postrun", "task_success", "task_failure", "task_retry"}
    in_slots |= {"worker_process_init", "worker_process_shutdown"}
    for one in hall.heard():
        own = one["pid"] == worker.pid
        assert own == (pool != "prefork" or one["signal"] not in in_slots), one
    assert len(hall.pids("worker_process_init")) == (slots if pool == "prefork" else 1)
    assert sorted(hall.pids("worker_process_init")) == sorted(hall.pids("worker_process_shutdown"))
    order = [
        one["signal"] for one in hall.heard() if one["signal"].startswith("worker_") and "process" not in one["signal"]
    ]
    assert order == ["worker_init", "worker_ready", "worker_shutting_down", "worker_shutdown"]


def test_every_child_tells_its_begin_and_its_end_also_a_recycled_one(hall: Hall) -> None:
    worker = hall.worker("prefork", 1, pool_options={"max_tasks_per_child": 2})
    for number in range(6):
        hall.send("fine", number)
    eventually(lambda: len(hall.pids("task_success")) == 6)
    assert worker.term() == 0
    assert len(set(hall.pids("task_success"))) >= 3
    assert set(hall.pids("task_success")) <= set(hall.pids("worker_process_init"))
    assert set(hall.pids("task_success")) <= set(hall.pids("worker_process_shutdown"))


def test_a_cold_stop_is_told(hall: Hall) -> None:
    worker = hall.worker("threads", 1)
    hall.send("fine", 1, 30)
    eventually(lambda: ("task_prerun", "sapp.fine") in hall.kinds())
    worker.signal(signal.SIGQUIT)
    assert worker.wait() == 0
    assert [one["arguments"] for one in hall.heard() if one["signal"] == "worker_shutting_down"] == [
        ["exitcode", "how", "sig"]
    ]


def test_an_end_that_the_slot_cannot_tell_is_told_by_the_worker(redis_url: str, short_tmp: Path) -> None:
    hall = Hall(short_tmp, redis_url, REGISTRY)
    try:
        worker = hall.worker("prefork", 1, task=TaskPolicy(time_limit_seconds=1.0))
        task = hall.send("endless")
        [told] = eventually(lambda: [one for one in hall.heard() if one["signal"] == "task_failure"])
        assert (told["pid"], told["id"], told["task"]) == (worker.pid, task, "sapp.endless")
    finally:
        hall.close()
