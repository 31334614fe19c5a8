"""Medians, spreads, memory, processor time, and the result files they end in."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"
BIN = Path(sys.executable).parent
PACKAGES = ("celery", "kombu", "billiard", "redis", "amqp", "supervisor")


def spread(values: Sequence[float], *, digits: int = 3) -> dict[str, Any]:
    """The median with the smallest and the largest value: what every figure of a report is."""
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
        "runs": len(values),
    }


def tree(pid: int) -> list[psutil.Process]:
    """A process and everything below it, as far as it still lives."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def pss_bytes(pids: Sequence[int]) -> int:
    """Memory of these processes, pages that are shared counted in parts, so that sums are true."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


def tree_pss_bytes(pid: int) -> int:
    """Memory of a process and everything below it."""
    return pss_bytes([process.pid for process in tree(pid)])


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and everything below it, children that ended included."""
    total = 0.0
    for process in tree(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def children_cpu_seconds() -> float:
    """Processor time of all processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def wall_and_cpu(values: Sequence[tuple[float, float]]) -> dict[str, dict[str, Any]]:
    """The spreads of pairs of seconds: by the clock, and of a processor."""
    return {"wall": spread([wall for wall, _ in values]), "cpu": spread([cpu for _, cpu in values])}


def in_ms(row: dict[str, Any]) -> str:
    """A spread of seconds in milliseconds, for a terminal."""
    return f"{row['median'] * 1000:6.0f} ms [{row['min'] * 1000:.0f} to {row['max'] * 1000:.0f}]"


def wait_until(check: Callable[[], bool], *, what: str, within: float = 120.0, every: float = 0.01) -> None:
    """Wait for something to become true; say what was missing when it does not."""
    end = time.monotonic() + within
    while not check():
        if time.monotonic() > end:
            raise SystemExit(f"bench: {what}: not within {within:.0f} s")
        time.sleep(every)


QUIET_LOAD = 0.5
_WAIT_VARIABLE = "BENCH_WAIT_SECONDS"


def wait_for_quiet() -> float:
    """Wait until others leave the processors alone, for five minutes at most; the load then, told where it is high.

    Where a machine is never quiet, ``BENCH_WAIT_SECONDS=0`` measures at once.
    """
    end = time.monotonic() + float(os.environ.get(_WAIT_VARIABLE, "300"))
    while (load := os.getloadavg()[0]) > QUIET_LOAD * (os.cpu_count() or 1) and time.monotonic() < end:
        time.sleep(5.0)
    if load > QUIET_LOAD * (os.cpu_count() or 1):
        print(f"bench: the machine is not quiet: load {load:.1f}", file=sys.stderr, flush=True)
    _LOADS.append(load)
    return load


_LOADS: list[float] = []
"""At each measurement so far."""


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "memoryMiB": psutil.virtual_memory().total >> 20,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "revision": _revision(),
        "load": round(os.getloadavg()[0], 2),
        **({"loadsBefore": [round(load, 1) for load in _LOADS]} if _LOADS else {}),
    }


def _revision() -> str:
    asked = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True, check=False
    )
    return asked.stdout.strip()


def write(name: str, document: dict[str, Any]) -> Path:
    """One result file, replaced whole."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps({"machine": machine(), **document}, indent=1) + "\n")
    fresh.replace(path)
    return path


def arguments(description: str | None, *, runs: int, choosable: bool = False) -> argparse.Namespace:
    """The two flags every measurement has; ``--only`` where its contenders can be chosen."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--runs", type=int, default=runs, help=f"how often each thing is measured (default {runs})")
    parser.add_argument("--quick", action="store_true", help="small and once: to see that it works, not for figures")
    if choosable:
        parser.add_argument("--only", metavar="TEXT", default="", help="contenders with this in their names")
    given = parser.parse_args()
    if given.quick:
        given.runs = 1
    _compile()
    return given


def _compile() -> None:
    """What is installed was compiled then; in a checkout whose bytecode is old or is not kept
    (PYTHONDONTWRITEBYTECODE), each process would compile what it imports, which is a fifth of a command's time."""
    for name in ("fleet", "pools"):
        if not compileall.compile_dir(Path(__file__).parent.parent / name, quiet=1):
            raise SystemExit(f"bench: {name} cannot be compiled")
