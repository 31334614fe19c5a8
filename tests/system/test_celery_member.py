"""A group of Celery's own workers in a fleet: seen, held, released, scaled in idle first, moved by the controller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from fleet.replica.task_counters import ENDS, counters_path, read_counters
from tests.conftest import PATIENCE, eventually
from tests.system.worlds import World
from tests.worker.launched import APP

pytestmark = pytest.mark.system

BROKERS = ["redis", "rabbitmq"]
SEND = """
import json, sys
from contract import app
for name, arguments in json.load(sys.stdin):
    app.send_task("contract." + name, arguments, queue=sys.argv[1])
"""

CARS = """

if "FLEET_REPLICA" in os.environ:
    import fleet
    assert fleet.CARS == 3
"""

SPOILER = """

@app.task
def spoil():
    from fleet.worker.celery_member import steps
    steps._member._pool = object()
"""


class CeleryFleet:
    """One or two groups of Celery's workers, ``shop`` and ``others``, with a queue each."""

    def __init__(self, world: World, url: str) -> None:
        self.world = world
        self.url = url
        mark = f"member-{os.getpid()}-{world.root.name}"
        self.queues = {group: f"{mark}-{group}" for group in ("shop", "others")}
        self.gate = world.root / "gate"
        (world.root / "contract.py").write_text(APP)

    def write(self, scale: str, *, others: str = "", more: str = "") -> None:
        """The manifest. ``others``: how a second group scales, with a queue of its own."""
        line = "    {}: {{app: 'contract:app', worker: celery, pool: solo, {}, queues: [{}]}}\n"
        groups = line.format("shop", scale, self.queues["shop"])
        if others:
            groups += line.format("others", others, self.queues["others"])
        self.world.write(groups, broker=self.url, more=more)

    def send(self, *calls: tuple[str, list[Any]], to: str = "shop") -> None:
        subprocess.run(
            [sys.executable, "-c", SEND, self.queues[to]],
            input=json.dumps(calls),
            text=True,
            cwd=self.world.root,
            env={**self.world.env(), "FLEET_BROKER_URL": self.url},
            check=True,
            timeout=2 * PATIENCE,
        )

    def block(self, number: int, *, of: str = "shop") -> None:
        """A task that runs until the gate is open, for a worker of this group."""
        self.send(("wait_for", [str(self.world.done_file), number, str(self.gate)]), to=of)

    def note(self, number: int) -> None:
        self.send(("note", [str(self.world.done_file), number]))

    def busy(self) -> set[str]:
        return {name for name, row in self.world.workers().items() if row["busy"]}

    def sizes(self) -> Counter[str]:
        """Replicas of each group that take work."""
        return Counter(name.partition(".")[0] for name, row in self.world.workers().items() if row["state"] == "ready")

    def health(self) -> dict[str, str]:
        found = json.loads(self.world.fleet("health", str(self.world.manifest), "-o", "json", code=None).stdout)
        return {one["name"]: one["condition"] for one in found["replicas"]}


@pytest.fixture(params=BROKERS)
def shop(world: World, request: pytest.FixtureRequest) -> CeleryFleet:
    return CeleryFleet(world, request.getfixturevalue(f"{request.param}_url"))


def counted(world: World, replica: str, end: str) -> dict[str, int]:
    """Ends of that kind by task, from the file beside the record."""
    view = read_counters(counters_path(world.home / "world" / "run" / "records" / f"{replica}.rec"))
    assert view is not None
    return {name: task.ends[ENDS.index(end)] for name, task in view.tasks.items()}


def test_status_health_drain_resume_and_scaling_in_are_as_for_fleets_own_worker(shop: CeleryFleet) -> None:
    world, manifest = shop.world, str(shop.world.manifest)
    shop.write("replicas: 3")
    world.apply()
    assert {row["state"] for row in world.workers().values()} == {"ready"}

    # what runs is seen
    shop.block(0)
    (working,) = eventually(shop.busy)
    (task,) = world.workers()[working]["tasks"]
    assert task["name"] == "contract.wait_for"
    assert shop.health()[working] == "busy"

    # the idle ones are held, and what comes waits for whoever takes work
    idle = sorted(set(world.workers()) - {working})
    world.fleet("drain", manifest, *idle, "--yes")
    eventually(lambda: {shop.health()[name] for name in idle} == {"held"})
    assert all(world.workers()[name]["held"] for name in idle)
    shop.note(1)
    assert world.done() == {}
    shop.gate.touch()
    eventually(lambda: world.done() == {0: 1, 1: 1})
    eventually(lambda: world.workers()[working]["processed"] == 2)
    eventually(lambda: counted(world, working, "done") == {"contract.wait_for": 1, "contract.note": 1})

    # released they work again
    world.fleet("resume", manifest, *idle, "--yes")
    eventually(lambda: {row["state"] for row in world.workers().values()} == {"ready"})
    world.fleet("drain", manifest, working, "--yes")
    shop.note(2)
    eventually(lambda: world.done()[2] == 1)
    world.fleet("resume", manifest, working, "--yes")

    # and the one that is busy is the one that stays
    shop.gate.unlink()
    shop.block(3)
    (working,) = eventually(shop.busy)
    pids = world.pids()
    shop.write("replicas: 1")
    world.apply()
    assert world.pids() == {working: pids[working]}
    assert world.done()[3] == 0
    shop.gate.touch()
    eventually(lambda: world.done() == dict.fromkeys(range(4), 1))
    assert world.fleet("plan", manifest, "--detailed-exitcode").returncode == 0


def test_the_controller_gives_slots_to_whoever_has_work_waiting(shop: CeleryFleet) -> None:
    world = shop.world
    scale = "autoscale: {min: 1, targetWait: 1s, expectedRuntime: 1s}"
    shop.write(scale, others=scale, more="  concurrency: 4\n  balance: {tick: 1s}\n")
    assert "cannot see" not in world.fleet("validate", str(world.manifest)).stdout
    world.apply()
    assert shop.sizes() == {"shop": 2, "others": 2}

    for number in range(6):
        shop.block(number)
    eventually(lambda: shop.sizes() == {"shop": 3, "others": 1} and len(shop.busy()) == 3, within=2 * PATIENCE)
    shop.gate.touch()
    eventually(lambda: world.done() == dict.fromkeys(range(6), 1), within=2 * PATIENCE)

    shop.gate.unlink()
    for number in range(6, 12):
        shop.block(number, of="others")
    # How far it goes depends on how long the tasks of the first group took, which are remembered for minutes.
    eventually(lambda: shop.sizes()["others"] > 1 and len(shop.busy()) > 1, within=2 * PATIENCE)
    shop.gate.touch()
    eventually(lambda: world.done() == dict.fromkeys(range(12), 1), within=2 * PATIENCE)


def test_an_app_with_a_module_named_fleet_keeps_it_and_its_worker_keeps_no_record(world: World, redis_url: str) -> None:
    shop = CeleryFleet(world, redis_url)
    (world.root / "lib").mkdir()
    (world.root / "lib" / "fleet.py").write_text("CARS = 3\n")
    (world.root / "contract.py").write_text(APP + CARS)
    shop.write(f"replicas: 1, env: {{PYTHONPATH: {world.root / 'lib'}}}")
    text = world.manifest.read_text()  # without the module nobody can follow `task.acks`
    world.manifest.write_text(text.replace("task: {acks: late}, ", ""))
    world.apply()

    assert shop.health() == {"shop.0": "alive"}
    assert "keeps no record: ImportError: the app has another module named fleet" in world.logs()
    shop.note(1)
    eventually(lambda: world.done() == {1: 1})
    refused = world.fleet("drain", str(world.manifest), "shop", "--yes", code=None)
    assert refused.returncode != 0
    assert "keeps no record and cannot be told to take no tasks" in refused.stderr + refused.stdout


def test_what_fails_in_it_ends_its_record_and_not_the_worker(world: World, redis_url: str) -> None:
    shop = CeleryFleet(world, redis_url)
    spoiler = (
        "\n\n@app.task\ndef spoil():\n    from fleet.worker.celery_member import steps\n    steps._member._pool = 1\n"
    )
    (world.root / "contract.py").write_text(APP + spoiler)
    shop.write("replicas: 1")
    world.apply()
    assert shop.health() == {"shop.0": "ready"}

    shop.send(("spoil", []))
    eventually(lambda: shop.health() == {"shop.0": "alive"})
    assert "this worker keeps no record from now on" in world.logs()
    shop.note(1)
    eventually(lambda: world.done() == {1: 1})
    eventually(lambda: world.workers()["shop.0"]["state"] == "ready")
