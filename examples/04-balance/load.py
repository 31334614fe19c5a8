"""A burst on one queue, then on another, on a running fleet: who has the slots, and what waits, ten times a second.

Applies fleet.yaml, plays the load, waits until nothing moves any more, takes the fleet down. Prints what the controller
says in the middle of each burst; writes the figures as JSON, and the picture where matplotlib is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from fleet import Tasks
from fleet.replica.process_identity import lives
from fleet.replica.record import RecordView, read

HERE = Path(__file__).resolve().parent
FLEET = Path(sys.executable).parent / "fleet"
MANIFEST = str(HERE / "fleet.yaml")
GROUPS = ("solo", "prefork", "threads", "gevent")
COLOURS = {"solo": "#1f6f8b", "prefork": "#e07a5f", "threads": "#81b29a", "gevent": "#6d597a"}
BUDGET = 40
TASK_SECONDS = (0.5, 1.5)
CALM_RATE = 1.0
SAMPLE_SECONDS = 0.1
REST_SECONDS = 6.0
"""No move for so long, and nothing to do: the fleet is at rest."""


@dataclass(frozen=True)
class Phase:
    """Some seconds of the load. ``burst``: the queue that gets ``rate`` tasks a second; the others stay calm."""

    seconds: float
    burst: str = ""
    rate: float = CALM_RATE


PHASES = (Phase(6), Phase(14, "gevent", 32), Phase(10), Phase(14, "solo", 24), Phase(8))
QUICK = (Phase(1), Phase(4, "gevent", 40), Phase(1), Phase(5, "solo", 30))


@dataclass
class Sample:
    """The fleet at a moment: slots by group, those that are to go and still run a task among them; tasks waiting."""

    at: float
    slots: dict[str, int]
    waiting: dict[str, int]

    @property
    def total(self) -> int:
        """Over all groups."""
        return sum(self.slots.values())


class Fleet:
    """The running fleet, seen as its people see it."""

    def __init__(self, folder: str) -> None:
        self.journal = Path(folder) / "journal"
        self.journal.touch()
        self.records = Path(folder) / "balance" / "run" / "records"
        self.socket = f"{folder}/balance/run/broker.sock"
        self.env = {**os.environ, "FLEET_HOME": folder, "BALANCE_OUT": str(self.journal), "NO_COLOR": "1"}
        self.producer = Tasks("load", broker=f"redis+socket://{self.socket}?virtual_host=0")

    def run(self, *words: str) -> str:
        """Run a verb; what it printed."""
        done = subprocess.run(
            [FLEET, *words], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"fleet {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def moves(self) -> list[dict[str, Any]]:
        """What the controller moved, oldest first."""
        entries = map(json.loads, self.run("events", "--fleet", "balance", "-o", "json").splitlines())
        return [entry for entry in entries if entry["event"] == "balance.moved"]

    def slots(self) -> dict[str, int]:
        """By group, over all processes that live: what they have, or what still runs in them where that is more."""
        found = dict.fromkeys(GROUPS, 0)
        for path in self.records.iterdir():
            group, record = path.name.split(".")[0], read(path) if path.suffix == ".rec" else None
            if group in found and record is not None and lives(record.pid, record.started_ticks):
                found[group] += _counted(record)
        return found

    def tasks(self, what: str) -> dict[int, list[float]]:
        """Number of a task -> when it began, or ended."""
        found: dict[int, list[float]] = {}
        for line in self.journal.read_text().splitlines():
            happened, number, at = line.split()
            if happened == what:
                found.setdefault(int(number), []).append(float(at))
        return found


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
        with redis.Redis(unix_socket_path=self.fleet.socket) as broker:
            while not self._over.wait(SAMPLE_SECONDS):
                waiting = {group: int(broker.llen(group)) for group in GROUPS}
                self.samples.append(Sample(time.time(), self.fleet.slots(), waiting))


@dataclass
class Load:
    """The tasks, sent as the phases say. ``sent``: number of a task -> its queue and when it was sent."""

    fleet: Fleet
    sent: dict[int, tuple[str, float]] = field(default_factory=dict)
    bursts: list[tuple[str, float, float]] = field(default_factory=list)
    _chance: random.Random = field(default_factory=lambda: random.Random(1))

    def play(self, phases: tuple[Phase, ...]) -> None:
        """One phase after the other; in the middle of a burst, what the controller says."""
        for phase in phases:
            began = time.time()
            told = not phase.burst
            for queue, count in _due(phase):
                self._send(queue, count)
                if not told and time.time() > began + phase.seconds * 0.7:
                    told = True
                    print(f"\n$ fleet explain --live fleet.yaml   # {time.time() - began:.0f} s into the burst")
                    print(self.fleet.run("explain", "--live", MANIFEST))
            if phase.burst:
                self.bursts.append((phase.burst, began, time.time()))

    def _send(self, queue: str, count: int) -> None:
        numbers = range(len(self.sent), len(self.sent) + count)
        self.sent.update(dict.fromkeys(numbers, (queue, time.time())))
        calls = [[number, self._chance.uniform(*TASK_SECONDS)] for number in numbers]
        self.fleet.producer.send_many("wait", calls, queue=queue)


def _due(phase: Phase) -> Iterator[tuple[str, int]]:
    """Queue and number of tasks, as they fall due, in real time."""
    began, sent = time.time(), Counter[str]()
    while (passed := time.time() - began) < phase.seconds:
        for queue in GROUPS:
            count = int(passed * (phase.rate if queue == phase.burst else CALM_RATE)) - sent[queue]
            if count > 0:
                sent[queue] += count
                yield queue, count
        time.sleep(0.05)


def wait_for(what: str, check: Callable[[], bool]) -> None:
    """Until it is true; two minutes are enough for anything here."""
    end = time.monotonic() + 120
    while not check():
        if time.monotonic() > end:
            raise SystemExit(f"{what}: not within two minutes")
        time.sleep(0.2)


def is_at_rest(fleet: Fleet) -> bool:
    """Nothing was moved for a while."""
    return time.time() - max(map(_moment, fleet.moves()), default=0.0) > REST_SECONDS


def _moment(move: dict[str, Any]) -> float:
    at: float = move["at"]
    return at


def burst_figures(samples: list[Sample], burst: tuple[str, float, float]) -> dict[str, Any]:
    """How far the slots of a burst's group rose, and when. Seconds count from the first task of the burst."""
    group, began, ended = burst
    before = next(sample for sample in reversed(samples) if sample.at <= began).slots[group]
    during = [sample for sample in samples if began < sample.at <= ended + 10]
    most = max(sample.slots[group] for sample in during)
    first = next((sample.at - began for sample in during if sample.slots[group] > before), None)
    nearly = before + 0.9 * (most - before)
    there = next(sample.at - began for sample in during if sample.slots[group] >= nearly)
    return {
        "group": group,
        "slotsBefore": before,
        "slotsMost": most,
        "firstMoreSeconds": None if first is None else round(first, 1),
        "nearlyAllSeconds": round(there, 1),
        "mostWaiting": max(sample.waiting[group] for sample in during),
    }


def figures(fleet: Fleet, load: Load, samples: list[Sample]) -> dict[str, Any]:
    """Everything that was measured."""
    began, ended = fleet.tasks("began"), fleet.tasks("ended")
    waits = {group: _waits(load, began, group) for group in GROUPS}
    moves = fleet.moves()
    done_at = max(at for times in ended.values() for at in times)
    return {
        "sent": len(load.sent),
        "lost": len(load.sent.keys() - ended.keys()),
        "cut": sum(len(times) > len(ended.get(number, ())) for number, times in began.items()),
        "doubled": sum(len(times) > 1 for times in began.values()),
        "budget": BUDGET,
        "samples": len(samples),
        "mostSlots": max(sample.total for sample in samples),
        "bursts": [burst_figures(samples, burst) for burst in load.bursts],
        "waitSeconds": {group: {"median": _at(row, 0.5), "p95": _at(row, 0.95)} for group, row in waits.items()},
        "moves": len(moves),
        "restSeconds": round(max(0.0, _moment(moves[-1]) - done_at), 1),
    }


def _waits(load: Load, began: dict[int, list[float]], group: str) -> list[float]:
    sent = load.sent.items()
    return sorted(began[number][0] - at for number, (queue, at) in sent if queue == group and number in began)


def _at(row: list[float], part: float) -> float:
    return round(row[min(len(row) - 1, int(part * len(row)))], 2)


def table(found: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [
        f"{found['sent']} tasks sent: {found['lost']} lost, {found['cut']} cut, {found['doubled']} done twice",
        f"most slots at a time: {found['mostSlots']} of {found['budget']}, in {found['samples']} samples",
    ]
    lines += [
        f"burst on {one['group']}: {one['slotsBefore']} -> {one['slotsMost']} slots, the first more after"
        f" {one['firstMoreSeconds']} s, nearly all after {one['nearlyAllSeconds']} s;"
        f" at most {one['mostWaiting']} tasks waited"
        for one in found["bursts"]
    ]
    lines.append(f"{found['moves']} moves, the last one {found['restSeconds']} s after the last task")
    return "\n".join(lines)


def draw(samples: list[Sample], bursts: list[tuple[str, float, float]], path: Path) -> None:
    """Slots per group over time, and what waits; a line where a burst begins."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.5), layout="constrained")
    slots, waiting = figure.subplots(2, 1, sharex=True)
    moments = [sample.at - samples[0].at for sample in samples]
    rows: Any = [[sample.slots[group] for sample in samples] for group in GROUPS]
    slots.stackplot(moments, rows, labels=GROUPS, colors=[COLOURS[group] for group in GROUPS], step="post")
    slots.axhline(BUDGET, color="#444444", linewidth=0.8, linestyle="--")
    slots.set_ylabel("slots")
    slots.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False, reverse=True)
    for group in GROUPS:
        waiting.plot(moments, [sample.waiting[group] for sample in samples], color=COLOURS[group], linewidth=1.2)
    waiting.set_ylabel("tasks waiting")
    waiting.set_xlabel("seconds")
    for axes in (slots, waiting):
        for _, began, ended in bursts:
            axes.axvspan(began - samples[0].at, ended - samples[0].at, color="#000000", alpha=0.08, linewidth=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0)
    slots.set_title("a burst on gevent, then on solo (shaded); 40 slots", loc="left", fontsize=10)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Up, load, rest, down; then the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short bursts: to see that it works")
    parser.add_argument("--out", type=Path, default=HERE / "measured.json", help="where the figures go")
    parser.add_argument("--picture", type=Path, default=HERE / "balance.png", help="where the picture goes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as folder:
        fleet = Fleet(folder)
        fleet.run("apply", MANIFEST, "--yes")
        try:
            load = Load(fleet)
            with Watch(fleet) as watch:
                time.sleep(1.0)  # some samples before the first task
                load.play(QUICK if given.quick else PHASES)
                wait_for("all tasks done", lambda: fleet.tasks("ended").keys() >= load.sent.keys())
                wait_for("rest", lambda: is_at_rest(fleet))
            found = figures(fleet, load, watch.samples)
            print("\n$ fleet events fleet.yaml   # the moves among them")
            print("\n".join(line for line in fleet.run("events", MANIFEST).splitlines() if "balance.moved" in line))
        finally:
            fleet.run("down", MANIFEST, "--yes")
    print(f"\n{table(found)}")
    given.out.write_text(json.dumps({"cpus": os.cpu_count(), **found}, indent=1) + "\n")
    try:
        draw(watch.samples, load.bursts, given.picture)
    except ImportError:
        print("no picture: matplotlib is not installed")


if __name__ == "__main__":
    main()
