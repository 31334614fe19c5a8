"""Tasks of five milliseconds of Python: what two processes reach in a worker, as a share of a plain loop.

The plain loop calls the same function in two processes without any worker. Two solo workers and one prefork worker
with two slots, fleet's and Celery's. A machine that is shared has several speeds, and changes them within seconds: so
each contender and the plain loop take turns of a second (SIGSTOP and SIGCONT), and a share is that of such a pair.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import figures
import psutil
import servers
import worker_throughput as work
from worker_throughput import Broker

PROCESSES = 2
TASK_SECONDS = 0.005
TURN_SECONDS = 1.0
SETTLE_SECONDS = 0.3
PLAIN = "import bench_load\nwhile True:\n    bench_load.spin()\n    bench_load.count()\n"
PINGING = "import redis\nserver = redis.Redis.from_url({url!r})\n" + PLAIN + "    server.ping()\n"
"""What one round trip for each call leaves of the plain loop: no worker that asks for each task can do better."""
WHOSE = {
    "celery": work.celery_worker,
    "fleet, Celery app": work.fleet_worker("bench_load:app"),
    "fleet, registry": work.fleet_worker("bench_load:tasks"),
}


@dataclass(frozen=True, slots=True)
class Loop:
    """Processes that call the function again and again. whose: empty for the plain loop.  pings: it asks Redis, too."""

    name: str
    pool: str = ""
    whose: str = ""
    pings: bool = False

    def commands(self, url: str) -> list[list[str]]:
        """What is started."""
        if not self.whose:
            text = PINGING.format(url=url) if self.pings else PLAIN
            return [[sys.executable, "-c", text]] * PROCESSES
        words = WHOSE[self.whose](self.pool, url)
        if self.pool == "solo":
            return [own_name(words, number) for number in range(PROCESSES)]
        place = next(words.index(flag) for flag in ("-c", "--concurrency") if flag in words)
        return [[*words[: place + 1], str(PROCESSES), *words[place + 2 :]]]


def own_name(words: list[str], number: int) -> list[str]:
    """The command with a name for this worker, where Celery needs one."""
    return [*words, "-n", f"solo{number}@%h"] if "-P" in words else words


PLAIN_LOOP = Loop("plain")
LOOPS = (
    PLAIN_LOOP,
    Loop("plain, with a PING for each", pings=True),
    *(Loop(f"{whose} two solos", "solo", whose) for whose in WHOSE),
    *(Loop(f"{whose} prefork x2", "prefork", whose) for whose in WHOSE),
)


@dataclass(frozen=True, slots=True)
class Group:
    """Processes that run and stand still together. counts: where they count their calls."""

    started: list[subprocess.Popen[bytes]]
    counts: Path

    def signal(self, signum: int) -> None:
        """To all of them and their children."""
        for process in self.started:
            for one in figures.tree(process.pid):
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(signum)

    def turn(self) -> dict[str, float]:
        """Let them run for a moment, and then for the time that counts: calls per second, processor time of each."""
        self.signal(signal.SIGCONT)
        time.sleep(SETTLE_SECONDS)
        began, done, cpu = time.perf_counter(), work.counted(self.counts), cpu_seconds(self.started)
        time.sleep(TURN_SECONDS)
        spent, calls = cpu_seconds(self.started) - cpu, work.counted(self.counts) - done
        seconds = time.perf_counter() - began
        self.signal(signal.SIGSTOP)
        return {"tasksPerSecond": calls / seconds, "cpuMicrosecondsPerTask": spent / calls * 1e6}


def measure(loop: Loop, broker: Broker, pairs: int) -> list[dict[str, float]]:
    """Each turn of a contender, beside the turn of the plain loop before it."""
    broker.refill()
    with work.started(PLAIN_LOOP.commands(broker.url)) as plain, work.started(loop.commands(broker.url)) as other:
        groups = [Group(processes, counts) for processes, counts, _ in (plain, other)]
        try:
            for one in groups:
                figures.wait_until(lambda one=one: is_warm(one.counts), what=f"{loop.name}: all processes at work")
                one.signal(signal.SIGSTOP)
            turns = [[one.turn() for one in groups] for _ in range(pairs)]
        finally:
            for one in groups:
                one.signal(signal.SIGCONT)
        if work.counted(groups[1].counts) >= broker.tasks:
            raise SystemExit(f"bench: {loop.name} ran out of tasks")
    return [
        {
            **contender,
            "shareOfRate": contender["tasksPerSecond"] / plain["tasksPerSecond"],
            "shareOfProcessorTime": plain["cpuMicrosecondsPerTask"] / contender["cpuMicrosecondsPerTask"],
        }
        for plain, contender in turns
    ]


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
    """All contenders, the plain loop beside itself among them: what that is off by is the error of the others."""
    given = figures.arguments(__doc__, runs=3, choosable=True)
    pairs = 4 if given.quick else 15
    turns = turns_of_a_task()
    os.environ["BENCH_SPIN_TURNS"] = str(turns)
    loops = [one for one in LOOPS if given.only in one.name]
    found: dict[str, list[dict[str, float]]] = {one.name: [] for one in loops}
    with servers.redis() as url:
        broker = Broker(url, 30_000, task="bench.spin")
        for run in range(given.runs):
            figures.wait_for_quiet()
            for one in loops[run % len(loops) :] + loops[: run % len(loops)]:
                found[one.name] += measure(one, broker, pairs)
    rows: list[dict[str, Any]] = []
    for name, measured in found.items():
        row = {key: figures.spread([one[key] for one in measured]) for key in measured[0]}
        rows.append({"worker": name, **row})
        rate, of_rate, of_cpu = (
            row[key]["median"] for key in ("tasksPerSecond", "shareOfRate", "shareOfProcessorTime")
        )
        print(f"{name:28} {rate:7.1f} tasks/s {of_rate:.3f} of the rate {of_cpu:.3f} of the processor time", flush=True)
    print(figures.write("plain_share", {"turnsOfATask": turns, "rows": rows}))


if __name__ == "__main__":
    main()
