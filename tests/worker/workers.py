"""A real worker process for tests: started from a launch document, watched through its record."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

import fleet
from fleet.core.spec import BrokerSpec, PoolSpec, QueueSpec, TaskPolicy, WorkerSpec, digest
from fleet.replica import record
from fleet.replica.launch_document import LaunchDocument
from fleet.replica.record import RecordView
from tests.conftest import PATIENCE, eventually

PROJECT = Path(fleet.__file__).parents[1]

TASKS = '''
import asyncio, os, signal, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
from fleet import Retry, Tasks

tasks = Tasks("shop")


def write(path, text):
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, (str(text) + "\\n").encode())
    os.close(descriptor)


def double(number):
    return number * 2


@tasks.task
def note(path, number, seconds=0.0):
    write(path + ".started", f"{number} {os.getpid()}")
    if seconds:
        time.sleep(seconds)
    write(path, number)


@tasks.task(acks="early")
def note_early(path, number, seconds=0.0):
    write(path + ".started", f"{number} {os.getpid()}")
    time.sleep(seconds)
    write(path, number)


@tasks.task
def wait_for(path, number, gate):
    """Runs until somebody opens the gate."""
    write(path + ".started", f"{number} {os.getpid()}")
    while not os.path.exists(gate):
        time.sleep(0.02)
    write(path, number)


@tasks.task(acks="early")
def wait_early(path, number, gate):
    wait_for(path, number, gate)


@tasks.task
async def note_async(path, number):
    await asyncio.sleep(0.01)
    write(path, number)


@tasks.task
def fan_out(path, number):
    with ProcessPoolExecutor(max_workers=3) as pool:
        assert sum(pool.map(double, range(10))) == 90
    write(path, number)


@tasks.task
def pool_terminate(path, number):
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(double, range(4)) == [0, 2, 4, 6]
    write(path, number)


@tasks.task(max_retries=2, backoff_seconds=0.05, jitter=False)
def broken(path, number):
    write(path, number)
    raise ValueError("as asked")


@tasks.task(max_retries=2)
def asks_again(path, number):
    write(path, number)
    if tasks.current.retries < 1:
        raise Retry(after_seconds=0.05)


@tasks.task(max_retries=0, soft_time_limit_seconds=0.3)
def too_slow_softly(path, number):
    write(path + ".started", f"{number} {os.getpid()}")
    time.sleep(30)


@tasks.task(max_retries=0, time_limit_seconds=0.5)
def too_slow(path, number):
    write(path + ".started", f"{number} {os.getpid()}")
    subprocess.run([sys.executable, "-c", "import time; time.sleep(60)", path])


@tasks.task
def dies(path, number):
    write(path, number)
    os.kill(os.getpid(), signal.SIGKILL)


@tasks.task
def exits(path, number):
    write(path, number)
    sys.exit(3)


@tasks.task
def blocked(path, number, seconds):
    """The main thread stays in C code: no signal handler of Python can run in it, other threads can."""
    import ctypes
    write(path + ".started", f"{number} {os.getpid()}")
    left = seconds
    while left > 0:
        left = ctypes.CDLL(None).sleep(left)
    write(path, number)


@tasks.task
def blocked_until(path, number, gate):
    """The same until there is a file: a greenlet that lets no other run."""
    import ctypes
    write(path + ".started", f"{number} {os.getpid()}")
    while not os.path.exists(gate):
        ctypes.CDLL(None).usleep(50_000)
    write(path, number)
'''


class RunningWorker:
    """One worker process. ``spec`` fields are given by name."""

    def __init__(
        self, folder: Path, url: str, *, replica: str = "shop.0", fleet: str = "shopfleet", **fields: Any
    ) -> None:
        self.folder = folder
        self.url = url
        self.replica = replica
        self.fleet = fleet
        pool = fields.pop("pool", "solo")
        queues = fields.pop("queues", ["q"])
        task = fields.pop("task", TaskPolicy())
        slots = fields.pop("slots", 1)
        self.environ = fields.pop("environ", {})
        options = fields.pop("pool_options", {})
        self.spec = replace(
            WorkerSpec(kind="worker", fleet=fleet, group="shop", app="shop_tasks:tasks", broker=BrokerSpec(url=url)),
            pool=PoolSpec(pool, slots, **options),
            queues=tuple(QueueSpec(name) for name in queues),
            task=task,
            **fields,
        )
        self.record_path = folder / f"{fleet}-{replica}.rec"
        self.log_path = folder / f"{fleet}-{replica}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> RunningWorker:
        path = self.folder / f"{self.fleet}-{self.replica}.json"
        document = LaunchDocument(
            path=path,
            fleet=self.fleet,
            replica=self.replica,
            digest=digest(self.spec),
            spec=self.spec,
            secrets={},
            record=self.record_path,
            log=self.log_path,
        )
        path.write_bytes(document.to_bytes())
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fleet.worker", str(path)],
                cwd=self.folder,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{self.folder}:{PROJECT}",
                    "FLEET_BROKER_URL": self.url,
                    "FLEET_MINGLE_SECONDS": "0",
                    **self.environ,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if ready:
            self.wait_state("ready")
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def view(self) -> RecordView | None:
        """The record of this very process."""
        found = record.read(self.record_path)
        for _ in range(100):
            if found is not None or not self.record_path.exists():
                break
            time.sleep(0.02)  # the worker was put aside in the middle of a write
            found = record.read(self.record_path)
        return found if found is not None and found.pid == self.pid else None

    def wait_state(self, *states: str, within: float = PATIENCE) -> RecordView:
        """Until the record tells one of these."""

        def there() -> RecordView | None:
            assert self.process is not None
            code = self.process.poll()
            if code is not None and "stopped" not in states:
                raise RuntimeError(f"the worker exited {code}:\n{self.log()}")
            found = self.view()
            return found if found is not None and found.state in states else None

        return eventually(there, within=within)  # type: ignore[return-value]

    def log(self) -> str:
        return self.log_path.read_text()[-6000:]

    def signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self, *, within: float = PATIENCE) -> int:
        assert self.process is not None
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not end:\n{self.log()}") from None

    def term(self, *, within: float = PATIENCE) -> int:
        """A warm stop; the exit code."""
        self.signal(signal.SIGTERM)
        return self.wait(within=within)

    def kill(self) -> None:
        """As the machine's out-of-memory killer does: all of it, at once."""
        self.signal(signal.SIGKILL)
        self.wait()

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.pid).children()

    def clean(self) -> None:
        if self.process is not None and self.process.poll() is None:
            family = psutil.Process(self.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            for process in family:
                with contextlib.suppress(psutil.Error):
                    process.kill()


class Shop:
    """A folder with tasks, one broker, workers, and what the tasks wrote."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.out = folder / "done"
        self.queue = f"q{os.getpid()}-{time.monotonic_ns()}"
        self.workers: list[RunningWorker] = []
        (folder / "shop_tasks.py").write_text(TASKS)

    def worker(
        self, pool: str = "solo", slots: int = 1, *, ready: bool = True, start: bool = True, **fields: Any
    ) -> RunningWorker:
        fields = {"queues": [self.queue], **fields}
        made = RunningWorker(self.folder, self.url, pool=pool, slots=slots, **fields)
        self.workers.append(made)
        return made.start(ready=ready) if start else made

    def send(self, task: str, *args: Any, queue: str = "", **how: Any) -> str:
        """Send a task that writes to ``out``; its first argument is the file."""
        return self.tasks.send(f"shop_tasks.{task}", [str(self.out), *args], queue=queue or self.queue, **how)

    def send_notes(self, numbers: Any, seconds: float = 0.0) -> None:
        self.tasks.send_many("shop_tasks.note", [[str(self.out), n, seconds] for n in numbers], queue=self.queue)

    def gate(self) -> Path:
        """A file that is not there yet: a task can wait for it."""
        return self.folder / "gate"

    @property
    def tasks(self) -> Any:
        from fleet import Tasks

        if not hasattr(self, "_tasks"):
            self._tasks = Tasks("shop", broker=self.url)
        return self._tasks

    def done(self) -> Counter[int]:
        return Counter(int(line) for line in self.out.read_text().split()) if self.out.exists() else Counter()

    def started(self) -> Counter[int]:
        path = Path(f"{self.out}.started")
        return Counter(int(line.split()[0]) for line in path.read_text().splitlines()) if path.exists() else Counter()

    def depth(self, queue: str = "") -> int:
        from fleet.broker.publisher import depths

        name = queue or self.queue
        return depths(self.url, [name])[name] or 0

    def dead(self) -> list[Any]:
        """What lies with the dead letters, read and left there."""
        import kombu

        found = []
        with kombu.Connection(self.url) as connection:
            queue = kombu.Queue(f"{self.queue}.dead", kombu.Exchange(f"{self.queue}.dead"), f"{self.queue}.dead")(
                connection.channel()
            )
            queue.declare()
            while (message := queue.get(no_ack=True)) is not None:
                found.append(message)
        return found

    def close(self) -> None:
        for worker in self.workers:
            worker.clean()
            if worker.log_path.exists():
                print(f"== {worker.replica}\n{worker.log()}")  # pytest shows it where a test failed
        if hasattr(self, "_tasks"):
            self._tasks.close()
