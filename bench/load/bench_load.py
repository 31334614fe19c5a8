"""The load: a task that does nothing but count itself, once as a Celery app and once as a fleet registry.

Counting costs about a microsecond: each process that runs tasks owns a small mapped file in $BENCH_COUNTS.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from pathlib import Path

from celery import Celery

from fleet import Tasks

app = Celery("bench_load", broker=os.environ.get("BENCH_BROKER"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result="BENCH_RESULTS" not in os.environ,
    result_backend=os.environ.get("BENCH_RESULTS"),
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
)
tasks = Tasks("bench")

_counter: tuple[int, mmap.mmap] | None = None
_counting = threading.Lock()


def count() -> None:
    """One more task of this process."""
    while not _counting.acquire(blocking=False):  # to wait for it would have busy threads change places at each use
        time.sleep(0)
    try:  # a thread may be interrupted between reading and writing
        done = _own_counter()
        struct.pack_into("<Q", done, 0, struct.unpack_from("<Q", done)[0] + 1)
    finally:
        _counting.release()


def _own_counter() -> mmap.mmap:
    global _counter
    if _counter is None or _counter[0] != os.getpid():
        path = Path(os.environ["BENCH_COUNTS"]) / str(os.getpid())
        with path.open("w+b") as file:
            file.truncate(8)
            _counter = (os.getpid(), mmap.mmap(file.fileno(), 8))
    return _counter[1]


def stamp(sent: float) -> None:
    """How long it took from sending to starting, as one line."""
    descriptor = os.open(os.environ["BENCH_LATENCIES"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{time.time() - sent:.6f}\n".encode())
    os.close(descriptor)


@app.task(name="bench.noop")
def celery_noop() -> None:
    """Nothing, through Celery."""
    count()


@tasks.task(name="bench.noop")
def noop() -> None:
    """Nothing, as a plain function."""
    count()


@app.task(name="bench.stamp")
def celery_stamp(sent: float) -> None:
    """When it started, through Celery."""
    stamp(sent)


@tasks.task(name="bench.stamp")
def fleet_stamp(sent: float) -> None:
    """When it started, as a plain function."""
    stamp(sent)


@tasks.task(name="bench.noop_async")
async def noop_async() -> None:
    """Nothing, as a coroutine."""
    count()


SPIN_TURNS = int(os.environ.get("BENCH_SPIN_TURNS", "100000"))
"""Some milliseconds of Python; how many, depends on the machine."""


def spin(turns: int = SPIN_TURNS) -> None:
    """Compute, and wait for nothing."""
    total = 0
    for number in range(turns):
        total += number & 3


@app.task(name="bench.spin")
def celery_spin() -> None:
    """Some milliseconds of Python, through Celery."""
    spin()
    count()


@tasks.task(name="bench.spin")
def fleet_spin() -> None:
    """Some milliseconds of Python, as a plain function."""
    spin()
    count()


SLEEP_SECONDS = 0.1


@app.task(name="bench.sleep")
def celery_sleep() -> None:
    """Wait, through Celery."""
    time.sleep(SLEEP_SECONDS)
    count()


@tasks.task(name="bench.sleep")
def sleep() -> None:
    """Wait, as a plain function."""
    time.sleep(SLEEP_SECONDS)
    count()


@app.task(name="bench.take")
def celery_take(data: str) -> None:  # noqa: ARG001
    """A body of some size, through Celery."""
    count()


@tasks.task(name="bench.take")
def take(data: str) -> None:  # noqa: ARG001
    """A body of some size, as a plain function."""
    count()
