"""A whole fleet of root's whose replicas and embedded broker run under other accounts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.accounts import NAME, as_nobody, needs_second_account, open_to_all, uid
from tests.conftest import eventually
from tests.system.worlds import World

pytestmark = [pytest.mark.system, needs_second_account]

REPOSITORY = Path(__file__).resolve().parents[2]
GROUPS = """    web:
      {{pool: {{type: threads, concurrency: {slots}}}, replicas: 2, queues: [web], noNewPrivileges: true}}
    clock: {{command: [sleep, "1000"], replicas: 1, user: daemon, health: {{readyAfter: 100ms}}}}
"""


def open_python(path: str) -> str:
    """An interpreter that the second account can run, and that has what this one has."""
    code = "import sys, fleet.worker.process, redis.asyncio; assert sys.version_info[:2] == (%d, %d)"
    for python in (sys.executable, "/usr/bin/python3"):
        if as_nobody(lambda python=python: os.access(python, os.X_OK)):
            command = [python, "-c", code % sys.version_info[:2]]
            done = subprocess.run(
                command, env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"}, user=uid(), cwd="/", check=False
            )
            if done.returncode == 0:
                return python
    pytest.skip("the second account can run no Python of this version")


@pytest.fixture
def more(world: World) -> str:
    """What the manifest says beside its groups."""
    open_to_all(world.root).chmod(0o755)  # Python lists the folders that it imports from
    (world.root / "async_timeout.py").write_text("from asyncio import timeout, Timeout\n")  # of Python before 3.11.3
    packages = [path for path in sys.path if path.endswith("site-packages")]
    path = os.pathsep.join([str(world.root), str(REPOSITORY), *packages])
    python = open_python(path)
    return (
        f"  user: {NAME}\n  release: {{workdir: {world.root}, python: {python}}}\n"
        f"  defaults: {{env: {{PYTHONPATH: '{path}'}}}}\n"
    )


def status(world: World) -> Any:
    return json.loads(world.fleet("status", "--fleet", "world", "-o", "json").stdout)


def pids(world: World) -> dict[str, int]:
    return {one["name"]: one["pid"] for group in status(world)["groups"].values() for one in group["workers"]}


def states(world: World) -> dict[str, str]:
    return {one["name"]: one["state"] for group in status(world)["groups"].values() for one in group["workers"]}


def owners(world: World) -> dict[str, str]:
    return {name.rpartition(".")[0]: psutil.Process(pid).username() for name, pid in pids(world).items()}


def write(world: World, more: str, *, slots: int = 2) -> None:
    world.write(GROUPS.format(slots=slots), heal="warn")
    text = world.manifest.read_text()
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith(("  release:", "  defaults:"))]
    world.manifest.write_text("".join(kept).replace("  groups:\n", f"{more}  groups:\n"))


def test_replicas_of_other_accounts_work_and_are_steered_as_any(world: World, more: str) -> None:
    write(world, more)
    said = world.fleet("apply", str(world.manifest), "--yes")
    assert "as root" not in said.stderr
    assert owners(world) == {"web": NAME, "clock": "daemon", "fleet-broker": NAME, "fleet-controller": "root"}

    done = world.root / "done"
    done.mkdir(mode=0o777)
    done.chmod(0o777)
    arguments = ("--queue", "web", "--args", json.dumps([str(done / "by"), 1, 0]), "--wait")
    world.fleet("send", "world_tasks.work", str(world.manifest), *arguments)
    assert {(done / name).stat().st_uid for name in ("by", "by.started")} == {uid()}

    world.fleet("drain", "web.0", "--fleet", "world", "--yes")
    eventually(lambda: states(world)["web.0"] == "draining")
    world.fleet("resume", "web.0", "--fleet", "world", "--yes")
    assert "Task world_tasks.work" in world.fleet("logs", "web", "--fleet", "world").stdout
    assert "thread MainThread" in world.fleet("stacks", "web.1", "--fleet", "world").stdout

    before = pids(world)
    write(world, more, slots=4)
    world.fleet("apply", str(world.manifest), "--yes")
    assert status(world)["groups"]["web"]["slots"]["desired"] == 8
    assert pids(world) == before, "they took the new number from their own copies"
    found = world.fleet("doctor", "--fleet", "world").stdout
    assert "permissions" not in found
    assert "privileges" not in found


def test_replicas_of_other_accounts_end_with_supervisord_and_leave_with_the_fleet(world: World, more: str) -> None:
    write(world, more)
    world.fleet("apply", str(world.manifest), "--yes")
    before = pids(world)
    os.kill(int((world.home / "world" / "run" / "supervisord.pid").read_text()), signal.SIGKILL)
    eventually(lambda: not any(psutil.pid_exists(before[name]) for name in ("web.0", "web.1", "clock.0")))
    world.fleet("apply", str(world.manifest), "--yes")
    assert owners(world)["web"] == NAME
    world.fleet("down", "--fleet", "world", "--yes")
    left = [path for path in (world.home / "world" / "accounts").rglob("*") if path.suffix in (".json", ".rec")]
    assert left == []
