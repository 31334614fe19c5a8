"""Queues in numbers, on Redis: one queue with 1, 2, 4 and 8 solo workers, a hundred queues in one worker, and how fast
`fleet send --count 100000` sends.

Fleet's workers and Celery's in turns, with a task that does nothing. The rate is that of all workers together, from the
end of the warm-up (a tenth of the tasks) to the last task.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import figures
import servers
import worker_throughput as work
from fleet_scale import Fleet
from plain_share import own_name
from worker_throughput import QUEUE, Broker

WORKERS = (1, 2, 4, 8)
QUEUES = 100
SENT = 100_000
WHOSE = {"celery": work.celery_worker, "fleet, Celery app": work.fleet_worker("bench_load:app")}


class ManyQueues(Broker):
    """The same tasks, spread over a hundred queues."""

    def refill(self) -> None:
        """Forget what a worker left, and put the tasks in."""
        redis = self._redis()
        redis.flushdb()
        for number in range(QUEUES):
            messages = self._redis(1).lrange("template", number, self.tasks - 1)[::QUEUES]
            redis.lpush(f"{QUEUE}{number}", *messages)


def on_many(words: list[str]) -> list[str]:
    """The command, for all the queues."""
    place = next(words.index(flag) for flag in ("-Q", "--queues") if flag in words)
    return [*words[: place + 1], ",".join(f"{QUEUE}{number}" for number in range(QUEUES)), *words[place + 2 :]]


def measure(commands: list[list[str]], broker: Broker, name: str) -> dict[str, float]:
    """All these workers, one filled broker."""
    broker.refill()
    with work.started(commands) as (_, counts, _log):
        warm = broker.tasks // 10
        figures.wait_until(lambda: work.counted(counts) >= warm, what=f"{name}: warm", every=0.005)
        began, done, server = time.perf_counter(), work.counted(counts), broker.cpu_seconds() or 0.0
        figures.wait_until(lambda: work.counted(counts) >= broker.tasks, what=f"{name}: all", every=0.005)
        seconds, server = time.perf_counter() - began, (broker.cpu_seconds() or 0.0) - server
    left = broker.tasks - done
    return {"tasksPerSecond": left / seconds, "brokerMicrosecondsPerTask": server / left * 1e6}


def sending(count: int) -> dict[str, float]:
    """One command that sends so many tasks to a fleet whose workers are held."""
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        fleet = Fleet(Path(folder), 1)
        try:
            fleet.run("apply", "bench.yaml", "--yes")
            fleet.run("drain", "many", "bench.yaml")
            seconds, _ = fleet.run("send", "bench.noop", "bench.yaml", "--count", str(count))
        finally:
            fleet.run("down", "bench.yaml", "--yes")
    return {"tasksPerSecond": count / seconds}


def main() -> None:
    """All in turns."""
    given = figures.arguments(__doc__, runs=3, choosable=True)
    part = 10 if given.quick else 1
    cases: dict[tuple[str, str], Callable[[], dict[str, float]]] = {}
    with servers.redis() as url, servers.redis() as other:
        one = Broker(url, 20_000 // part)
        many = ManyQueues(other, 4_000 // part)
        for whose, start in WHOSE.items():
            words = start("solo", url)
            for workers in WORKERS:
                commands = [own_name(words, number) for number in range(workers)]
                what = f"one queue, {workers} solo workers"
                cases[what, whose] = lambda commands=commands, what=what: measure(commands, one, what)  # type: ignore[misc]
            spread = on_many(start("solo", other))
            cases[f"{QUEUES} queues, one solo worker", whose] = lambda spread=spread: measure([spread], many, "many")  # type: ignore[misc]
        cases[f"fleet send --count {SENT // part}", "fleet"] = lambda: sending(SENT // part)
        cases = {names: case for names, case in cases.items() if given.only in ", ".join(names)}
        runs: dict[tuple[str, str], list[dict[str, float]]] = {names: [] for names in cases}
        for _ in range(given.runs):
            figures.wait_for_quiet()
            for names, case in cases.items():
                runs[names].append(case())
    rows: list[dict[str, Any]] = []
    for (what, whose), measured in runs.items():
        row = {key: figures.spread([one[key] for one in measured]) for key in measured[0]}
        rows.append({"load": what, "worker": whose, **row})
        print(f"{what:32} {whose:20} {row['tasksPerSecond']['median']:9.1f} tasks/s", flush=True)
    print(figures.write("queues", {"rows": rows}))


if __name__ == "__main__":
    main()
