"""Slots that move on a running fleet: how soon they are where a burst is, and what an overload does to the others.

40 slots, four groups of equal weight (solo, prefork, threads, gevent), a tick of one second. Bursts: 32 tasks a second
for one group, then for another; on Redis, on RabbitMQ, and on Redis with the controller killed in the middle
of each burst. Isolation: more work for gevent than all 40 slots could do while the others have a steady load, with a
controller and with static shares. Tasks wait, they do not compute; slots are counted ten times a second from the
workers' records.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import figures
import servers

from fleet import Tasks
from fleet.replica.process_identity import lives
from fleet.replica.record import RecordView, read

LOAD = Path(__file__).resolve().parent / "load"
GROUPS = ("solo", "prefork", "threads", "gevent")
BUDGET = 40
TICK_SECONDS = 1.0
TARGET_SECONDS = 4.0
TASK_SECONDS = (0.5, 1.5)
SAMPLE_SECONDS = 0.1
REST_SECONDS = 4.0
NOISY = "gevent"
BURSTS = ("gevent", "solo")
BURST_RATE, CALM_RATE, STEADY_RATE, FLOOD_RATE = 32.0, 1.0, 8.0, 50.0
KILL_AFTER_SECONDS = 1.0

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: bench}}
spec:
  app: bench_waits:tasks
  release: {{workdir: {workdir}}}
  broker: {{url: "{broker}"}}
  concurrency: {budget}
  balance: {{mode: {mode}, tick: {tick:g}s}}
  defaults:
    env: {{BENCH_JOURNAL: {journal}}}
    drain: {{timeout: 30s}}
  groups:
{groups}"""

GROUP = (
    "    {name}: {{pool: {pool}, queues: [{name}],"
    " autoscale: {{min: 2, targetWait: {target:g}s, expectedRuntime: 1s}}}}\n"
)


@dataclass(frozen=True, slots=True)
class Sample:
    """The fleet at a moment.

    slots: by group, those that are to go and still run a task among them.  ready: replicas that take work, with their
    process.  look: the controller's last look.
    """

    at: float
    slots: Mapping[str, int]
    ready: frozenset[tuple[str, int]]
    look: Mapping[str, Any]

    @property
    def total(self) -> int:
        """Over all groups."""
        return sum(self.slots.values())


class Fleet:
    """The fleet of a measurement, in a folder of its own."""

    def __init__(self, folder: Path, broker: str, *, mode: str) -> None:
        self.folder = folder
        self.manifest = folder / "bench.yaml"
        self.journal = folder / "journal"
        self.journal.touch()
        self.run_folder = folder / "bench" / "run"
        self.producer = Tasks("load", broker=broker)
        groups = "".join(GROUP.format(name=name, pool=_pool(name), target=TARGET_SECONDS) for name in GROUPS)
        facts = {"workdir": LOAD, "broker": broker, "journal": self.journal, "mode": mode}
        self.manifest.write_text(MANIFEST.format(budget=BUDGET, tick=TICK_SECONDS, groups=groups, **facts))

    def run(self, *words: str) -> str:
        """A verb on this fleet; what it printed."""
        env = {**os.environ, "FLEET_HOME": str(self.folder)}
        command = [str(figures.BIN / "fleet"), *words]
        done = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: fleet {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return done.stdout

    def moves(self) -> list[dict[str, Any]]:
        """What the controller moved, oldest first."""
        lines = self.run("events", "--fleet", "bench", "-o", "json").splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == "balance.moved"]

    def controller_pid(self) -> int:
        """Of its process."""
        groups = json.loads(self.run("status", "bench.yaml", "-o", "json"))["groups"]
        return int(groups["fleet-controller"]["workers"][0]["pid"])

    def sample(self) -> Sample:
        """What the records say, and the controller's last look."""
        slots, ready = dict.fromkeys(GROUPS, 0), set()
        for path in (self.run_folder / "records").glob("*.rec"):
            group, record = path.name.split(".")[0], read(path)
            if group in slots and record is not None and lives(record.pid, record.started_ticks):
                slots[group] += _counted(record)
                ready |= {(path.stem, record.pid)} if record.state == "ready" else set()
        return Sample(time.time(), slots, frozenset(ready), self._look())

    def _look(self) -> Mapping[str, Any]:
        try:
            look: dict[str, Any] = json.loads((self.run_folder / "controller.json").read_text())["look"]
        except (OSError, ValueError):
            return {"at": 0.0, "groups": {}}
        return look

    def tasks(self, what: str) -> dict[int, list[float]]:
        """Number of a task -> when it began, or ended."""
        found: dict[int, list[float]] = {}
        for line in self.journal.read_text().splitlines():
            happened, number, at = line.split()
            if happened == what:
                found.setdefault(int(number), []).append(float(at))
        return found


def _pool(name: str) -> str:
    return "solo" if name == "solo" else f"{{type: {name}, concurrency: {BUDGET}}}"


def _counted(record: RecordView) -> int:
    return max(record.slots, record.busy)


@dataclass
class Watch:
    """Looks at the fleet ten times a second, in a thread of its own, from ``with`` to its end."""

    fleet: Fleet
    samples: list[Sample] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watch:
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_SECONDS):
            self.samples.append(self.fleet.sample())


@dataclass
class Load:
    """Tasks at steady rates. ``sent``: number of a task -> its queue and when it was sent."""

    fleet: Fleet
    sent: dict[int, tuple[str, float]] = field(default_factory=dict)
    _chance: random.Random = field(default_factory=lambda: random.Random(1))

    def play(
        self, rates: Mapping[str, float], seconds: float, *, meanwhile: Callable[[float], None] | None = None
    ) -> float:
        """So many tasks a second for each queue, for so long; when it began. ``meanwhile`` hears the time passed."""
        began, sent = time.time(), Counter[str]()
        while (passed := time.time() - began) < seconds:
            for queue, rate in rates.items():
                self._send(queue, int(passed * rate) - sent[queue])
                sent[queue] = int(passed * rate)
            if meanwhile is not None:
                meanwhile(passed)
            time.sleep(0.02)
        return began

    def _send(self, queue: str, count: int) -> None:
        if count <= 0:
            return
        numbers = range(len(self.sent), len(self.sent) + count)
        self.sent.update(dict.fromkeys(numbers, (queue, time.time())))
        calls = [[number, self._chance.uniform(*TASK_SECONDS)] for number in numbers]
        self.fleet.producer.send_many("bench.wait", calls, queue=queue)

    def done(self) -> bool:
        """Whether every task has ended."""
        return self.fleet.tasks("ended").keys() >= self.sent.keys()


class Killer:
    """Kills the controller once, some time after a burst began."""

    def __init__(self, fleet: Fleet) -> None:
        self._pid = fleet.controller_pid()
        self.was = False

    def __call__(self, passed: float) -> None:
        if not self.was and passed > KILL_AFTER_SECONDS:
            self.was = True
            os.kill(self._pid, signal.SIGKILL)


# --- bursts


def measure_bursts(broker: str, *, seconds: float, calm_seconds: float, kills: bool) -> dict[str, float]:
    """One life of the fleet with two bursts, each after a calm time; every figure of it."""
    with running(broker, mode="dynamic") as (fleet, load, watch):
        bursts = []
        for group in BURSTS:
            load.play(_rates(), calm_seconds)
            killer = Killer(fleet) if kills else None
            began = load.play(_rates(**{group: BURST_RATE}), seconds, meanwhile=killer)
            bursts.append((group, began, time.time()))
        load.play(_rates(), 2.0)
        figures.wait_until(load.done, what="all tasks done", every=0.2)
        figures.wait_until(lambda: is_at_rest(fleet), what="rest", every=0.5)
        row = {
            f"{group}{key}": value
            for group, *span in bursts
            for key, value in burst(fleet, watch.samples, group, *span)
        }
        moves = fleet.moves()
        done_at = max(at for times in fleet.tasks("ended").values() for at in times)
        return {
            **row,
            **counted(fleet, load),
            "mostSlots": max(sample.total for sample in watch.samples),
            "moves": len(moves),
            "restSeconds": max(0.0, moves[-1]["at"] - done_at),
        }


def _rates(**more: float) -> dict[str, float]:
    return {**dict.fromkeys(GROUPS, CALM_RATE), **more}


def is_at_rest(fleet: Fleet) -> bool:
    """Nothing was moved for some looks."""
    return time.time() - fleet.moves()[-1]["at"] > REST_SECONDS


def burst(
    fleet: Fleet, samples: Sequence[Sample], group: str, began: float, ended: float
) -> Iterator[tuple[str, float]]:
    """How soon a burst was answered; seconds count from its first task.

    Decided: the most that a look of the first three ticks gave the group; DecidedSeconds: the first look that gave it
    more than it had.  All: it has nine tenths of Decided.  Start: from an order of slots until they were there, the
    median.  Ticks: what is left of All without Start, in ticks.
    """
    before = next(sample for sample in reversed(samples) if sample.at <= began).slots[group]
    during = [sample for sample in samples if began < sample.at <= ended + 10]
    most = max(one.slots[group] for one in during)
    looks = [one.look for one in during if one.look["at"] > began]
    decided = next(look for look in looks if look["groups"][group]["gets"] > before)
    early = [look for look in looks if look["at"] <= began + 3 * TICK_SECONDS]
    wanted = min(most, max(look["groups"][group]["gets"] for look in [decided, *early]))
    first = next(one.at for one in during if one.slots[group] > before)
    there = next(one.at for one in during if one.slots[group] >= 0.9 * wanted)
    start = start_seconds(fleet, during, group)
    yield "Before", before
    yield "Decided", wanted
    yield "Most", most
    yield "DecidedSeconds", decided["at"] - began
    yield "FirstSeconds", first - began
    yield "AllSeconds", there - began
    yield "StartSeconds", start
    yield "Ticks", (there - began - start) / TICK_SECONDS


def start_seconds(fleet: Fleet, during: Sequence[Sample], group: str) -> float:
    """From a move that brings the group slots until they are there."""
    found = []
    for move in fleet.moves():
        more = move["moves"].get(group)
        if more is None or not during[0].at < move["at"] < during[-1].at or more["to"] <= more["from"]:
            continue
        started = {step.split()[1] for step, _ in move["steps"] if step.startswith(f"start {group}.")}
        found += _ready_after(during, started, move["at"]) if started else _grown_after(during, group, move)
    return sorted(found)[len(found) // 2]


def _ready_after(during: Sequence[Sample], names: set[str], at: float) -> list[float]:
    """For each replica that was started: how long until it took work."""
    known = {pid for one in during if one.at < at for _, pid in one.ready}
    first: dict[str, float] = {}
    for one in during:
        for name, pid in one.ready:
            if name in names and pid not in known and one.at > at:
                first.setdefault(name, one.at - at)
    return list(first.values())


def _grown_after(during: Sequence[Sample], group: str, move: Mapping[str, Any]) -> list[float]:
    wanted = move["moves"][group]["to"]
    there = next((one.at for one in during if one.at > move["at"] and one.slots[group] >= wanted), None)
    return [] if there is None else [there - move["at"]]


def counted(fleet: Fleet, load: Load) -> dict[str, float]:
    """What became of the tasks."""
    began, ended = fleet.tasks("began"), fleet.tasks("ended")
    return {
        "sent": len(load.sent),
        "lost": len(load.sent.keys() - ended.keys()),
        "cut": sum(len(times) > len(ended.get(number, ())) for number, times in began.items()),
        "doubled": sum(len(times) > 1 for times in began.values()),
    }


# --- isolation


def measure_isolation(broker: str, *, seconds: float, mode: str) -> dict[str, float]:
    """One life of the fleet in which one group is flooded; late parts in percent, of tasks sent meanwhile."""
    steady = {name: STEADY_RATE for name in GROUPS if name != NOISY}
    with running(broker, mode=mode) as (fleet, load, watch):
        load.play({**steady, NOISY: STEADY_RATE}, 5.0)
        flooded_from = load.play({**steady, NOISY: FLOOD_RATE}, seconds)
        flooded_to = time.time()
        load.play(steady, TARGET_SECONDS)
        began, ended = fleet.tasks("began"), fleet.tasks("ended")
        row: dict[str, float] = {"mostSlots": max(sample.total for sample in watch.samples)}
        waits: dict[str, list[float]] = {}
        for name in steady:
            numbers = [n for n, (queue, at) in load.sent.items() if queue == name and flooded_from <= at <= flooded_to]
            waits[name] = [began[n][0] - load.sent[n][1] if n in began else TARGET_SECONDS * 2 for n in numbers]
        row |= {f"{name}LatePercent": _late_percent(row_of) for name, row_of in waits.items()}
        every = sorted(wait for row_of in waits.values() for wait in row_of)
        row["othersLatePercent"] = _late_percent(every)
        row["othersP95Seconds"] = every[int(0.95 * len(every))]
        row["othersWorstSeconds"] = every[-1]
        row["othersTasks"] = len(every)
        row[f"{NOISY}Served"] = sum(
            load.sent[n][0] == NOISY and flooded_from <= times[0] <= flooded_to for n, times in ended.items()
        )
        row[f"{NOISY}MostSlots"] = max(sample.slots[NOISY] for sample in watch.samples)
        return row


def _late_percent(waits: Sequence[float]) -> float:
    return 100 * sum(wait > TARGET_SECONDS for wait in waits) / len(waits)


# --- all of it


class running:  # noqa: N801 (reads as a verb where it stands)
    """A fleet that is up, its load and who watches it, for as long as the block lasts."""

    def __init__(self, broker: str, *, mode: str) -> None:
        self._broker, self._mode = broker, mode
        self._stack = ExitStack()

    def __enter__(self) -> tuple[Fleet, Load, Watch]:
        folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="fb-", dir="/tmp"))
        empty(self._broker)
        fleet = Fleet(Path(folder), self._broker, mode=self._mode)
        self._stack.callback(fleet.run, "down", "bench.yaml", "--yes")
        self._stack.callback(fleet.producer.close)
        fleet.run("apply", "bench.yaml", "--yes")
        watch = self._stack.enter_context(Watch(fleet))
        figures.wait_until(lambda: bool(watch.samples), what="a first sample")
        return fleet, Load(fleet), watch

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def empty(broker: str) -> None:
    """Nothing of an earlier life waits in the queues."""
    from kombu import Connection

    with Connection(broker) as connection:
        for name in GROUPS:
            connection.SimpleQueue(name).clear()


def spreads(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Medians and spreads of what was measured several times."""
    return {key: figures.spread([row[key] for row in rows]) for key in rows[0]}


def main() -> None:
    """Everything in turns."""
    given = figures.arguments(__doc__, runs=3)
    calm_seconds, burst_seconds, flood_seconds = (2.0, 5.0, 6.0) if given.quick else (12.0, 8.0, 36.0)
    bursts = {"seconds": burst_seconds, "calm_seconds": calm_seconds}
    rows: dict[str, list[dict[str, float]]] = {}
    with servers.redis() as redis, servers.rabbitmq() as rabbitmq:
        often = {
            "redis": lambda: measure_bursts(redis, **bursts, kills=False),
            "rabbitmq": lambda: measure_bursts(rabbitmq, **bursts, kills=False),
        }
        seldom = {
            "redis, controller killed": lambda: measure_bursts(redis, **bursts, kills=True),
            "flood, dynamic": lambda: measure_isolation(redis, seconds=flood_seconds, mode="dynamic"),
            "flood, static": lambda: measure_isolation(redis, seconds=flood_seconds, mode="static"),
        }
        for run in range(given.runs):
            turns = list((often | seldom if run < max(1, given.runs - 1) else often).items())
            for name, measure in turns[run % len(turns) :] + turns[: run % len(turns)]:
                row = measure()
                rows.setdefault(name, []).append(row)
                print(name, {key: round(value, 2) for key, value in row.items()}, flush=True)
    facts = {"budget": BUDGET, "tickSeconds": TICK_SECONDS, "targetSeconds": TARGET_SECONDS}
    facts |= {"burstRate": BURST_RATE, "burstSeconds": burst_seconds, "floodRate": FLOOD_RATE}
    document = {
        **facts,
        "floodSeconds": flood_seconds,
        "rows": {name: spreads(row) for name, row in sorted(rows.items())},
    }
    print(figures.write("balance_live", document))


if __name__ == "__main__":
    main()
