"""What idle workers cost: processor time by part of a fleet, how often they wake, and connections to the broker.

A fleet of solo workers with an embedded broker and a controller, once with a Celery app (remote control on) and once
with a registry; beside it as many of Celery's own workers, with its defaults and without gossip, mingle and heartbeat.
Nothing is sent. Waits for a quiet machine first.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import figures
import psutil
import servers
from fleet_scale import LOAD, Fleet
from redis import Redis

SETTLE_SECONDS = 40.0
SPAN_SECONDS = 60.0
TUNED = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
PARTS = {
    "fleet: many": "workers",
    "celery": "workers",
    "fleet: image": "image",
    "log_keeper": "log keeper",
    "fleet controller": "controller",
    "redis-server": "broker",
    "supervisord": "supervisord",
}


class Spent(NamedTuple):
    """What threads have spent so far: on a processor, and how often they slept."""

    seconds: float
    sleeps: int


class Running(NamedTuple):
    """A contender that runs: its processes but for those that they have started, and its broker."""

    roots: list[psutil.Process]
    broker: Redis


def spent(pid: int) -> Spent:
    """By all threads of a process, to the nanosecond: ticks of the clock are too coarse for what hardly runs."""
    seconds, sleeps = 0.0, 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        seconds += int((thread / "schedstat").read_text().split()[0]) / 1e9
        status = (thread / "status").read_text().splitlines()
        sleeps += next(int(line.split()[1]) for line in status if line.startswith("voluntary_ctxt_switches"))
    return Spent(seconds, sleeps)


def part_of(process: psutil.Process) -> str:
    """Which part of a fleet it is."""
    words = " ".join(process.cmdline())
    return next((part for mark, part in PARTS.items() if mark in words), "other")


@contextmanager
def fleet(app: str, workers: int) -> Iterator[Running]:
    """A fleet of this app."""
    with tempfile.TemporaryDirectory(prefix="fb-", dir="/tmp") as name:
        one = Fleet(Path(name), workers, app=app)
        try:
            one.run("apply", "bench.yaml", "--yes")
            run = one.folder / "bench/run"
            supervisord = psutil.Process(int((run / "supervisord.pid").read_text()))
            yield Running([supervisord], Redis(unix_socket_path=str(run / "broker.sock")))
        finally:
            one.run("down", "bench.yaml", "--yes")


@contextmanager
def celery(options: list[str], workers: int) -> Iterator[Running]:
    """As many workers of Celery's own."""
    with tempfile.TemporaryDirectory(prefix="fb-") as folder, servers.redis() as url:
        words = [str(figures.BIN / "celery"), "-A", "bench_load", "-b", url, "worker", "-Q", "many", "-P", "solo"]
        env = {**os.environ, "PYTHONPATH": str(LOAD), "BENCH_COUNTS": folder}
        started = [
            subprocess.Popen(
                [*words, "-l", "WARNING", "-n", f"many{number}@%h", *options],
                env=env, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for number in range(workers)
        ]  # fmt: skip
        broker = Redis.from_url(url)
        try:
            figures.wait_until(
                lambda: sum(one["cmd"] == "brpop" for one in broker.client_list()) >= workers,
                what="Celery's workers wait for tasks",
                within=600.0,
            )
            port = url.rpartition(":")[2].partition("/")[0]
            server = next(one for one in psutil.Process().children() if f":{port}" in " ".join(one.cmdline()))
            yield Running([server, *(psutil.Process(one.pid) for one in started)], broker)
        finally:
            for one in started:
                one.terminate()
            for one in started:
                one.wait()


CONTENDERS: dict[str, Callable[[int], object]] = {
    "celery": lambda workers: celery([], workers),
    "celery, tuned": lambda workers: celery(TUNED, workers),
    "fleet, Celery app": lambda workers: fleet("app", workers),
    "fleet, registry": lambda workers: fleet("tasks", workers),
}


def measure(running: Running, *, workers: int, seconds: float) -> dict[str, float]:
    """Percent of one processor by part and together; wake-ups and connections of one worker."""
    processes = [one for root in running.roots for one in (root, *root.children())]
    parts = {one.pid: part_of(one) for one in processes}
    before = {pid: spent(pid) for pid in parts}
    time.sleep(seconds)
    total: Counter[str] = Counter()
    sleeps = 0
    for pid, part in parts.items():
        now = spent(pid)
        total[part] += now.seconds - before[pid].seconds  # type: ignore[assignment]
        sleeps += now.sleeps - before[pid].sleeps if part == "workers" else 0
    connections = len(running.broker.client_list()) - 1
    return {
        "percentOfACore": sum(total.values()) / seconds * 100,
        **{f"percent {part}": value / seconds * 100 for part, value in sorted(total.items())},
        "wakesPerSecondAndWorker": sleeps / seconds / workers,
        "connectionsPerWorker": connections / workers,
    }


def main() -> None:
    """All contenders, in turns."""
    given = figures.arguments(__doc__, runs=3, choosable=True)
    workers, seconds = (5, 10.0) if given.quick else (100, SPAN_SECONDS)
    chosen = {name: start for name, start in CONTENDERS.items() if given.only in name}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for _ in range(given.runs):
        for name, start in chosen.items():
            figures.wait_for_quiet()
            with start(workers) as running:  # type: ignore[attr-defined]
                time.sleep(SETTLE_SECONDS)
                runs[name].append(measure(running, workers=workers, seconds=seconds))
                print(f"{name:18} " + ", ".join(f"{key} {value:.3g}" for key, value in runs[name][-1].items()))
    rows = [
        {"worker": name, **{key: figures.spread([one[key] for one in measured]) for key in measured[0]}}
        for name, measured in runs.items()
    ]
    print(figures.write("idle", {"workers": workers, "seconds": seconds, "rows": rows}))


if __name__ == "__main__":
    main()
