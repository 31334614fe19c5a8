"""Slots that move while the fleet runs: 40 of them, four kinds of pool, real brokers, a controller that is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet import settings
from fleet.backends.supervisor.backend import SupervisorBackend
from fleet.backends.supervisor.rpc import SupervisorRpc
from fleet.operate.controller.loop import Controller
from fleet.operate.local_fleet import LocalFleet
from fleet.replica.process_identity import lives
from fleet.replica.record import RecordView, read
from fleet.state.paths import Places
from tests.conftest import PATIENCE, eventually
from tests.system import worlds

pytestmark = pytest.mark.system

BUDGET = 40
SHARE = 10
GROUPS = ("solo", "prefork", "threads", "gevent")
LOOKS_AT_REST = 5
DRAIN_SECONDS = 2


class Fleet:
    """Four groups on one budget, with a queue each, watched ten times a second as long as it lives."""

    def __init__(self, root: Path, broker: str) -> None:
        self.world = worlds.make(root)
        self.broker = broker
        self.mark = f"{os.getpid()}-{root.name}"
        self.places = Places.of(self.world.home, "world")
        self.wanted: set[int] = set()
        self.flags: list[Path] = []
        self.totals: list[int] = []
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)
        self.write()

    def write(self, *, concurrency: int = BUDGET, by: str = "autoscale", **more: str) -> None:
        """The manifest. ``more``: group -> what else its autoscale says."""
        target = ", targetWait: 4s, expectedRuntime: 1s" if by == "autoscale" else ""
        groups = "".join(
            f"    {name}: {{pool: {_pool(name)}, queues: [{self.queue(name)}],"
            f" {by}: {{{more.get(name, 'min: 1')}{target}}}, drain: {{timeout: {DRAIN_SECONDS}s}}}}\n"
            for name in GROUPS
        )
        top = f"  concurrency: {concurrency}\n  balance: {{tick: 1s}}\n"
        self.world.write(groups, broker=self.broker, more=top)

    def start(self) -> None:
        self.world.apply()
        self._watch.start()

    def close(self) -> None:
        self._over.set()
        if self._watch.is_alive():
            self._watch.join()
        self.world.close()

    def queue(self, group: str) -> str:
        """Named anew for every fleet: tests share their brokers."""
        return f"{group}-{self.mark}"

    # --- work

    def send(self, group: str, count: int, until: float | Path) -> set[int]:
        """So many tasks that last so many seconds, or until there is that file; their numbers."""
        numbers = range(len(self.wanted), len(self.wanted) + count)
        self.wanted |= set(numbers)
        task, last = ("wait_for", str(until)) if isinstance(until, Path) else ("work", until)
        path = str(self.world.done_file)
        self.world.send(task, self.queue(group), *[[path, number, last] for number in numbers])
        return set(numbers)

    def flag(self) -> Path:
        """A file that is not there yet."""
        self.flags.append(self.world.root / f"flag-{len(self.wanted)}")
        return self.flags[-1]

    def all_done(self) -> bool:
        return set(self.world.done()) == self.wanted

    def every_task_ran_once_and_to_its_end(self) -> None:
        once = Counter(self.wanted)
        eventually(self.all_done)
        assert self.world.done() == once
        assert self.world.started() == once, "a task was cut and came again"

    # --- slots

    def records(self) -> dict[str, RecordView]:
        """Of every worker whose process lives."""
        found = {path.stem: read(path) for path in self.places.records.glob("*.rec")}
        return {
            name: record
            for name, record in found.items()
            if name.split(".")[0] in GROUPS and record is not None and lives(record.pid, record.started_ticks)
        }

    def slots(self) -> dict[str, int]:
        """Slots by group, those that are to go and still run a task included."""
        found = dict.fromkeys(GROUPS, 0)
        for name, record in self.records().items():
            found[name.split(".")[0]] += max(record.slots, record.busy)
        return found

    def pids(self) -> dict[str, int]:
        return {name: record.pid for name, record in self.records().items()}

    def holds_somebody_who_works(self) -> bool:
        """A replica is to go, and still runs a task."""
        return any(record.hold and record.busy for record in self.records().values())

    def _look(self) -> None:
        while not self._over.wait(0.1):
            slots = self.slots()
            if self.slots() == slots:  # else records changed while they were read, one after the other
                self.totals.append(sum(slots.values()))

    # --- the controller

    def controller_pid(self) -> int:
        (row,) = self.world.status()["groups"]["fleet-controller"]["workers"]
        return int(row["pid"] or 0)

    @contextmanager
    def controller(self) -> Iterator[Controller]:
        """One of this process's own."""
        backend = SupervisorBackend(self.places, rpc_timeout_seconds=60)
        loop = Controller(LocalFleet("world", settings=replace(settings.load(), home=self.world.home), backend=backend))
        try:
            yield loop
        finally:
            loop.close()
            backend.close()

    def moves(self) -> list[dict[str, Any]]:
        lines = self.world.fleet("events", "--fleet", "world", "-o", "json").stdout.splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == "balance.moved"]

    def rest(self) -> None:
        """Wait until nothing moves for some looks in a row."""
        looks: set[float] = set()

        def is_at_rest() -> bool:
            looks.add(self.last_look_at())
            last = max((move["at"] for move in self.moves()), default=0.0)
            return sum(at > last for at in looks) >= LOOKS_AT_REST and self.nothing_to_do()

        eventually(is_at_rest, every=0.2, within=3 * PATIENCE)  # rates are over a minute of work

    def let_looks_pass(self, seconds: float) -> None:
        """Until the controller has looked once more, so many seconds later."""
        began = self.last_look_at()
        eventually(lambda: self.last_look_at() > began + seconds)

    def last_look_at(self) -> float:
        assert self.places.controller.exists(), "it has not looked yet"
        return float(json.loads(self.places.controller.read_text())["look"]["at"])

    def nothing_to_do(self) -> bool:
        return self.world.fleet("plan", str(self.world.manifest), "--detailed-exitcode", code=None).returncode == 0


def _pool(name: str) -> str:
    return "solo" if name == "solo" else f"{{type: {name}, concurrency: {BUDGET}}}"


@pytest.fixture(scope="module", params=["redis", "rabbitmq"])
def running(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    root = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    made = Fleet(root, request.getfixturevalue(f"{request.param}_url"))
    try:
        made.start()
        yield made
    finally:
        made.close()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def fleet(running: Fleet) -> Iterator[Fleet]:
    """After every test: each task ran once, and at no moment there were more slots than the budget has."""
    yield running
    for flag in running.flags:
        flag.touch()  # a test that failed leaves nothing that waits to those that follow
    running.every_task_ran_once_and_to_its_end()
    assert max(eventually(lambda: running.totals)) <= BUDGET, "the budget was passed"


def test_without_work_every_group_has_its_share(fleet: Fleet) -> None:
    eventually(lambda: fleet.slots() == dict.fromkeys(GROUPS, SHARE))


def test_slots_go_where_the_burst_is_and_an_apply_leaves_them_there(fleet: Fleet) -> None:
    flag = fleet.flag()
    fleet.send("gevent", 3 * BUDGET, flag)
    eventually(lambda: fleet.slots()["gevent"] >= 3 * SHARE)

    fleet.world.apply()

    assert fleet.slots()["gevent"] >= 3 * SHARE
    assert {name.split(".")[0] for name in fleet.pids()} == set(GROUPS), "a group was left with nothing"
    flag.touch()


def test_a_controller_that_is_killed_in_a_burst_changes_nothing_but_the_delay(fleet: Fleet) -> None:
    before, flag = fleet.slots()["solo"], fleet.flag()
    fleet.send("solo", 150, flag)
    eventually(lambda: fleet.slots()["solo"] > before)
    pid = fleet.controller_pid()
    os.kill(pid, signal.SIGKILL)

    eventually(lambda: fleet.controller_pid() not in (0, pid))
    eventually(lambda: fleet.slots()["solo"] >= 1.5 * SHARE)
    flag.touch()


def test_a_running_task_is_never_cut_by_a_move_however_long_it_takes(fleet: Fleet) -> None:
    flag = fleet.flag()
    long = fleet.send("solo", fleet.slots()["solo"], flag)
    eventually(lambda: long <= set(fleet.world.started()))
    burst = fleet.flag()
    fleet.send("threads", 200, burst)

    eventually(fleet.holds_somebody_who_works)
    fleet.let_looks_pass(2 * DRAIN_SECONDS)

    assert not long & set(fleet.world.done())
    flag.touch()
    burst.touch()
    eventually(lambda: long <= set(fleet.world.done()))


def test_it_comes_to_rest_and_an_apply_finds_nothing_to_do(fleet: Fleet) -> None:
    eventually(fleet.all_done)
    fleet.rest()
    slots, pids = fleet.slots(), fleet.pids()

    fleet.world.apply()

    assert fleet.slots() == slots
    assert fleet.pids() == pids


def test_there_is_one_controller_and_one_look_can_be_had_when_it_does_not_run(fleet: Fleet) -> None:
    refused = fleet.world.fleet("controller", "--once", "--fleet", "world", code=8)
    assert "has a controller already" in refused.stderr

    rpc = SupervisorRpc(fleet.places.socket, timeout_seconds=60)
    (name,) = (row.full_name for row in rpc.processes() if row.full_name.startswith("fleet-controller"))
    rpc.stop([name])
    rpc.close()
    eventually(lambda: fleet.controller_pid() == 0)
    once = json.loads(fleet.world.fleet("controller", "--once", "--fleet", "world", "-o", "json").stdout)
    assert set(once["groups"]) == set(GROUPS)

    before, flag = fleet.slots(), fleet.flag()
    group = min(("gevent", "threads"), key=before.__getitem__)  # an earlier burst may have left the other all
    fleet.send(group, 100, flag)
    with fleet.controller() as loop:
        eventually(lambda: loop.tick() and fleet.slots()[group] > before[group], every=1.0)
    flag.touch()

    fleet.world.apply()
    assert fleet.controller_pid() != 0


def test_a_group_goes_to_zero_and_comes_back_at_the_first_task(fleet: Fleet) -> None:
    fleet.write(prefork="min: 0, idleAfter: 1s")
    text = fleet.world.manifest.read_text()
    fleet.world.manifest.write_text(text.replace("tick: 1s", "tick: 1s, surplus: release"))
    fleet.world.apply()
    eventually(lambda: fleet.slots()["prefork"] == 0)
    eventually(lambda: not [name for name in fleet.pids() if name.startswith("prefork")])

    one = fleet.send("prefork", 1, 0.1)
    eventually(lambda: one <= set(fleet.world.done()))


@pytest.mark.parametrize("by", ["share", "autoscale"])
def test_one_slot_more_goes_to_the_group_that_is_next_in_line_and_touches_no_other(
    short_tmp: Path, redis_url: str, by: str
) -> None:
    fleet = Fleet(short_tmp, redis_url)
    try:
        fleet.write(concurrency=8, by=by)
        fleet.start()
        for concurrency in range(9, 13):
            manifest = str(fleet.world.manifest)
            named = json.loads(fleet.world.fleet("explain", manifest, "-o", "json").stdout)["nextInLine"]
            slots, pids = fleet.slots(), fleet.pids()

            fleet.write(concurrency=concurrency, by=by)
            fleet.world.apply()

            more = {**slots, named: slots[named] + 1}
            eventually(lambda more=more: fleet.slots() == more)
            after = fleet.pids()
            assert {name: after[name] for name in pids} == pids
            assert {name.split(".")[0] for name in after.keys() - pids.keys()} <= {"solo"} & {named}
    finally:
        fleet.close()
