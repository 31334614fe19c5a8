"""Real workers under a real supervisord that are stopped, frozen and robbed; nobody gives a command."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet.backends.supervisor.rpc import SupervisorRpc
from fleet.state.lock import is_held
from fleet.state.paths import Places
from tests.conftest import eventually
from tests.system import worlds
from tests.system.worlds import World

pytestmark = pytest.mark.system

GROUPS = """\
    small: {pool: solo, replicas: 2, queues: [small]}
    wide: {pool: {type: threads, concurrency: 2}, replicas: 1, queues: [wide]}
"""
CONTROLLER = "fleet-controller.0"


@pytest.fixture
def world(short_tmp: Path) -> Iterator[World]:
    made = worlds.make(short_tmp)
    made.write(GROUPS, heal="enabled")
    made.apply()
    yield made
    made.close()


def all_workers(world: World) -> dict[str, dict[str, Any]]:
    """Replica name -> its row of ``status``, the controller's too."""
    return {row["name"]: row for group in world.status()["groups"].values() for row in group["workers"]}


def is_well(world: World) -> bool:
    return world.fleet("status", str(world.manifest), "--exit-code", code=None).returncode == 0


def freeze(pid: int) -> None:
    psutil.Process(pid).suspend()


def freeze_between_looks(world: World, pid: int) -> None:
    """In the middle of a look it would hold the fleet's lock, and an apply would be refused as it should be."""
    lock = Places(world.home / "world").lock

    def is_frozen() -> bool:
        freeze(pid)
        if is_held(lock):
            psutil.Process(pid).resume()
            return False
        return True

    eventually(is_frozen)


def comes_back(world: World, name: str, pid: int) -> int:
    """As another process, without a command."""

    def other() -> int:
        now: int | None = world.pids().get(name)
        return now if now is not None and now != pid and is_well(world) else 0

    return eventually(other, every=1.0)


def events(world: World, event: str) -> list[dict[str, Any]]:

    lines = world.fleet("events", str(world.manifest), "-o", "json").stdout.splitlines()
    return [entry for entry in map(json.loads, lines) if entry["event"] == event]


def test_a_frozen_worker_is_not_ready_and_is_restarted(world: World) -> None:
    pid = world.pids()["wide.0"]
    freeze(pid)

    eventually(
        lambda: all_workers(world)["wide.0"]["trouble"] == "stuck" or world.pids().get("wide.0") != pid, every=0.3
    )
    comes_back(world, "wide.0", pid)
    assert [entry["class"] for entry in events(world, "heal.started")] == ["stuck"]
    world.send("work", "wide", [str(world.done_file), 1, 0])
    eventually(lambda: world.done() == {1: 1})


def test_a_replica_that_somebody_stopped_is_started_again(world: World) -> None:
    pid = world.pids()["small.1"]
    rpc = SupervisorRpc(Places.of(world.home, "world").socket, timeout_seconds=30.0)
    rpc.stop([row.full_name for row in rpc.processes() if row.group == "small.1"])
    rpc.close()

    comes_back(world, "small.1", pid)
    assert [entry["class"] for entry in events(world, "heal.started")] == ["stopped"]


def test_a_deleted_record_is_there_again_and_nothing_is_restarted(world: World) -> None:
    pids, places = world.pids(), Places.of(world.home, "world")
    for name in (*pids, CONTROLLER):
        places.record_file(name).unlink()

    eventually(lambda: all(places.record_file(name).exists() for name in pids))
    eventually(lambda: is_well(world), every=0.5)
    assert world.pids() == pids
    assert not events(world, "heal.started")


def test_an_override_ends_though_nobody_is_there(world: World) -> None:
    pids = world.pids()
    world.fleet("scale", "--live", "small=4", "--for", "10s", "--fleet", "world", "--yes")

    eventually(lambda: world.pids() == pids and is_well(world), every=1.0)
    assert [entry["reason"] for entry in events(world, "override.ended")] == ["its time is over"]


def test_a_frozen_controller_is_seen_and_an_apply_restarts_it(world: World) -> None:
    pid = all_workers(world)[CONTROLLER]["pid"]
    freeze_between_looks(world, pid)

    eventually(lambda: all_workers(world)[CONTROLLER]["trouble"] == "stuck", every=1.0)
    assert not is_well(world)
    assert "no heartbeat: the controller looked last" in world.fleet("status", str(world.manifest)).stdout
    assert f"{CONTROLLER}: stuck" in world.fleet("doctor", str(world.manifest), code=None).stdout
    health = world.fleet("health", "--fleet", "world", code=1).stdout
    assert "the controller looked last" in health
    world.apply()
    assert all_workers(world)[CONTROLLER]["pid"] != pid
    assert is_well(world)


def test_a_frozen_supervisord_goes_on(world: World) -> None:
    pids = world.pids()
    freeze(world.supervisord_pid())

    eventually(lambda: is_well(world) and events(world, "daemon.woken"), every=1.0)
    assert world.pids() == pids


def test_a_controller_that_is_killed_comes_back(world: World) -> None:
    pid = all_workers(world)[CONTROLLER]["pid"]
    os.kill(pid, signal.SIGKILL)

    def another() -> bool:
        row = all_workers(world)[CONTROLLER]
        return row["pid"] not in (None, pid) and row["ready"]

    eventually(another, every=0.5)
