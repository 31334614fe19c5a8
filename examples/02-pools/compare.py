"""Gives every pool the same waiting and the same computing, one pool at a time, and tells how long each took.

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
from pathlib import Path
from typing import Any

import psutil

from fleet import Tasks

HERE = Path(__file__).resolve().parent
FLEET = Path(sys.executable).parent / "fleet"
MANIFEST = str(HERE / "fleet.yaml")
POOLS = ("solo", "prefork", "threads", "gevent", "asyncio")
COLUMNS = {  # figure: head of its column, digits
    "slots": ("slots", 0),
    "memoryMiB": ("memory, MiB", 0),
    "waitSeconds": ("waiting, s", 2),
    "computeSeconds": ("computing, s", 2),
}


class Fleet:
    """The running fleet, seen as its people see it."""

    def __init__(self, folder: str) -> None:
        self.ended = Path(folder) / "ended"
        self.ended.touch()
        self.env = {**os.environ, "FLEET_HOME": folder, "COMPARE_OUT": str(self.ended)}
        self.producer = Tasks("pools", broker=f"redis+socket://{folder}/pools/run/broker.sock?virtual_host=0")

    def run(self, *words: str) -> str:
        """Run a verb; what it printed."""
        done = subprocess.run(
            [FLEET, *words], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"fleet {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def status(self, pool: str) -> dict[str, Any]:
        """The group of that name."""
        group: dict[str, Any] = json.loads(self.run("status", MANIFEST, "-o", "json"))["groups"][pool]
        return group

    def memory_mib(self, pool: str) -> float:
        """Of the worker and its children; shared pages are counted in parts, so the sum is true."""
        worker = psutil.Process(self.status(pool)["workers"][0]["pid"])
        family = [worker, *worker.children(recursive=True)]
        return sum(process.memory_full_info().pss for process in family) / 2**20

    def seconds_for(self, pool: str, task: str, argument: float, count: int) -> float:
        """From the first task sent to the last one done."""
        wanted = self.ended.stat().st_size + count
        began = time.perf_counter()
        self.producer.send_many(task, [[argument]] * count, queue=pool)
        while self.ended.stat().st_size < wanted:
            time.sleep(0.005)
            if time.perf_counter() - began > 300:
                raise SystemExit(f"{pool} was not done with {count} x {task} within five minutes")
        return time.perf_counter() - began


def figures_of(fleet: Fleet, pool: str, *, waits: int, computes: int) -> dict[str, float]:
    """Everything about one pool, once."""
    return {
        "slots": float(fleet.status(pool)["slots"]["desired"]),
        "waitSeconds": fleet.seconds_for(pool, "wait", 0.1, waits),
        "computeSeconds": fleet.seconds_for(pool, "compute", 100_000, computes),
        "memoryMiB": fleet.memory_mib(pool),
    }


def table(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """The figures as text."""
    lines = [f"{'':10}" + "".join(f"{head:>24}" for head, _ in COLUMNS.values())]
    for pool, row in figures.items():
        cells = []
        for key, (_, digits) in COLUMNS.items():
            one = row[key]
            spread = "" if one["min"] == one["max"] else f" [{one['min']:.{digits}f} to {one['max']:.{digits}f}]"
            cells.append(f"{one['median']:.{digits}f}{spread}")
        lines.append(f"{pool:10}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)


def summary(values: list[float]) -> dict[str, float]:
    """Median and spread."""
    return {"median": round(statistics.median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def main() -> None:
    """All pools in turns, so that a disturbance hits all alike."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="how often each pool is asked (default 3)")
    parser.add_argument("--waits", type=int, default=100, help="tasks that wait 0.1 s (default 100)")
    parser.add_argument("--computes", type=int, default=40, help="tasks that compute (default 40)")
    parser.add_argument("--out", type=Path, default=HERE / "measured.json", help="where the figures go")
    given = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {pool: [] for pool in POOLS}
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as folder:
        fleet = Fleet(folder)
        fleet.run("apply", MANIFEST, "--yes")
        try:
            for _ in range(given.runs):
                for pool in POOLS:
                    runs[pool].append(figures_of(fleet, pool, waits=given.waits, computes=given.computes))
        finally:
            fleet.run("down", MANIFEST, "--yes")
    figures = {pool: {key: summary([run[key] for run in runs[pool]]) for key in COLUMNS} for pool in POOLS}
    print(table(figures))
    document = {"runs": given.runs, "waits": given.waits, "computes": given.computes, "cpus": os.cpu_count()}
    given.out.write_text(json.dumps({**document, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
