"""Whether a worker's memory grows: over 200,000 tasks, and over a day with nothing to do, compressed by the clock.

Memory is that of all processes of the worker (PSS), read once it is warm and then at twelve even steps. What counts is
the growth from the first third of these to the last. Ends with 1 where one grew by more than GROWTH_PART and
GROWTH_MIB. In the day the clock of the worker's processes runs a thousand times as fast (``load/clock``), so that
all its timers fire as often as in a day. Celery's workers are measured beside, and never make it fail.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import figures
import servers
import worker_throughput as work
from worker_throughput import LOAD, Broker, Contender

TASKS, AT_ONCE = 200_000, 20_000
DAY_SECONDS, CLOCK_TIMES = 86_400.0, 1000.0
READINGS = 12
GROWTH_PART, GROWTH_MIB = 0.05, 2.0

OF_APP = work.fleet_worker("bench_load:app")
LOADED = (
    Contender("celery solo, results", "solo", work.celery_worker, results=True),
    Contender("fleet, Celery app solo, results", "solo", OF_APP, results=True),
    Contender("fleet, Celery app prefork, results", "prefork", OF_APP, results=True),
    Contender("fleet, Celery app threads, results", "threads", OF_APP, results=True),
    Contender("fleet, registry solo", "solo", work.fleet_worker("bench_load:tasks")),
)
IDLE = (
    Contender("fleet, Celery app solo", "solo", OF_APP),
    Contender("fleet, registry prefork", "prefork", work.fleet_worker("bench_load:tasks")),
)


@contextmanager
def running(contender: Contender, broker: Broker, **more: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Its worker, and the folder in which it counts its tasks."""
    if contender.results:
        more["BENCH_RESULTS"] = broker.results_url
    with work.started([contender.argv(broker.url)], **more) as ([worker], counts, log):
        try:
            yield worker, counts
        finally:
            if worker.poll() is not None:
                log.seek(0)
                print(log.read().decode()[-4000:], file=sys.stderr)


def mib(worker: subprocess.Popen[bytes]) -> float:
    """Memory of all its processes."""
    return figures.tree_pss_bytes(worker.pid) / 2**20


def over_tasks(contender: Contender, broker: Broker, tasks: int) -> list[float]:
    """MiB after each part of these tasks. They are sent in portions, and their results are forgotten with each."""
    broker.refill()
    sent, readings = broker.tasks, list[float]()
    with running(contender, broker) as (worker, counts):
        while len(readings) < READINGS:
            due = tasks * (len(readings) + 1) // READINGS
            wait_for_tasks(worker, counts, min(sent, due), contender.name)
            if sent < due:
                broker.refill()
                sent += broker.tasks
            else:
                readings.append(mib(worker))
    return readings


def wait_for_tasks(worker: subprocess.Popen[bytes], counts: Path, due: int, name: str) -> None:
    """Until so many are done, or the worker has ended."""
    figures.wait_until(
        lambda: work.counted(counts) >= due or worker.poll() is not None, what=f"{name}: {due} tasks", within=600.0
    )
    if worker.poll() is not None:
        raise SystemExit(f"bench: {name} ended early")


def over_a_day(contender: Contender, broker: Broker, seconds: float) -> list[float]:
    """MiB through so many seconds of the worker's own clock, without a task."""
    broker.refill()
    clock = {"PYTHONPATH": f"{LOAD}{os.pathsep}{LOAD / 'clock'}", "BENCH_CLOCK_TIMES": str(CLOCK_TIMES)}
    readings: list[float] = []
    with running(contender, broker, **clock) as (worker, counts):
        figures.wait_until(lambda: work.counted(counts) >= broker.tasks, what=f"{contender.name}: warm")
        for _ in range(READINGS):
            time.sleep(seconds / CLOCK_TIMES / READINGS)
            readings.append(mib(worker))
    return readings


def row(name: str, what: str, readings: list[float]) -> dict[str, Any]:
    """What it held at first and in the end, and whether that is more."""
    third = READINGS // 3
    first, last = statistics.median(readings[:third]), statistics.median(readings[-third:])
    grew = last - first > max(GROWTH_PART * first, GROWTH_MIB)
    shown = [round(one, 1) for one in readings]
    return {"worker": name, "over": what, "firstMiB": first, "lastMiB": last, "grew": grew, "readings": shown}


def main() -> int:
    """Both, worker by worker; 1 where one of fleet's grew."""
    given = figures.arguments(__doc__, runs=1, choosable=True)
    tasks, at_once, day = (20_000, 4_000, DAY_SECONDS / 10) if given.quick else (TASKS, AT_ONCE, DAY_SECONDS)
    rows: list[dict[str, Any]] = []
    print("| worker | over | MiB at first | MiB in the end | |\n|---|---|---|---|---|", flush=True)
    with servers.redis() as url:
        loaded = Broker(url, at_once)
        for one in (one for one in LOADED if given.only in one.name):
            rows.append(row(one.name, f"{tasks:,} tasks", over_tasks(one, loaded, tasks)))
            tell(rows[-1])
    with servers.redis() as url:
        warm = Broker(url, 500)
        for one in (one for one in IDLE if given.only in one.name):
            rows.append(row(one.name, f"{day / 3600:g} idle hours", over_a_day(one, warm, day)))
            tell(rows[-1])
    print(figures.write("soak", {"tasks": tasks, "rows": rows}))
    return int(any(one["grew"] for one in rows if one["worker"].startswith("fleet")))


def tell(one: dict[str, Any]) -> None:
    """One line of the table."""
    verdict = "grew" if one["grew"] else ""
    print(f"| {one['worker']} | {one['over']} | {one['firstMiB']:.1f} | {one['lastMiB']:.1f} | {verdict} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
