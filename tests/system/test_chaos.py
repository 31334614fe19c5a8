"""Kills at random moments, one after the other, while tasks run: whatever the order, nothing is lost."""

from __future__ import annotations

import os
import random
import signal

import psutil
import pytest

from tests.conftest import eventually
from tests.system.worlds import World

pytestmark = pytest.mark.system

TASKS = 600
KILLS = 12
SEEDS = [int(seed) for seed in os.environ.get("CHAOS_SEEDS", "1").split(",")]


@pytest.mark.parametrize("seed", SEEDS)
def test_no_late_acknowledged_task_is_lost_whatever_is_killed(world: World, seed: int) -> None:
    rng = random.Random(seed)
    world.write(
        "    thumbs: {pool: solo, replicas: 4, queues: [thumbs], restart: {maxCrashes: 100, backoff: {max: 1s}},"
        " task: {maxAttempts: 100}}\n"
        "    reports: {pool: {type: prefork, concurrency: 4}, replicas: 1, queues: [reports],"
        " restart: {maxCrashes: 100, backoff: {max: 1s}}, task: {maxAttempts: 100}}\n"
    )
    world.apply()
    path = str(world.done_file)
    wanted = set(range(TASKS))
    world.send("work", "thumbs", *[[path, n, rng.uniform(0.0, 0.3)] for n in range(0, TASKS, 2)])
    world.send("work", "reports", *[[path, n, rng.uniform(0.0, 0.3)] for n in range(1, TASKS, 2)])

    killed = []
    for _ in range(KILLS):
        done = len(world.done())
        eventually(lambda done=done: len(world.done()) >= min(TASKS, done + 15))
        what = eventually(lambda: _kill(world, rng))
        killed.append(what)
        if what == "supervisord":
            world.apply()

    world.apply()
    eventually(lambda: set(world.done()) == wanted)
    eventually(lambda: world.status()["ready"] is True)
    supervisor = psutil.Process(world.supervisord_pid())
    family = {supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))}
    assert {process.pid for process in world.processes()} <= family, f"strays after {killed}"


def _kill(world: World, rng: random.Random) -> str:
    """Kill somebody; what it was, or nothing where it was gone before the kill came."""
    try:
        what, pid = _victim(world, rng)
        os.kill(pid, signal.SIGKILL)
    except (psutil.Error, ProcessLookupError):
        return ""
    return what


def _victim(world: World, rng: random.Random) -> tuple[str, int]:
    """Somebody to kill: (what it is, its pid)."""
    supervisor = psutil.Process(world.supervisord_pid())
    workers = sorted(supervisor.children(), key=lambda process: process.pid)
    what = rng.choice(["worker", "worker", "child", "broker", "supervisord"])
    brokers = [one for one in workers if "redis" in one.name()]
    children = [child for one in workers for child in one.children()]
    if what == "supervisord" or not workers:
        return "supervisord", supervisor.pid
    if what == "broker" and brokers:
        return what, brokers[0].pid
    if what == "child" and children:
        return what, rng.choice(children).pid
    return "worker", rng.choice([one for one in workers if one not in brokers] or workers).pid
