"""Changed in place, on real servers: slots, queues, limits and log level of workers that keep their process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, eventually
from tests.system.worlds import COMMAND_SECONDS, World

pytestmark = pytest.mark.system


MORE_TASKS = """

@tasks.task
def whisper(path, number):
    import logging
    logging.getLogger("shop").debug("whispered %s", number)
    note(path, f"{number}")
"""

PATIENT = ", drain: {timeout: 300s}"


@pytest.fixture
def flag(world: World) -> Path:
    """Tasks named ``wait_for`` end when this file is there."""
    with (world.root / "world_tasks.py").open("a") as file:
        file.write(MORE_TASKS)
    return world.root / "flag"


def broker_of(request: pytest.FixtureRequest, name: str) -> str:
    return name if name == "embedded" else str(request.getfixturevalue("rabbitmq_url"))


def write(world: World, broker: str, pool: str, *, slots: int, queue: str = "reports", more: str = "") -> None:
    world.write(
        f"    reports: {{pool: {{type: {pool}, concurrency: {slots}}}, replicas: 1, queues: [{queue}]{more}}}\n",
        broker=broker,
    )


def planned(world: World) -> str:
    return world.fleet("plan", str(world.manifest)).stdout


def nothing_to_do(world: World) -> bool:
    return world.fleet("plan", str(world.manifest), "--detailed-exitcode", code=None).returncode == 0


def document(world: World, replica: str = "reports.0") -> dict[str, Any]:
    text = (world.home / "world" / "run" / "specs" / f"{replica}.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def document_says(world: World, slots: int) -> bool:
    return bool(document(world)["spec"]["pool"]["concurrency"] == slots)


@pytest.mark.parametrize(
    ("broker", "pool"), [("rabbitmq", "prefork"), ("embedded", "prefork"), ("embedded", "threads")]
)
def test_slots_come_and_go_while_tasks_run(
    world: World, flag: Path, request: pytest.FixtureRequest, broker: str, pool: str
) -> None:
    url = broker_of(request, broker)
    queue = f"resize-{pool}-{os.getpid()}"
    write(world, url, pool, slots=2, queue=queue, more=PATIENT)
    world.apply()
    pids = world.pids()
    path = str(world.done_file)
    world.send("wait_for", queue, *[[path, n, str(flag)] for n in range(5)])
    world.send("work", queue, *[[path, n, 0.02] for n in range(5, 40)])
    eventually(lambda: len(world.started()) == 2)

    write(world, url, pool, slots=5, queue=queue, more=PATIENT)
    assert "~ reports.0  resize  pool.concurrency 2 -> 5" in planned(world)
    world.apply()
    assert world.workers()["reports.0"]["slots"] == 5
    eventually(lambda: len(world.started()) == 5)
    write(world, url, pool, slots=2, queue=queue, more=PATIENT)
    apply = world.popen("apply", str(world.manifest), "--yes")
    eventually(lambda: world.workers()["reports.0"]["slots"] == 2)
    assert world.workers()["reports.0"]["busy"] == 5, "who runs in a slot that goes may finish"
    assert apply.poll() is None, "and is waited for"
    flag.touch()
    assert apply.wait(PATIENCE) == 0
    assert nothing_to_do(world)

    eventually(lambda: set(world.done()) == set(range(40)))
    assert max(world.done().values()) == 1
    assert max(world.started().values()) == 1, "a task was cut"
    assert world.pids() == pids


@pytest.mark.parametrize("broker", ["embedded", "rabbitmq"])
def test_queues_limits_and_log_level_change_without_a_restart(
    world: World, flag: Path, request: pytest.FixtureRequest, broker: str
) -> None:
    url = broker_of(request, broker)
    old, new = f"old-{os.getpid()}", f"new-{os.getpid()}"
    write(world, url, "prefork", slots=2, queue=old)
    world.apply()
    pids = world.pids()
    path = str(world.done_file)
    world.send("whisper", old, [path, 10])
    world.send("wait_for", old, [path, 0, str(flag)])
    eventually(lambda: 0 in world.started())

    write(world, url, "prefork", slots=2, queue=new, more=", task: {timeLimit: 1s}, logging: {level: DEBUG}")
    reason = f"task.timeLimit none -> 1s, logging.level INFO -> DEBUG, queues +{new} -{old}"
    assert f"~ reports.0  resize  {reason}" in planned(world)
    world.apply()
    world.send("work", old, [path, 1, 0.0])
    world.send("whisper", new, [path, 2])
    world.send("work", new, [path, 3, 60.0])

    eventually(lambda: 2 in world.done())
    eventually(lambda: world.workers()["reports.0"]["failed"] == 1)
    flag.touch()
    eventually(lambda: 0 in world.done())
    assert 1 not in world.started(), "the old queue is still consumed"
    assert 3 not in world.done(), "a task that started later had no limit"
    log = (world.home / "world" / "log" / "reports.0.log").read_text()
    assert "whispered 2" in log, "a child that was there before has the old log level"
    assert "whispered 10" not in log
    assert world.pids() == pids
    assert nothing_to_do(world)


def test_a_solo_worker_takes_up_its_queues_while_it_runs_a_task(world: World, flag: Path) -> None:
    world.write("    reports: {pool: solo, replicas: 1, queues: [a]}\n")
    world.apply()
    pids = world.pids()
    path = str(world.done_file)
    world.send("wait_for", "a", [path, 0, str(flag)])
    eventually(lambda: 0 in world.started())

    world.write("    reports: {pool: solo, replicas: 1, queues: [a, b]}\n")
    world.apply()

    assert not world.done(), "it was waited for the end of the task"
    assert world.pids() == pids
    assert nothing_to_do(world)
    flag.touch()
    world.send("work", "b", [path, 1, 0.0])
    eventually(lambda: set(world.done()) == {0, 1})


def test_an_apply_killed_between_writing_and_taking_up_is_finished_by_the_next(world: World) -> None:
    write(world, "embedded", "prefork", slots=2)
    world.apply()
    pids = world.pids()
    os.kill(pids["reports.0"], signal.SIGSTOP)

    write(world, "embedded", "prefork", slots=5)
    apply = world.popen("apply", str(world.manifest), "--yes")
    eventually(lambda: document_says(world, 5))
    assert not nothing_to_do(world), "the worker has not taken it up"
    apply.send_signal(signal.SIGKILL)
    apply.wait()
    os.kill(pids["reports.0"], signal.SIGCONT)
    world.apply()

    assert world.workers()["reports.0"]["slots"] == 5
    assert world.pids() == pids
    assert nothing_to_do(world)


def test_a_worker_killed_just_after_the_writing_comes_back_with_its_new_settings(world: World) -> None:
    write(world, "embedded", "prefork", slots=2)
    world.apply()
    pid = world.pids()["reports.0"]
    os.kill(pid, signal.SIGSTOP)

    write(world, "embedded", "prefork", slots=5)
    apply = world.popen("apply", str(world.manifest), "--yes")
    eventually(lambda: document_says(world, 5))
    os.kill(pid, signal.SIGKILL)

    assert apply.wait(PATIENCE) == 0
    row = world.workers()["reports.0"]
    assert row["pid"] != pid
    assert (row["slots"], row["drift"]) == (5, "")
    assert nothing_to_do(world)


def test_slots_changed_by_hand_are_drift_that_the_next_apply_mends(world: World, redis_url: str) -> None:
    (world.root / "handapp.py").write_text(
        "from celery import Celery\n"
        f"app = Celery('hand', broker={redis_url!r}, set_as_current=True)\n"
        f"app.conf.control_exchange = 'hand-{os.getpid()}'\n"
        "@app.task\n"
        "def nothing(): pass\n"
    )
    groups = (
        "    hand: {app: 'handapp:app', pool: {type: prefork, concurrency: 2}, replicas: 1,"
        f" queues: [hand-{os.getpid()}]}}\n"
    )
    world.write(groups, broker=redis_url)
    world.apply()
    pids = world.pids()

    subprocess.run(
        [sys.executable, "-m", "celery", "-A", "handapp", "control", "pool_grow", "3"],
        cwd=world.root,
        env=world.env(),
        check=True,
        timeout=COMMAND_SECONDS,
        capture_output=True,
    )
    eventually(lambda: world.workers()["hand.0"]["slots"] == 5)

    assert world.workers()["hand.0"]["drift"] == "to resize"
    assert "~ hand.0  resize  pool.concurrency 5 -> 2: changed by hand" in planned(world)
    world.apply()
    assert (world.workers()["hand.0"]["slots"], world.workers()["hand.0"]["drift"]) == (2, "")
    assert world.pids() == pids
    assert nothing_to_do(world)


def test_a_launch_document_that_was_lost_is_written_again(world: World) -> None:
    write(world, "embedded", "threads", slots=2)
    world.apply()
    pids, before = world.pids(), document(world)
    spec: Path = world.home / "world" / "run" / "specs" / "reports.0.json"
    spec.unlink()

    assert "~ reports.0  resize  its launch document is lost" in planned(world)
    world.apply()

    assert document(world) == before
    assert world.pids() == pids
