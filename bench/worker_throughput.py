"""What one task costs in each pool: fleet's workers and Celery's on the same queues, interleaved in one run.

A queue is filled first, then the worker starts: no producer takes part of the processors. Rate and processor time are
taken between the end of the warm-up (a tenth of the tasks) and the last task; memory afterwards, idle; then latency,
from sending to starting, of single tasks sent to the idle worker every 20 ms.
"""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import figures
import servers

LOAD = Path(__file__).resolve().parent / "load"
QUEUE = "bench"
RESULTS = 2  # the database of Redis that they are stored in
SLOTS = {"solo": 1, "prefork": 10, "threads": 10, "gevent": 100, "eventlet": 100, "asyncio": 100}
OF_CELERY = ("solo", "prefork", "threads", "gevent", "eventlet")
LATENCIES = 50
LATENCY_PAUSE_SECONDS = 0.02
LEAN = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-O", "fair", "-l", "WARNING"]

sys.path.insert(0, str(LOAD))


@dataclass(frozen=True, slots=True)
class Contender:
    """One worker to be measured: whose it is, how it runs tasks, what it is handed, whether it stores their results."""

    name: str
    pool: str
    command: Callable[[str, str], list[str]]
    results: bool = False

    def argv(self, broker: str) -> list[str]:
        """Its command line for a broker."""
        return self.command(self.pool, broker)


def celery_worker(pool: str, broker: str) -> list[str]:
    """Celery's worker, without what costs and is not needed here."""
    command = [str(figures.BIN / "celery"), "-A", "bench_load", "-b", broker, "worker", "-Q", QUEUE, "-P", pool]
    return [*command, "-c", str(SLOTS[pool]), *LEAN]


def fleet_worker(app: str) -> Callable[[str, str], list[str]]:
    """Fleet's worker, on a Celery app or on a registry."""

    def command(pool: str, broker: str) -> list[str]:
        words = [str(figures.BIN / "fleet"), "worker", "--app", app, "--pool", pool, "--concurrency", str(SLOTS[pool])]
        return [*words, "--queues", QUEUE, "--broker", broker, "--loglevel", "WARNING"]

    return command


CONTENDERS = [
    Contender(f"{whose} {pool}", pool, command)
    for pool in SLOTS
    for whose, command in (
        ("celery", celery_worker),
        ("fleet, Celery app", fleet_worker("bench_load:app")),
        ("fleet, registry", fleet_worker("bench_load:tasks")),
    )
    if whose != "celery" or pool in OF_CELERY
]
STORING = [
    Contender(f"{whose} {pool}, results", pool, command, results=True)
    for pool in OF_CELERY
    for whose, command in (("celery", celery_worker), ("fleet, Celery app", fleet_worker("bench_load:app")))
]
"""On Redis only, which keeps tasks and results."""


class Broker:
    """A queue that can be filled with the same tasks again and again."""

    def __init__(self, url: str, tasks: int, *, task: str = "bench.noop", args: tuple[Any, ...] = ()) -> None:
        """tasks: how many.  task, args: what each is."""
        from bench_load import app

        self.url = url
        self.tasks = tasks
        self._task, self._args = task, args
        self.app = app
        self._template = url.replace("/0", "/1") if url.startswith("redis") else None
        if self._template:
            self._publish()
            self._redis().copy(QUEUE, "template", destination_db=1)

    def refill(self) -> None:
        """Forget what a worker left, and put the tasks in."""
        if self._template:
            redis = self._redis()
            redis.flushdb()
            self._redis(RESULTS).flushdb()
            self._redis(1).copy("template", QUEUE, destination_db=0)
            return
        with self.app.connection_for_write(self.url) as connection:
            connection.default_channel.queue_delete(QUEUE)
        self._publish()

    @property
    def results_url(self) -> str:
        """Where results go that are stored."""
        return f"{self.url.removesuffix('/0')}/{RESULTS}"

    def cpu_seconds(self) -> float | None:
        """Processor time that the server has used so far; None where it does not tell."""
        if not self._template:
            return None
        used = self._redis().info("cpu")
        return float(used["used_cpu_user"] + used["used_cpu_sys"])

    def send_stamps(self) -> None:
        """Single tasks, each with the moment of its sending."""
        from kombu import uuid

        with self.app.connection_for_write(self.url) as connection, connection.Producer() as producer:
            for _ in range(LATENCIES):
                message = self.app.amqp.as_task_v2(uuid(), "bench.stamp", args=(time.time(),))
                self.app.amqp.send_task_message(producer, "bench.stamp", message, queue=QUEUE)
                time.sleep(LATENCY_PAUSE_SECONDS)

    def _redis(self, database: int = 0) -> Any:
        from redis import Redis

        return Redis.from_url(f"{self.url.removesuffix('/0')}/{database}")

    def _publish(self) -> None:
        from kombu import uuid

        with self.app.connection_for_write(self.url) as connection, connection.Producer() as producer:
            for _ in range(self.tasks):
                message = self.app.amqp.as_task_v2(uuid(), self._task, args=self._args)
                self.app.amqp.send_task_message(producer, self._task, message, queue=QUEUE)


def counted(folder: Path) -> int:
    """Tasks done so far, over all processes."""
    total = 0
    for path in folder.iterdir():
        data = path.read_bytes()
        total += struct.unpack("<Q", data)[0] if len(data) == 8 else 0
    return total


@contextmanager
def started(
    commands: Sequence[Sequence[str]], **more: str
) -> Iterator[tuple[list[subprocess.Popen[bytes]], Path, IO[bytes]]]:
    """These workers, the folder in which they count their tasks, and their log; ended with the block."""
    with tempfile.TemporaryDirectory(prefix="fb-") as folder, ExitStack() as stack:
        counts = Path(folder) / "counts"
        counts.mkdir()
        log = stack.enter_context((Path(folder) / "log").open("w+b"))
        env = {**os.environ, "PYTHONPATH": str(LOAD), "BENCH_COUNTS": str(counts), **more}
        workers: list[subprocess.Popen[bytes]] = []
        try:
            for number, command in enumerate(commands):
                own = {**env, "FLEET_HOME": f"{folder}/{number}"}
                workers.append(subprocess.Popen(command, env=own, cwd=folder, stdout=log, stderr=log))
            yield workers, counts, log
        finally:
            for worker in workers:
                stop(worker)


def measure(contender: Contender, broker: Broker) -> dict[str, float]:
    """One worker, one full queue, from exec until it is idle again."""
    broker.refill()
    warm = broker.tasks // 10
    with tempfile.TemporaryDirectory(prefix="fb-") as folder, ExitStack() as stack:
        counts = Path(folder) / "counts"
        counts.mkdir()
        log = stack.enter_context((Path(folder) / "log").open("w+b"))
        stamps = Path(folder) / "stamps"
        own = {"PYTHONPATH": str(LOAD), "BENCH_COUNTS": str(counts), "BENCH_LATENCIES": str(stamps)}
        env = {**os.environ, **own, "FLEET_HOME": folder}
        if contender.results:
            env["BENCH_RESULTS"] = broker.results_url
        began = time.perf_counter()
        worker = subprocess.Popen(contender.argv(broker.url), env=env, cwd=folder, stdout=log, stderr=log)
        try:

            def reach(number: int, every: float = 0.005) -> float:
                def enough() -> bool:
                    if worker.poll() is not None:
                        log.seek(0)
                        raise SystemExit(f"bench: {contender.name} ended early:\n{log.read().decode()[-4000:]}")
                    return counted(counts) >= number

                figures.wait_until(enough, what=f"{contender.name}: {number} tasks", every=every)
                return time.perf_counter()

            first_task = reach(1, every=0.002) - began
            warm_at, warm_cpu, warm_done = reach(warm), figures.cpu_seconds(worker.pid), counted(counts)
            warm_server_cpu = broker.cpu_seconds()
            ended = reach(broker.tasks)
            cpu, server_cpu = figures.cpu_seconds(worker.pid) - warm_cpu, broker.cpu_seconds()
            time.sleep(1.0)  # not a synchronisation: lets the worker become idle
            memory = figures.tree_pss_bytes(worker.pid)
            broker.send_stamps()
            figures.wait_until(lambda: len(read_stamps(stamps)) == LATENCIES, what=f"{contender.name}: stamps")
            latencies = sorted(read_stamps(stamps))
        finally:
            stop(worker)
    done = broker.tasks - warm_done
    of_server = {}
    if server_cpu is not None and warm_server_cpu is not None:
        of_server["brokerMicrosecondsPerTask"] = (server_cpu - warm_server_cpu) / done * 1e6
    return {
        "tasksPerSecond": done / (ended - warm_at),
        "cpuMicrosecondsPerTask": cpu / done * 1e6,
        **of_server,
        "idlePssMiB": memory / 2**20,
        "execToFirstTaskSeconds": first_task,
        "latencyMedianMilliseconds": latencies[len(latencies) // 2] * 1e3,
        "latencyP99Milliseconds": latencies[int(len(latencies) * 0.99) - 1] * 1e3,
    }


def read_stamps(path: Path) -> list[float]:
    """Latencies so far, seconds."""
    return [float(line) for line in path.read_text().split()] if path.exists() else []


def stop(worker: subprocess.Popen[bytes]) -> None:
    """Ask it to end, then insist."""
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(15)
    except subprocess.TimeoutExpired:
        for process in figures.tree(worker.pid):
            process.kill()
        worker.wait()


def main() -> None:
    """All workers on both brokers, in turns."""
    given = figures.arguments(__doc__, runs=3, choosable=True)
    tasks = 1000 if given.quick else 2500
    rows: list[dict[str, Any]] = []
    for kind, server in (("redis", servers.redis), ("rabbitmq", servers.rabbitmq)):
        with server() as url:
            broker = Broker(url, tasks)
            contenders = [one for one in CONTENDERS + STORING if kind == "redis" or not one.results]
            contenders = [one for one in contenders if given.only in one.name]
            if not contenders:
                continue
            runs: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
            for run in range(given.runs):
                figures.wait_for_quiet()
                turn = contenders[run % len(contenders) :] + contenders[: run % len(contenders)]
                for contender in turn:
                    runs[contender.name].append(measure(contender, broker))
        for contender in contenders:
            measured = runs[contender.name]
            row = {key: figures.spread([one[key] for one in measured], digits=3) for key in measured[0]}
            rows.append({"broker": kind, "worker": contender.name, "pool": contender.pool, **row})
            print(
                f"{kind:9} {contender.name:26} {row['tasksPerSecond']['median']:7.0f} tasks/s"
                f" {row['cpuMicrosecondsPerTask']['median']:6.0f} µs/task {row['idlePssMiB']['median']:6.0f} MiB"
                f" {row['execToFirstTaskSeconds']['median']:6.2f} s to the first task"
                f" {row['latencyMedianMilliseconds']['median']:6.1f} ms latency",
                flush=True,
            )
    print(figures.write("worker_throughput", {"tasks": tasks, "slots": SLOTS, "rows": rows}))


if __name__ == "__main__":
    main()
