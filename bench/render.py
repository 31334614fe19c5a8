"""How long `fleet render --target kubernetes` takes: a fleet of ten groups and one of a thousand, with either scaler.

Two things are timed: the objects and their text alone, from a manifest that has been read, and the whole command, from
its start to its end. Processor time is given as well, because a busy machine makes the other one longer.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figures

from fleet.backends.kubernetes import objects
from fleet.backends.kubernetes.yaml_text import stream_text
from fleet.core.manifest.parse import from_document

SIZES = (10, 1000)
SCALERS = ("native", "fleet")


def document(groups: int, scaler: str) -> dict[str, Any]:
    """A third of the groups has replicas, a third several in one pod, a third is scaled."""
    group = {"queues": ["q"], "env": {"LEVEL": "info"}, "secretEnv": {"KEY": "key"}, "perReplica": {"memory": "50Mi"}}
    kinds = (
        {"pool": {"type": "prefork", "concurrency": 4}, "replicas": 2},
        {"pool": "solo", "replicas": 8},
        {"pool": {"type": "threads", "concurrency": 4}, "autoscale": {"min": 0, "max": 40, "targetWait": "10s"}},
    )
    names = [f"group-{number:04}" for number in range(groups)]
    packed = {name: {"pack": 4} for number, name in enumerate(names) if number % 3 == 1}
    return {
        "apiVersion": "workerfleet.dev/v1alpha1",
        "kind": "Fleet",
        "metadata": {"name": "shop"},
        "spec": {
            "app": "shop.worker:app",
            "broker": {"url": "redis://redis/0"},
            "secrets": {"key": {"env": "KEY"}},
            "concurrency": 20 * groups,
            "kubernetes": {"image": "shop:1", "namespace": "shop", "scaler": scaler, "groups": packed},
            "groups": {name: {**group, **kinds[number % 3]} for number, name in enumerate(names)},
        },
    }


def text_alone(given: dict[str, Any]) -> Callable[[], None]:
    """Objects and text of a manifest that has been read."""
    parsed = from_document(given, name="given")

    def made() -> None:
        found = objects.files(parsed.manifest, parsed.document)
        stream_text([one for every in found.values() for one in every])

    return made


def whole_command(path: Path) -> Callable[[], None]:
    """The command, as somebody types it."""
    command = [figures.BIN / "fleet", "render", "--target", "kubernetes", str(path)]
    environ = {**os.environ, "FLEET_HOME": str(path.parent)}

    def run() -> None:
        done = subprocess.run(command, env=environ, capture_output=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: render ended with {done.returncode}: {done.stderr.decode().strip()}")

    return run


def timed(act: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of processor time, children included."""
    before, began = _cpu(), time.perf_counter()
    act()
    return time.perf_counter() - began, _cpu() - before


def _cpu() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(one.ru_utime + one.ru_stime for one in map(resource.getrusage, kinds))


def main() -> None:
    """Each case in turn, again and again."""
    given = figures.arguments(__doc__, runs=5)
    figures.wait_for_quiet()
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        cases: dict[str, Callable[[], None]] = {}
        for size in SIZES:
            for scaler in SCALERS:
                made = document(size, scaler)
                path = Path(folder) / f"{size}-{scaler}.json"
                path.write_text(json.dumps(made))
                cases[f"{size} groups, {scaler}: objects and text"] = text_alone(made)
                cases[f"{size} groups, {scaler}: the whole command"] = whole_command(path)
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in cases}
        for run in range(given.runs + 1):
            for name, act in cases.items():
                times = timed(act)
                if run:  # the first round fills the page cache
                    measured[name].append(times)
    rows = {name: figures.wall_and_cpu(values) for name, values in measured.items()}
    for name, row in rows.items():
        print(f"{name:48} {figures.in_ms(row['wall'])}; of a processor {figures.in_ms(row['cpu'])}")
    print(figures.write("render", {"unit": "seconds", "rows": rows}))


if __name__ == "__main__":
    main()
