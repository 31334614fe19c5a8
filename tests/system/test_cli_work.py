"""Sending tasks and running a worker by hand, with real workers and brokers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, eventually
from tests.system.worlds import World

pytestmark = pytest.mark.system

SOLO = "    thumbs: {pool: solo, replicas: 2, queues: [thumbs]}\n"


def test_send_waits_until_the_fleet_has_done_its_tasks(world: World) -> None:
    world.write(SOLO)
    world.apply()
    path = str(world.done_file)
    arguments = json.dumps([path, 7, 0.01])
    words = ["send", str(world.manifest), "world_tasks.work", "--args", arguments, "--count", "50", "--wait"]
    said = json.loads(world.fleet(*words, "-o", "json").stdout)
    assert (said["queue"], said["sent"], said["failed"]) == ("thumbs", 50, 0)
    assert world.done() == {7: 50}


def test_send_says_what_is_wrong(world: World) -> None:
    world.write(SOLO + "    others: {pool: solo, replicas: 1, queues: [others]}\n")
    assert "which queue?" in world.fleet("send", "fleet.yaml", "world_tasks.work", code=64).stderr
    said = world.fleet("send", "fleet.yaml", "world_tasks.work", "--queue", "thumbs", "--args", "{}", code=64)
    assert "--args must be a JSON list" in said.stderr
    world.fleet("send", "fleet.yaml", "world_tasks.work", "--queue", "thumbs", "--args", "[1, 2, 0]", code=10)


def test_a_worker_by_hand_takes_tasks_and_drains_on_ctrl_c(world: World, redis_url: str) -> None:
    process = subprocess.Popen(
        world.command("worker", "--app", "world_tasks:tasks", "--queues", "by-hand", "--broker", redis_url),
        env=world.env(),
        cwd=world.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    world.write(SOLO, broker=redis_url)
    path = str(world.done_file)
    words = ["--queue", "by-hand", "--args", json.dumps([path, 1, 0.01])]
    world.fleet("send", "fleet.yaml", "world_tasks.work", *words)
    eventually(lambda: world.done() == {1: 1})
    shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert redis_url.encode() not in shown, "the broker's URL is not in the command line of the worker"
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, said


def test_a_worker_by_hand_that_is_killed_leaves_nothing_in_the_temporary_folder(world: World, redis_url: str) -> None:
    temporary = world.root / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        world.command("worker", "--app", "world_tasks:tasks", "--queues", "killed", "--broker", redis_url),
        env={**world.env(), "TMPDIR": str(temporary)},
        cwd=world.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    world.write(SOLO, broker=redis_url)
    words = ["--queue", "killed", "--args", json.dumps([str(world.done_file), 1, 0.01])]
    world.fleet("send", "fleet.yaml", "world_tasks.work", *words)
    eventually(lambda: world.done() == {1: 1})
    process.kill()
    process.wait(timeout=PATIENCE)
    assert list(temporary.iterdir()) == []


def test_a_silent_manifest_takes_pool_and_concurrency_from_the_celery_app(world: World, redis_url: str) -> None:
    (world.root / "shop.py").write_text(
        "from celery import Celery\n"
        f"app = Celery('shop', broker={redis_url!r})\n"
        "app.conf.worker_pool = 'threads'\n"
        "app.conf.worker_concurrency = 3\n"
        "print('noise while it is imported')\n"
    )
    world.write("    silent: {app: 'shop:app', replicas: 1, queues: [silent]}\n", broker=redis_url)
    document = json.loads(world.fleet("explain", "fleet.yaml", "-o", "json").stdout)
    assert document["groups"]["silent"]["slots"] == 3
    assert "threads" in world.fleet("explain", "fleet.yaml").stdout


def test_check_import_names_the_app_that_cannot_be_imported(world: World) -> None:
    world.write("    broken: {app: 'nowhere.at_all:app', pool: solo, replicas: 1}\n" + SOLO)
    said = world.fleet("validate", "fleet.yaml", "--check-import", code=3)
    assert "spec.groups.broken.app" in said.stderr
    assert "nowhere" in said.stderr
    assert world.fleet("validate", "fleet.yaml").returncode == 0
