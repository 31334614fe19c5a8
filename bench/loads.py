"""Tasks that are not nothing, on Redis: waits of 100 ms with a thousand slots, and bodies of 100 kB and 1 MB in solo.

Fleet's workers and Celery's on the same queue, interleaved in one run, as in ``worker_throughput``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import figures
import servers
import worker_throughput as work
from worker_throughput import Contender

SLOTS = 1000
FIGURES = {
    "tasksPerSecond": "tasks/s",
    "cpuMicrosecondsPerTask": "µs/task",
    "brokerMicrosecondsPerTask": "µs of Redis",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What each task is, how many of them, and whose workers take them."""

    name: str
    task: str
    args: tuple[Any, ...]
    tasks: int
    contenders: tuple[Contender, ...]


def wide(start: Callable[[str, str], list[str]]) -> Callable[[str, str], list[str]]:
    """The same worker with a thousand slots."""

    def command(pool: str, broker: str) -> list[str]:
        words = start(pool, broker)
        place = next(words.index(flag) for flag in ("-c", "--concurrency") if flag in words)
        words[place + 1] = str(SLOTS)
        return words

    return command


WHOSE = {
    "celery": work.celery_worker,
    "fleet, Celery app": work.fleet_worker("bench_load:app"),
    "fleet, registry": work.fleet_worker("bench_load:tasks"),
}
WAITING = tuple(
    Contender(f"{whose} {pool}", pool, wide(start))
    for pool in ("threads", "gevent", "asyncio")
    for whose, start in WHOSE.items()
    if pool in work.OF_CELERY or whose != "celery"
)
SOLO = tuple(Contender(f"{whose} solo", "solo", start) for whose, start in WHOSE.items())


def loads(*, quick: bool) -> list[Load]:
    """The rows."""
    part = 10 if quick else 1
    return [
        Load("100 ms, 1000 slots", "bench.sleep", (), 20_000 // part, WAITING),
        Load("100 kB", "bench.take", ("x" * 100_000,), 2000 // part, SOLO),
        Load("1 MB", "bench.take", ("x" * 1_000_000,), 300 // part, SOLO),
    ]


def main() -> None:
    """All loads, their contenders in turns."""
    given = figures.arguments(__doc__, runs=3, choosable=True)
    rows: list[dict[str, Any]] = []
    for load in loads(quick=given.quick):
        contenders = [one for one in load.contenders if given.only in f"{load.name}, {one.name}"]
        if not contenders:
            continue
        runs: dict[str, list[dict[str, float]]] = {one.name: [] for one in contenders}
        with servers.redis() as url:
            broker = work.Broker(url, load.tasks, task=load.task, args=load.args)
            for run in range(given.runs):
                figures.wait_for_quiet()
                for one in contenders[run % len(contenders) :] + contenders[: run % len(contenders)]:
                    runs[one.name].append(work.measure(one, broker))
        for name, measured in runs.items():
            row = {key: figures.spread([one[key] for one in measured]) for key in FIGURES}
            rows.append({"load": load.name, "worker": name, **row})
            shown = (f"{row[key]['median']:8.1f} {unit}" for key, unit in FIGURES.items())
            print(f"{load.name:20} {name:26} {' '.join(shown)}", flush=True)
    print(figures.write("loads", {"rows": rows}))


if __name__ == "__main__":
    main()
