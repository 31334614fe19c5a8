"""A fleet of 10, 50 and 100 solo workers: how long each verb takes, a rolling restart too, and the memory it holds.

Once with a registry and once with a Celery app, which has remote control.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import figures

LOAD = Path(__file__).resolve().parent / "load"

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: bench}}
spec:
  app: bench_load:{app}
  release: {{workdir: {workdir}}}
  broker: embedded
  defaults:
    env: {{BENCH_COUNTS: {folder}}}
  groups:
    many:
      pool: solo
      replicas: {replicas}
      queues: [many]
"""

APPS = {"tasks": "", "app": " Celery-app"}
"""What the replicas run -> what their rows are called by, after their number."""


class Fleet:
    """A fleet in a folder of its own, spoken to through its command line."""

    def __init__(self, folder: Path, replicas: int, *, app: str = "tasks") -> None:
        self.folder = folder
        self.app = app
        self.manifest = folder / "bench.yaml"
        self.write(replicas)

    def write(self, replicas: int) -> None:
        """The manifest with so many replicas."""
        text = MANIFEST.format(workdir=LOAD, folder=self.folder, app=self.app, replicas=replicas)
        self.manifest.write_text(text)

    def run(self, *words: str) -> tuple[float, str]:
        """A verb on this fleet: seconds, and what it printed."""
        env = {**os.environ, "FLEET_HOME": str(self.folder)}
        command = [str(figures.BIN / "fleet"), *words]
        began = time.perf_counter()
        done = subprocess.run(command, env=env, cwd=self.folder, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"bench: fleet {' '.join(words)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        return seconds, done.stdout

    def pids(self) -> dict[str, int]:
        """Replica -> process, as status says."""
        document = json.loads(self.run("status", "bench.yaml", "-o", "json")[1])
        return {worker["name"]: worker["pid"] for group in document["groups"].values() for worker in group["workers"]}


def measure(app: str, replicas: int) -> dict[str, float]:
    """One life of a fleet."""
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        fleet = Fleet(Path(folder), replicas, app=app)
        row: dict[str, float] = {}
        try:
            row["apply"], _ = fleet.run("apply", "bench.yaml", "--yes")
            row["applyAgain"], _ = fleet.run("apply", "bench.yaml", "--yes")
            row["status"] = min(fleet.run("status", "bench.yaml", "-o", "json")[0] for _ in range(3))
            row["plan"] = min(fleet.run("plan", "bench.yaml")[0] for _ in range(3))
            before = fleet.pids()
            row["pssMiB"] = figures.pss_bytes(list(before.values())) / 2**20
            row["restart"], _ = fleet.run("restart", "many", "bench.yaml", "--yes")
            if fleet.pids().items() & {(name, pid) for name, pid in before.items() if name.startswith("many")}:
                raise SystemExit("bench: the restart left a replica as it was")
            before = fleet.pids()
            fleet.write(replicas + 2)
            row["scaleByTwo"], _ = fleet.run("apply", "bench.yaml", "--yes")
            after = fleet.pids()
            if any(after.get(name) != pid for name, pid in before.items()):
                raise SystemExit("bench: scaling restarted a replica")
        finally:
            row["down"], _ = fleet.run("down", "bench.yaml", "--yes")
    return row


def main() -> None:
    """All sizes, in turns."""
    given = figures.arguments(__doc__, runs=3)
    sizes = (10,) if given.quick else (10, 50, 100)
    lives: dict[tuple[str, int], list[dict[str, float]]] = {(app, size): [] for app in APPS for size in sizes}
    for _ in range(given.runs):
        for app, size in lives:
            figures.wait_for_quiet()
            lives[app, size].append(measure(app, size))
    rows: dict[str, Any] = {}
    for (app, size), measured in lives.items():
        name = f"{size}{APPS[app]}"
        rows[name] = row = {key: figures.spread([life[key] for life in measured]) for key in measured[0]}
        print(f"{name} solo replicas: " + ", ".join(f"{key} {figure['median']:.2f}" for key, figure in row.items()))
    print(figures.write("fleet_scale", {"unit": "seconds; pssMiB in MiB", "rows": rows}))


if __name__ == "__main__":
    main()
