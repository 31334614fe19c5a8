"""From a manifest to a working fleet: scale, kill, heal, take down, on real servers."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import psutil
import pytest

import fleet
from tests.conftest import eventually
from tests.system.worlds import World

pytestmark = pytest.mark.system

SOLO = "    thumbs: {pool: solo, replicas: %d, queues: [thumbs]}\n"
PREFORK = "    reports: {pool: {type: prefork, concurrency: %d}, replicas: 1, queues: [reports]}\n"


def test_ten_solo_and_one_prefork_take_tasks_and_go_down(world: World) -> None:
    world.write(SOLO % 10 + PREFORK % 10 + "    clock: {command: [sleep, '1000'], replicas: 1}\n")
    world.apply()

    status = world.status()
    assert status["ready"] is True
    assert status["groups"]["thumbs"]["slots"]["desired"] == 10
    assert status["groups"]["reports"]["slots"]["desired"] == 10

    path = str(world.done_file)
    world.send("work", "thumbs", *[[path, n, 0.01] for n in range(100)])
    world.send("work", "reports", *[[path, n, 0.01] for n in range(100, 200)])
    world.send("fan_out", "thumbs", [path, 200])
    world.send("fan_out", "reports", [path, 201])
    eventually(lambda: set(world.done()) == set(range(202)))
    assert max(world.done().values()) == 1
    processed = eventually(
        lambda: (total := sum(g["processed"] for g in world.status()["groups"].values())) >= 202 and total
    )
    assert processed == 202

    assert world.fleet("plan", str(world.manifest), "--detailed-exitcode").returncode == 0
    world.fleet("down", str(world.manifest), "--yes")
    assert not world.processes()


def test_scaling_keeps_the_survivors_and_lets_idle_replicas_go_first(world: World) -> None:
    world.write(SOLO % 10)
    world.apply()
    ten = world.pids()
    assert len(ten) == 10

    world.write(SOLO % 12)
    world.apply()
    twelve = world.pids()
    assert {name: twelve[name] for name in ten} == ten

    path, flag = str(world.done_file), world.root / "flag"
    world.send("wait_for", "thumbs", *[[path, n, str(flag)] for n in range(8)])

    def eight_busy() -> set[str]:
        busy = {name for name, row in world.workers().items() if row["busy"]}
        return busy if len(busy) == 8 else set()

    busy = eventually(eight_busy)
    world.write(SOLO % 8)
    world.apply()
    eight = world.pids()
    assert eight == {name: twelve[name] for name in busy}
    assert not world.done(), "a running task was waited for or cut although idle replicas could leave"
    assert len(world.started()) == 8
    flag.touch()
    eventually(lambda: set(world.done()) == set(range(8)))
    assert max(world.started().values()) == 1


def test_a_running_task_is_finished_when_its_replica_must_leave(world: World) -> None:
    world.write(SOLO % 2)
    world.apply()
    path = str(world.done_file)
    world.send("work", "thumbs", [path, 0, 5.0], [path, 1, 5.0])
    eventually(lambda: len(world.started()) == 2)
    world.write(SOLO % 0)
    world.apply()
    assert world.done() == {0: 1, 1: 1}
    assert not world.pids()


def test_a_hundred_replicas_are_ordinary(world: World) -> None:
    world.write(SOLO % 100)
    world.apply()
    assert len(world.pids()) == 100
    path = str(world.done_file)
    world.send("work", "thumbs", *[[path, n, 0.01] for n in range(1000)])
    eventually(lambda: len(world.done()) == 1000, within=600)
    world.fleet("down", str(world.manifest), "--yes")
    assert not world.processes()


def keep_busy(world: World, count: int, seconds: float = 0.2) -> set[int]:
    path = str(world.done_file)
    world.send("work", "thumbs", *[[path, n, seconds] for n in range(0, count, 2)])
    world.send("work", "reports", *[[path, n, seconds] for n in range(1, count, 2)])
    eventually(lambda: len(world.started()) >= 6)
    return set(range(count))


def settle(world: World, wanted: set[int]) -> None:
    """A plain apply brings the fleet to its manifest; every task was finished; nothing runs twice."""
    world.apply()
    eventually(lambda: world.status()["ready"] is True)
    eventually(lambda: set(world.done()) == wanted)
    assert world.fleet("plan", str(world.manifest), "--detailed-exitcode").returncode == 0
    supervisor = psutil.Process(world.supervisord_pid())
    mains = [child.pid for child in supervisor.children()]
    expected = {row["pid"] for row in world.workers().values()}
    assert expected <= set(mains)
    family = {supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))}
    assert {process.pid for process in world.processes()} <= family, "an orphan or a duplicate runs"


@pytest.fixture
def two_pools(world: World) -> World:
    world.write(SOLO % 3 + PREFORK % 3)
    world.apply()
    return world


def test_a_killed_worker_gives_its_task_to_its_next_life(two_pools: World) -> None:
    wanted = keep_busy(two_pools, 120)
    os.kill(two_pools.pids()["thumbs.1"], signal.SIGKILL)
    os.kill(two_pools.pids()["reports.0"], signal.SIGKILL)
    settle(two_pools, wanted)


def test_a_killed_prefork_child_loses_no_late_acknowledged_task(two_pools: World) -> None:
    wanted = keep_busy(two_pools, 120)
    parent = psutil.Process(two_pools.pids()["reports.0"])
    for child in parent.children()[:2]:
        child.kill()
    settle(two_pools, wanted)
    assert two_pools.pids()["reports.0"] == parent.pid


def test_a_killed_supervisord_leaves_no_orphans_and_loses_nothing(two_pools: World) -> None:
    wanted = keep_busy(two_pools, 120)
    os.kill(two_pools.supervisord_pid(), signal.SIGKILL)
    settle(two_pools, wanted)


def test_a_killed_embedded_broker_loses_nothing(two_pools: World) -> None:
    wanted = keep_busy(two_pools, 120)
    groups = two_pools.status()["groups"]
    broker = groups["fleet-broker"]["workers"][0]["pid"]
    os.kill(broker, signal.SIGKILL)
    settle(two_pools, wanted)


@pytest.mark.parametrize("moment_seconds", [0.3, 0.8, 1.5, 2.5])
def test_a_killed_apply_is_finished_by_the_next_one(world: World, moment_seconds: float) -> None:
    world.write(SOLO % 3 + PREFORK % 3)
    world.apply()
    wanted = keep_busy(world, 60)
    before = world.pids()
    world.write(SOLO % 8 + PREFORK % 3)
    process = world.popen("apply", str(world.manifest))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(moment_seconds)
    process.kill()
    process.wait()
    settle(world, wanted)
    after = world.pids()
    assert len(after) == 9
    assert {name: after[name] for name in before} == before


def test_a_vanished_replica_is_relieved_by_the_others(world: World) -> None:
    """The replica never comes back under its name: its lease runs out and another one takes over what it held."""
    world.write(SOLO % 2)
    world.apply()
    path = str(world.done_file)
    world.send("work", "thumbs", [path, 0, 8.0], [path, 1, 8.0])
    eventually(lambda: len(world.started()) == 2)
    victim = world.pids()["thumbs.1"]
    conf = world.home / "world" / "run" / "conf.d" / "thumbs.1.conf"
    assert conf.exists()
    os.kill(victim, signal.SIGKILL)
    world.write(SOLO % 1)
    world.apply()
    eventually(lambda: set(world.done()) == {0, 1})


AWKWARD = ["a;b", "%(x)s", '"', "two\nlines", "$HOME", "naïve ☃", "'", "\\", "#x", " lead", "%%", "{{x}}"]


def test_awkward_values_reach_the_program_byte_for_byte(world: World) -> None:
    out = world.root / "seen.json"
    script = world.root / "show.py"
    script.write_text(
        "import json, os, sys, time\n"
        f"out = {str(out)!r}\n"
        f"seen = {{'env': [os.environ.get('V' + str(i)) for i in range({len(AWKWARD)})], 'args': sys.argv[1:]}}\n"
        "open(out + '.tmp', 'w').write(json.dumps(seen)); os.rename(out + '.tmp', out); time.sleep(1000)\n"
    )
    env = json.dumps({f"V{i}": value for i, value in enumerate(AWKWARD)})
    command = json.dumps(["python3", str(script), *AWKWARD])
    world.write(f"    show: {{command: {command}, replicas: 1, env: {env}}}\n")
    world.apply()
    seen = eventually(lambda: out.exists() and json.loads(out.read_text()))
    assert seen == {"env": AWKWARD, "args": AWKWARD}


def test_the_same_fleet_runs_as_an_ordinary_user(world: World) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else; the other tests ran as an ordinary user already")
    needed = (Path(sys.executable).resolve(), Path(fleet.__file__).resolve(), Path(sysconfig.get_path("purelib")))
    if hidden := [str(path) for path in needed if not _readable_for_all(path)]:
        pytest.skip(f"other users cannot read {hidden[0]}: this needs a Python that is installed for everybody")
    for path in (world.root, *world.root.iterdir()):
        os.chown(path, 65534, 65534)
    world.prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *world.prefix)
    world.environ |= {"HOME": str(world.root)}
    world.write(SOLO % 2)
    world.apply()
    world.send("work", "thumbs", [str(world.done_file), 0, 0.01])
    eventually(lambda: set(world.done()) == {0})
    assert {process.uids().real for process in world.processes()} == {65534}
    world.fleet("down", str(world.manifest), "--yes")
    assert not world.processes()


def _readable_for_all(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in path.parents)
