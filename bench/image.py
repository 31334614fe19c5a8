"""Memory of workers that import what many apps import, with an image and without, beside Celery's; and their verbs.

Ten solo workers, ten of gevent, and one prefork worker with ten children, each at rest and after tasks that do
nothing. The app imports numpy, pydantic and requests where they are installed; the broker is a Redis that all share.
"merged" is with `mergeMemory`, weighed when the kernel has gone over all memory three times; as root alone, who turns
its search on, quicker than it is by itself, and back.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import figures
import psutil
import servers
from redis import Redis

from fleet.replica.memory_merging import KSM

WORKERS = 10
APP = """
import importlib.util
for name in ("numpy", "pydantic", "requests"):
    if importlib.util.find_spec(name):
        importlib.import_module(name)
import celery
app = celery.Celery("shop")
app.conf.update(broker_connection_retry_on_startup=True, task_acks_late=True)
@app.task(ignore_result=True)
def noop(): pass
"""
MANIFEST = """
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: image}}
spec:
  app: shop:app
  broker: {{url: "{url}"}}
  release: {{workdir: ., image: "{image}"}}
  groups:
    bench: {{pool: {pool}, queues: [q], mergeMemory: {merged}, health: {{readyTimeout: 10m}}}}
"""
GREEN_SLOTS = 100
POOLS = {
    "solo": f"solo, replicas: {WORKERS}",
    "prefork": f"{{type: prefork, concurrency: {WORKERS}}}, replicas: 1",
    "gevent": f"{{type: gevent, concurrency: {GREEN_SLOTS}}}, replicas: {WORKERS}",
}
SLOTS = {"solo": 1, "prefork": WORKERS, "gevent": GREEN_SLOTS}


class Contender(NamedTuple):
    """image: of a fleet; empty for Celery."""

    name: str
    pool: str
    image: str
    merged: bool = False


CONTENDERS = (
    Contender("celery solo", "solo", ""),
    Contender("fleet solo, without an image", "solo", "off"),
    Contender("fleet solo", "solo", "auto"),
    Contender("fleet solo, merged", "solo", "auto", merged=True),
    Contender("celery prefork", "prefork", ""),
    Contender("fleet prefork", "prefork", "auto"),
    Contender("fleet prefork, merged", "prefork", "auto", merged=True),
    Contender("celery gevent", "gevent", ""),
    Contender("fleet gevent, without an image", "gevent", "off"),
    Contender("fleet gevent", "gevent", "auto"),
)
PAGES_AT_A_TIME = 2000
"""Of the kernel's search, every 20 ms; by itself it looks at a hundred."""


class Workers:
    """What runs. processes: the workers, their children, and the image."""

    before_weighing: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.row: dict[str, float] = {}

    def processes(self) -> list[psutil.Process]:
        """As they are now."""
        raise NotImplementedError

    def runners(self) -> list[psutil.Process]:
        """Those that run tasks."""
        raise NotImplementedError

    def measure(self, tasks: int) -> dict[str, float]:
        """Processor seconds until all are ready, memory then and after so many tasks."""
        found = self.processes()
        self.row["cpuSeconds"] = sum(one.cpu_times().user + one.cpu_times().system for one in found)
        self._weigh("AtRest")
        send(self.folder, self.url, tasks)
        self._weigh("AfterTasks")
        return self.row

    def _weigh(self, when: str) -> None:
        self.before_weighing()
        runners = self.runners()
        private = sum(one.memory_full_info().uss for one in runners)
        self.row[f"pssMiB{when}"] = figures.pss_bytes([one.pid for one in self.processes()]) / 2**20
        self.row[f"privateMiBEach{when}"] = private / len(runners) / 2**20


class OfFleet(Workers):
    """A fleet that has been applied."""

    def processes(self) -> list[psutil.Process]:
        supervisord = psutil.Process(int((self.folder / "home/image/run/supervisord.pid").read_text()))
        return [one for one in supervisord.children(recursive=True) if title(one).startswith(("bench", "image"))]

    def runners(self) -> list[psutil.Process]:
        found = self.processes()
        return [one for one in found if " slot " in title(one)] or [
            one for one in found if title(one).startswith("bench")
        ]

    def run(self, verb: str, *words: str) -> None:
        """A verb, and how long it takes."""
        began = time.monotonic()
        environ = {**os.environ, "FLEET_HOME": str(self.folder / "home")}
        command = [str(figures.BIN / "fleet"), verb, *words, "-y"]
        done = subprocess.run(command, cwd=self.folder, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: fleet {verb} ended with {done.returncode}:\n{done.stderr[-4000:]}")
        self.row[f"{verb}Seconds"] = time.monotonic() - began


class OfCelery(Workers):
    """Celery's own. started: without their children."""

    started: Sequence[subprocess.Popen[bytes]] = ()

    def processes(self) -> list[psutil.Process]:
        return [one for started in self.started for one in figures.tree(started.pid)]

    def runners(self) -> list[psutil.Process]:
        roots = {started.pid for started in self.started}
        found = self.processes()
        return [one for one in found if one.pid not in roots] or found


def title(process: psutil.Process) -> str:
    """What follows ``fleet:`` in the title of a process."""
    return (process.cmdline() or [""])[0].removeprefix("fleet: ")


@contextmanager
def fleet(contender: Contender, folder: Path, url: str) -> Iterator[Workers]:
    """A fleet, applied; what restarting and ending it takes is measured last."""
    merged = str(contender.merged).lower()
    text = MANIFEST.format(url=url, image=contender.image, pool=POOLS[contender.pool], merged=merged)
    (folder / "fleet.yaml").write_text(text)
    workers = OfFleet(folder, url)
    if contender.merged:
        workers.before_weighing = await_merging
    workers.run("apply", "fleet.yaml")
    try:
        yield workers
        workers.run("restart", "bench", "--fleet", "image")
    finally:
        workers.run("down", "--fleet", "image")


@contextmanager
def celery(contender: Contender, folder: Path, url: str) -> Iterator[Workers]:
    """As many of Celery's workers, or one with as many children."""
    words = [str(figures.BIN / "celery"), "-A", "shop", "-b", url, "worker", "-Q", "q", "-l", "WARNING", "-O", "fair"]
    words += ["-P", contender.pool, "-c", str(SLOTS[contender.pool])]
    count = 1 if contender.pool == "prefork" else WORKERS
    workers = OfCelery(folder, url)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    began = time.monotonic()
    workers.started = [
        subprocess.Popen([*words, "-n", f"bench{number}@%h"], cwd=folder, **quiet)  # type: ignore[call-overload]
        for number in range(count)
    ]
    try:
        with Redis.from_url(url) as server:
            figures.wait_until(
                lambda: sum(one["cmd"] == "brpop" for one in server.client_list()) >= count,
                what="Celery's workers wait for tasks",
            )
        workers.row["applySeconds"] = time.monotonic() - began
        yield workers
    finally:
        for one in workers.started:
            one.terminate()
        for one in workers.started:
            one.wait()


def send(folder: Path, url: str, tasks: int) -> None:
    """Have the workers run so many tasks; returns when the queue is empty."""
    text = f"import shop\nshop.app.conf.broker_url = {url!r}\nfor _ in range({tasks}): shop.noop.apply_async(queue='q')"
    subprocess.run([sys.executable, "-c", text], cwd=folder, check=True, capture_output=True)
    with Redis.from_url(url) as server:
        figures.wait_until(lambda: not server.llen("q"), what="all tasks are done")


@contextmanager
def merging() -> Iterator[None]:
    """While the kernel looks for equal pages; then as it was."""
    wanted = {"pages_to_scan": str(PAGES_AT_A_TIME), "run": "1"}
    before = {name: (KSM / name).read_text() for name in wanted}
    try:
        _set(wanted)
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        with suppress(OSError):  # how many pages at a time may be the kernel's own choice
            (KSM / name).write_text(value)


def await_merging() -> None:
    """Until all memory was looked at three times: a page that changed between two looks is left alone."""
    scans = KSM / "full_scans"
    end = int(scans.read_text()) + 3
    figures.wait_until(lambda: int(scans.read_text()) >= end, what="equal pages are merged")


def can_merge() -> bool:
    """Whether this account may turn the kernel's search on."""
    return os.access(KSM / "run", os.W_OK)


def measure(contender: Contender, tasks: int) -> dict[str, float]:
    """One life of one contender."""
    around = merging() if contender.merged else nullcontext()
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as name, servers.redis() as url, around:
        folder = Path(name)
        (folder / "shop.py").write_text(APP)
        with (fleet if contender.image else celery)(contender, folder, url) as workers:
            workers.measure(tasks)
        return workers.row


def main() -> None:
    """All in turns."""
    given = figures.arguments(__doc__, runs=3, choosable=True)
    tasks = 300 if given.quick else 3000
    chosen = [one for one in CONTENDERS if given.only in one.name and (can_merge() or not one.merged)]
    lives: dict[Contender, list[dict[str, float]]] = {one: [] for one in chosen}
    for _ in range(given.runs):
        for one in chosen:
            figures.wait_for_quiet()
            lives[one].append(measure(one, tasks))
    rows = []
    for one, measured in lives.items():
        row = {key: figures.spread([life[key] for life in measured], digits=2) for key in measured[0]}
        rows.append({"worker": one.name, **row})
        print(f"{one.name:30} " + ", ".join(f"{key} {spread['median']:.4g}" for key, spread in row.items()), flush=True)
    print(figures.write("image", {"workers": WORKERS, "tasks": tasks, "rows": rows}))


if __name__ == "__main__":
    main()
