"""A real fleet whose worker is killed: the event, the counters, and who is told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import eventually
from tests.operate.notify.standins import Web, web_server
from tests.system import worlds
from tests.system.worlds import World

pytestmark = pytest.mark.system


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as server:
        yield server


@pytest.fixture
def world(short_tmp: Path, web: Web) -> Iterator[World]:
    made = worlds.make(short_tmp)
    hook = f"{{webhook: {{url: '{web.url}/hook'}}, on: [all]}}"
    groups = "    small: {pool: solo, replicas: 1, queues: [small]}\n"
    made.write(groups, heal="enabled", more=f"  notify: [{hook}]\n")
    made.apply()
    yield made
    made.close()


def crashes(world: World) -> list[dict[str, Any]]:
    lines = world.fleet("events", str(world.manifest), "-o", "json").stdout.splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == "worker.crashed"]


def totals(world: World) -> dict[str, int]:
    found: dict[str, int] = world.status()["groups"]["small"]["totals"]
    return found


def told(web: Web) -> dict[str, dict[str, Any]]:
    return {row["kind"]: row for row in map(json.loads, web.bodies)}


def test_a_kill_leaves_a_line_is_told_and_takes_no_count_away(world: World, web: Web) -> None:
    world.send("work", "small", [str(world.done_file), 1, 0], [str(world.done_file), 2, 0])
    eventually(lambda: totals(world)["done"] == 2, every=0.3)
    flag = world.root / "flag"
    world.send("wait_for", "small", [str(world.done_file), 3, str(flag)])
    eventually(lambda: world.started()[3])
    pid = world.pids()["small.0"]
    os.kill(pid, signal.SIGKILL)

    (entry,) = eventually(lambda: crashes(world), every=0.3)
    assert (entry["replica"], entry["process"], entry["signal"]) == ("small.0", pid, "SIGKILL")
    assert [task["name"] for task in entry["tasks"]] == ["world_tasks.wait_for"]
    eventually(lambda: "crash" in told(web))
    assert told(web)["crash"]["replica"] == "small.0"
    assert "killed by SIGKILL" in told(web)["crash"]["text"]
    assert told(web).keys() >= {"rollout.started", "rollout.done"}

    flag.touch()
    eventually(lambda: totals(world)["done"] == 3, every=0.3)
    assert totals(world) == {"restarts": 1, "crashes": 1, "done": 3, "failed": 0}
    world.fleet("restart", str(world.manifest), "small", "-y")
    assert totals(world)["restarts"] >= 2
    assert totals(world) | {"restarts": 0} == {"restarts": 0, "crashes": 1, "done": 3, "failed": 0}
    assert len(crashes(world)) == 1, "a restart is no crash"
