"""Tasks of five milliseconds of Python: what two processes reach in a worker, as a share of a plain loop.

The plain loop calls the same function in two processes without any worker, in turns with the contenders. Two solo
workers and one prefork worker with two slots, fleet's and Celery's. Beside the share of the rate, the share of the
processor time: on a machine that others use, only that is steady.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures
import servers
import worker_throughput as work
from worker_throughput import Broker

PROCESSES = 2
TASK_SECONDS = 0.005
PLAIN = "import bench_load\nwhile True:\n    bench_load.spin()\n    bench_load.count()\n"
WHOSE = {
    "celery": work.celery_worker,
    "fleet, Celery app": work.fleet_worker("bench_load:app"),
    "fleet, registry": work.fleet_worker("bench_load:tasks"),
}


@dataclass(frozen=True, slots=True)
class Loop:
    """Processes that call the function again and again. argv: None is the plain loop."""

    name: str
    pool: str = ""
    whose: str = ""

    def commands(self, url: str) -> list[list[str]]:
        """What is started."""
        if not self.whose:
            return [[sys.executable, "-c", PLAIN]] * PROCESSES
        words = WHOSE[self.whose](self.pool, url)
        if self.pool == "solo":
            return [own_name(words, number) for number in range(PROCESSES)]
        place = next(words.index(flag) for flag in ("-c", "--concurrency") if flag in words)
        return [[*words[: place + 1], str(PROCESSES), *words[place + 2 :]]]


def own_name(words: list[str], number: int) -> list[str]:
    """The command with a name for this worker, where Celery needs one."""
    return [*words, "-n", f"solo{number}@%h"] if "-P" in words else words


LOOPS = (
    Loop("plain"),
    *(Loop(f"{whose} two solos", "solo", whose) for whose in WHOSE),
    *(Loop(f"{whose} prefork x2", "prefork", whose) for whose in WHOSE),
)


def measure(loop: Loop, broker: Broker, seconds: float) -> dict[str, float]:
    """Calls per second, and processor time of each, for so many seconds once all processes are at work."""
    broker.refill()
    with work.started(loop.commands(broker.url)) as (workers, counts, _):
        figures.wait_until(lambda: is_warm(counts), what=f"{loop.name}: all processes at work")
        began, done, cpu = time.perf_counter(), work.counted(counts), cpu_seconds(workers)
        time.sleep(seconds)
        spent, calls = cpu_seconds(workers) - cpu, work.counted(counts) - done
        rate = calls / (time.perf_counter() - began)
    if calls + done >= broker.tasks:
        raise SystemExit(f"bench: {loop.name} ran out of tasks")
    return {"tasksPerSecond": rate, "cpuMicrosecondsPerTask": spent / calls * 1e6}


def turns_of_a_task() -> int:
    """So many turns of the loop take ``TASK_SECONDS`` on this machine now."""
    from bench_load import spin

    turns, times = 100_000, []
    for _ in range(51):
        began = time.thread_time()
        spin(turns)
        times.append(time.thread_time() - began)
    return round(turns * TASK_SECONDS / statistics.median(times))


def is_warm(counts: Path) -> bool:
    """Whether each process has done some."""
    done = [int.from_bytes(path.read_bytes(), "little") for path in counts.iterdir()]
    return sum(one >= 20 for one in done) >= PROCESSES


def cpu_seconds(started: list[subprocess.Popen[bytes]]) -> float:
    """Of all of them and their children."""
    return sum(figures.cpu_seconds(process.pid) for process in started)


def main() -> None:
    """All in turns; shares are of the plain loop of the same turn."""
    given = figures.arguments(__doc__, runs=5, choosable=True)
    seconds = 2.0 if given.quick else 8.0
    turns = turns_of_a_task()
    os.environ["BENCH_SPIN_TURNS"] = str(turns)
    loops = [one for one in LOOPS if not one.whose or given.only in one.name]
    runs: dict[str, list[dict[str, float]]] = {one.name: [] for one in loops}
    with servers.redis() as url:
        broker = Broker(url, 12_000, task="bench.spin")
        for run in range(given.runs):
            figures.wait_for_quiet()
            turn = loops[run % len(loops) :] + loops[: run % len(loops)]
            found = {one.name: measure(one, broker, seconds) for one in turn}
            plain = found["plain"]
            for name, one in found.items():
                share = one["tasksPerSecond"] / plain["tasksPerSecond"]
                of_cpu = plain["cpuMicrosecondsPerTask"] / one["cpuMicrosecondsPerTask"]
                runs[name].append({**one, "shareOfRate": share, "shareOfProcessorTime": of_cpu})
    rows: list[dict[str, Any]] = []
    for name, measured in runs.items():
        row = {key: figures.spread([one[key] for one in measured]) for key in measured[0]}
        rows.append({"worker": name, **row})
        rate, of_rate, of_cpu = (
            row[key]["median"] for key in ("tasksPerSecond", "shareOfRate", "shareOfProcessorTime")
        )
        print(f"{name:28} {rate:7.1f} tasks/s {of_rate:.3f} of the rate {of_cpu:.3f} of the processor time", flush=True)
    print(figures.write("plain_share", {"turnsOfATask": turns, "rows": rows}))


if __name__ == "__main__":
    main()
