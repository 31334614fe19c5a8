"""The same ten slots as ten solo workers and as one prefork worker: memory, start-up, latency, throughput, connections.

Prints a table of medians (smallest to largest) and writes every figure as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import redis

from fleet import Tasks

HERE = Path(__file__).resolve().parent
FLEET = Path(sys.executable).parent / "fleet"
NAME = "solo-vs-prefork"
SHAPES = ("solo", "prefork")
ROWS = {  # figure: what it is called in the table, digits
    "startSeconds": ("start-up until all ten slots are ready, s", 2),
    "idleMiB": ("memory when idle (PSS), MiB", 0),
    "workedMiB": ("memory after the work (PSS), MiB", 0),
    "connections": ("connections to the broker", 0),
    "latencyP50Ms": ("send to first line of the task, median, ms", 2),
    "latencyP99Ms": ("send to first line of the task, 99th percentile, ms", 2),
    "tasksPerSecond": ("tasks of about a millisecond of CPU, per second", 0),
}


class Life:
    """One shape of the fleet, from up to down, in a folder of its own."""

    def __init__(self, shape: str, folder: Path) -> None:
        self.manifest = HERE / f"{shape}.yaml"
        self.journal = folder / "journal"
        self.journal.touch()
        self.env = {**os.environ, "FLEET_HOME": str(folder), "MEASURE_OUT": str(self.journal)}
        self.socket = folder / NAME / "run" / "broker.sock"
        self.producer = Tasks("measured", broker=f"redis+socket://{self.socket}?virtual_host=0", queue="work")
        self.empty = folder / "empty.yaml"
        head, _, _ = self.manifest.read_text().partition("  groups:")
        self.empty.write_text(head + "  groups: {none: {command: [sleep, '1'], replicas: 0}}\n")

    def fleet(self, *words: str) -> str:
        """Run a verb; what it printed."""
        done = subprocess.run(
            [FLEET, *words],
            cwd=HERE,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"fleet {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def start_seconds(self) -> float:
        """How long the workers need, the broker and the supervisor being there already."""
        self.fleet("apply", str(self.empty), "--yes")
        began = time.perf_counter()
        self.fleet("apply", str(self.manifest), "--yes", "--adopt")
        return time.perf_counter() - began

    def pss_mib(self) -> float:
        """Memory of the workers and their children; shared pages are counted in parts, so the sum is true."""
        group = json.loads(self.fleet("status", str(self.manifest), "-o", "json"))["groups"]["work"]
        parents = [psutil.Process(worker["pid"]) for worker in group["workers"]]
        family = [process for parent in parents for process in (parent, *parent.children(recursive=True))]
        return sum(process.memory_full_info().pss for process in family) / 2**20

    def connections(self) -> int:
        """Clients of the broker without this one."""
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            return int(client.info("clients")["connected_clients"]) - 1

    def lines(self, name: str) -> list[tuple[float, float, float]]:
        """(sent, began, ended) of every task of that name so far."""
        rows = (line.split() for line in self.journal.read_text().splitlines())
        return [(float(row[1]), float(row[2]), float(row[3])) for row in rows if row[0] == name]

    def latencies_ms(self, count: int) -> list[float]:
        """One short task every 20 ms to idle workers."""
        for _ in range(count):
            self.producer.send("tasks.short", [time.time()])
            time.sleep(0.02)
        wait_for(lambda: len(self.lines("short")) >= count)
        return sorted((began - sent) * 1000 for sent, began, _ in self.lines("short"))

    def tasks_per_second(self, count: int) -> float:
        """A queue filled while the workers hold still, then worked off."""
        self.fleet("drain", "work", "--fleet", NAME)
        for _ in range(count):
            self.producer.send("tasks.work", [time.time()])
        self.fleet("resume", "work", "--fleet", NAME)
        wait_for(lambda: len(self.lines("work")) >= count)
        done = self.lines("work")
        return count / (max(ended for *_, ended in done) - min(began for _, began, _ in done))


def wait_for(check: Callable[[], bool]) -> None:
    """Until it is true; five minutes are enough for anything here."""
    end = time.monotonic() + 300
    while not check():
        if time.monotonic() > end:
            raise SystemExit("the tasks did not end within five minutes")
        time.sleep(0.05)


def measure(shape: str, *, count: int) -> dict[str, float]:
    """Every figure of one shape, once."""
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as folder:
        life = Life(shape, Path(folder))
        try:
            row = {"startSeconds": life.start_seconds(), "idleMiB": life.pss_mib(), "connections": life.connections()}
            latencies = life.latencies_ms(count // 5)
            row["latencyP50Ms"] = statistics.median(latencies)
            row["latencyP99Ms"] = latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))]
            row["tasksPerSecond"] = life.tasks_per_second(count)
            row["workedMiB"] = life.pss_mib()
        finally:
            life.fleet("down", str(life.manifest), "--yes")
    return row


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """The figures as text."""
    lines = [f"{'':52} {'ten solo':>26} {'one prefork x10':>26}"]
    for key, (name, digits) in ROWS.items():
        cells = [
            f"{one['median']:.{digits}f} [{one['min']:.{digits}f} to {one['max']:.{digits}f}]"
            for one in (figures[shape][key] for shape in SHAPES)
        ]
        lines.append(f"{name:52} {cells[0]:>26} {cells[1]:>26}")
    return "\n".join(lines)


def main() -> None:
    """Both shapes in turns, so that a disturbance hits both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="lives of each shape (default 3)")
    parser.add_argument("--count", type=int, default=1500, help="tasks for the throughput (default 1500)")
    parser.add_argument("--out", type=Path, default=HERE / "measured.json", help="where the figures go")
    given = parser.parse_args()
    lives: dict[str, list[dict[str, float]]] = {shape: [] for shape in SHAPES}
    for _ in range(given.runs):
        for shape in SHAPES:
            lives[shape].append(measure(shape, count=given.count))
    figures: dict[str, dict[str, dict[str, float]]] = {
        shape: {key: summary([life[key] for life in runs]) for key in ROWS} for shape, runs in lives.items()
    }
    print(table(figures))
    document: dict[str, Any] = {"runs": given.runs, "tasks": given.count, "cpus": os.cpu_count(), "figures": figures}
    given.out.write_text(json.dumps(document, indent=1) + "\n")


def summary(values: list[float]) -> dict[str, float]:
    """Median and spread."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


if __name__ == "__main__":
    main()
