"""What metrics cost: what a worker writes of one task, and one scrape of two hundred replicas with busy records."""

from __future__ import annotations

import os
import statistics
import struct
import subprocess
import tempfile
import time
import timeit
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import figures

from fleet.broker.delivery import Delivery
from fleet.broker.message import TaskMessage, build
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.metrics.collecting import FRESH_SECONDS, FleetCollector
from fleet.operate.metrics.exposition import negotiated, text
from fleet.operate.metrics.samples import samples
from fleet.replica.record import Record
from fleet.replica.task_counters import TaskCounters, counters_path
from fleet.settings import Settings
from fleet.worker.loop.counting import TaskCounting
from fleet.worker.task.call import Call, Outcome, TaskPolicy
from fleet.worker.task.job import Job

TASKS = [f"shop.tasks.task_{number}" for number in range(10)]
CALLS = 200_000
GROUPS = 10
PID = struct.Struct("<I")
PID_OFFSET = 16

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: bench}
spec:
  heal: {mode: "off"}
  defaults: {health: {readyTimeout: 20m}}
  groups:
"""


def counting(folder: Path) -> float:
    """Processor microseconds to count one task: its wait, its end and its run time."""
    counters = TaskCounters(folder / "bench.tasks")

    def one() -> None:
        counters.waited("shop.thumb", 0.37)
        counters.ended("shop.thumb", "done", 0.012)

    def nothing() -> None:
        pass

    spent, empty = (timeit.timeit(call, number=CALLS, timer=time.process_time) for call in (one, nothing))
    counters.close()
    return (spent - empty) / CALLS * 1e6


def writing(folder: Path, *, counted: bool) -> float:
    """Processor microseconds to write down one task: in the record alone, or with its counts and histograms as well."""
    record, counting = Record(folder / "bench.rec", digest="d", slots=1), TaskCounting(folder / "bench.rec")
    record.become("ready")
    job, outcome = _job(), Outcome("success")

    def one() -> None:
        record.begin(0, task_id=job.call.id, task_name=job.call.name)
        record.processed += 1
        record.end(0)

    def with_counts() -> None:
        counting.on_start(job)
        record.begin(0, task_id=job.call.id, task_name=job.call.name)
        record.processed += 1
        record.end(0)
        counting.on_end(job, outcome)

    spent = timeit.timeit(with_counts if counted else one, number=CALLS, timer=time.process_time)
    counting.counters.close()
    record.close()
    return spent / CALLS * 1e6


def _job() -> Job:
    """A run of a task that fleet sent, as the loop of a worker holds it when it is over."""
    built = build(TASKS[0], args=[1])
    delivery = Delivery("1", "bench", built.body, built.headers, properties=built.properties)
    message = TaskMessage.from_delivery(delivery)
    call = Call(message.id, message.name, built.headers, built.body, queue="bench")
    job = Job(delivery, message, call, TaskPolicy(), (message.id, 0))
    handle: Any = SimpleNamespace(started_at=10.0, ended_at=10.012)
    job.handle = handle
    return job


def publishing(folder: Path) -> float:
    """Processor microseconds to publish ten tasks, which a worker does once a second."""
    counters = TaskCounters(folder / "published.tasks")
    for name in TASKS:
        counters.ended(name, "done", 0.01)
    spent = timeit.timeit(counters.publish, number=2_000, timer=time.process_time)
    counters.close()
    return spent / 2_000 * 1e6


class Fleet:
    """Replicas that sleep under a real supervisord, with records and counters as busy workers have them."""

    def __init__(self, home: Path, replicas: int) -> None:
        self.home = home
        manifest = home / "bench.yaml"
        each = replicas // GROUPS
        groups = (f"    g{number}: {{command: [sleep, infinity], replicas: {each}}}\n" for number in range(GROUPS))
        manifest.write_text(MANIFEST + "".join(groups))
        self.local = LocalFleet("bench", settings=Settings(home=home))

    def start(self) -> None:
        """Apply it."""
        self._run("apply", str(self.home / "bench.yaml"), "--yes")

    def work(self) -> list[Work]:
        """The work of every replica; its record keeps the pid of the replica as long as nothing beats."""
        seen = self.local.backend.observe().replicas.items()
        return [Work(self.local.places.record_file(name), one.pid or 0, one.digest) for name, one in seen]

    def down(self) -> None:
        """End it."""
        self._run("down", str(self.home / "bench.yaml"), "--yes")

    def _run(self, *words: str) -> None:
        env = {**os.environ, "FLEET_HOME": str(self.home)}
        subprocess.run([str(figures.BIN / "fleet"), *words], env=env, check=True, capture_output=True)


class Work:
    """What a busy worker with four slots writes of itself, in the place of what the launcher wrote."""

    def __init__(self, path: Path, pid: int, digest: str) -> None:
        self._count = 0
        self._record = Record(path, digest=digest, slots=4)
        self._record.become("ready")
        for slot in range(4):
            self._record.begin(slot, task_id=f"id-{slot}", task_name=TASKS[slot])
        with path.open("r+b") as file:
            os.pwrite(file.fileno(), PID.pack(pid), PID_OFFSET)
        self._counters = TaskCounters(counters_path(path))
        for name in TASKS:
            self._counters.waited(name, 0.2)
            self._counters.ended(name, "done", 0.1)
        self._counters.publish()

    def go_on(self) -> None:
        """A task ends and another begins: then nothing that is read of this worker is as it was."""
        self._count += 1
        slot, name = self._count % 4, TASKS[self._count % len(TASKS)]
        self._record.end(slot)
        self._record.begin(slot, task_id=f"id-{self._count}", task_name=name)
        self._counters.ended(name, "done", 0.1)
        self._counters.waited(name, 0.2)
        self._counters.publish()

    def close(self) -> None:
        """Leave the files as they are."""
        self._counters.close()
        self._record.close()


def scraping(replicas: int, runs: int) -> dict[str, Any]:
    """Milliseconds of one scrape, read and written out, by the clock and by the processor."""
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        fleet = Fleet(Path(folder), replicas)
        try:
            fleet.start()
            workers = fleet.work()
            collector = FleetCollector(fleet.local)
            collector.read()  # launch documents and the audit are read once
            rows: dict[str, list[float]] = {"clock": [], "processor": [], "read": [], "openMetrics": [], "http": []}
            for _ in range(max(3, runs)):
                for one in workers:
                    one.go_on()
                clock, processor = time.perf_counter(), time.process_time()
                reading = collector.read()
                rows["read"].append((time.perf_counter() - clock) * 1e3)
                found = list(samples([reading]))
                body = text(found)
                rows["clock"].append((time.perf_counter() - clock) * 1e3)
                rows["processor"].append((time.process_time() - processor) * 1e3)
                began = time.perf_counter()
                negotiated(found, "application/openmetrics-text")
                rows["openMetrics"].append((time.perf_counter() - began) * 1e3)
            busy = sum(one.busy for one in reading.observed.replicas.values()) if reading.observed else 0
            if busy != 4 * replicas:
                raise SystemExit(f"bench: {busy} busy slots were seen, not {4 * replicas}")
            rows["http"] = over_http(fleet, workers, runs)
            for one in workers:
                one.close()
        finally:
            fleet.down()
    sizes = {"samples": len(found), "bytes": len(body)}
    return {**{name: figures.spread(values, digits=1) for name, values in rows.items()}, **sizes}


def over_http(fleet: Fleet, workers: list[Work], runs: int) -> list[float]:
    """Milliseconds that somebody waits who scrapes ``fleet metrics --listen``: connection, reading, text, transfer."""
    words = [str(figures.BIN / "fleet"), "metrics", "--fleet", "bench", "--listen", "127.0.0.1:0"]
    env = {**os.environ, "FLEET_HOME": str(fleet.home)}
    server = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        url = f"http://{server.stderr.readline().split(' metrics at ')[1].split(',')[0]}/metrics"
        waited = []
        for number in range(1 + max(3, runs)):
            for one in workers:
                one.go_on()
            began = time.perf_counter()
            with urllib.request.urlopen(url) as answer:
                answer.read()
            if number:  # the first one reads launch documents
                waited.append((time.perf_counter() - began) * 1e3)
            time.sleep(2 * FRESH_SECONDS)
    finally:
        server.terminate()
        server.wait()
    return waited


def main() -> None:
    """All of it."""
    given = figures.arguments(__doc__, runs=20)
    replicas = 20 if given.quick else 200
    with tempfile.TemporaryDirectory(prefix="fb-") as folder:
        count = [counting(Path(folder)) for _ in range(max(3, given.runs // 4))]
        pairs = [[writing(Path(folder), counted=one) for one in (False, True)] for _ in range(max(3, given.runs // 4))]
        publish = [publishing(Path(folder)) for _ in range(3)]
    scrape = scraping(replicas, given.runs)
    print(f"counting a task: {figures.spread(count)['median']:.2f} us; publishing: {min(publish):.0f} us a second")
    alone, both = ([pair[which] for pair in pairs] for which in (0, 1))
    added = [after - before for before, after in pairs]
    for name, spent in (("record alone", alone), ("with counts", both)):
        print(f"{name}: {statistics.median(spent):.2f} us a task, {1e6 / statistics.median(spent):,.0f} tasks/s")
    took = f"{scrape['clock']['median']:.0f} ms, over HTTP {scrape['http']['median']:.0f} ms"
    print(f"scrape of {replicas} replicas: {took}, {scrape['samples']} samples")
    document = {
        "countingMicroseconds": figures.spread(count),
        "publishingMicroseconds": figures.spread(publish),
        "writingMicroseconds": {
            "recordAlone": figures.spread(alone),
            "withCounts": figures.spread(both),
            "added": figures.spread(added),
        },
        "scrape": {"unit": "milliseconds", "replicas": replicas, **scrape},
    }
    print(figures.write("metrics", document))


if __name__ == "__main__":
    main()
