"""Workers with an image and without: time to ready, processor time and memory, in runs that alternate.

    python -m bench.image --workers 10 --rounds 2

Ten solo workers, and one prefork worker with ten children, each at rest and after 3000 tasks that do nothing. The app
imports numpy, pydantic and requests where they are installed. Needs a Redis server program.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

APP = """
import importlib.util
for name in ("numpy", "pydantic", "requests"):
    if importlib.util.find_spec(name):
        importlib.import_module(name)
import celery
app = celery.Celery("shop")
@app.task(ignore_result=True)
def noop(): pass
"""
MANIFEST = """
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: image}}
spec:
  app: shop:app
  broker: embedded
  release: {{workdir: ., image: "{image}"}}
  groups:
    {group}
"""
REST = "queues: [q], health: {{readyTimeout: 10m}}"
SOLO = f"bench: {{{{pool: solo, replicas: {{workers}}, {REST}}}}}"
PREFORK = f"bench: {{{{pool: {{{{type: prefork, concurrency: {{workers}}}}}}, replicas: 1, {REST}}}}}"
TASKS = 3000
DONE = """
import sys, time
sys.path.insert(0, ".")
import redis, shop
shop.app.conf.broker_url = f"redis+socket://{sys.argv[1]}"
for number in range(int(sys.argv[2])):
    shop.noop.apply_async(queue="q")
server = redis.Redis(unix_socket_path=sys.argv[1])
while server.llen("q"):
    time.sleep(0.1)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    for _ in range(given.rounds):
        for image, group in (("off", SOLO), ("auto", SOLO), ("off", PREFORK)):
            print(json.dumps(measured(image, group.format(workers=given.workers), given.workers)), flush=True)


def measured(image: str, group: str, workers: int) -> dict[str, object]:
    """Seconds of apply, restart and down; processor seconds when all are ready; memory then and after the tasks."""
    with fleet(image, group) as folder:
        load = os.getloadavg()[0]
        apply = timed(folder, "apply", "fleet.yaml", "-y")
        found = processes(folder)
        cpu = sum(one.cpu_times().user + one.cpu_times().system for one in found)
        at_rest = memory(found)
        send(folder, TASKS)
        after_tasks = memory(found)
        restart = timed(folder, "restart", "bench", "--fleet", "image", "-y")
        down = timed(folder, "down", "--fleet", "image", "-y")
    return {
        "python": ".".join(map(str, sys.version_info[:3])),
        "image": image,
        "pool": "prefork" if "prefork" in group else "solo",
        "workers": workers,
        "load before": round(load, 1),
        "apply s": apply,
        "cpu s": round(cpu, 2),
        **{f"{name} at rest": value for name, value in at_rest.items()},
        **{f"{name} after {TASKS} tasks": value for name, value in after_tasks.items()},
        "restart s": restart,
        "down s": down,
    }


@contextmanager
def fleet(image: str, group: str) -> Iterator[Path]:
    """The folder of a fleet that is not applied yet."""
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "shop.py").write_text(APP)
        (folder / "fleet.yaml").write_text(MANIFEST.format(image=image, group=group))
        yield folder


def processes(folder: Path) -> list[psutil.Process]:
    """The workers, their children, and the image."""
    supervisord = psutil.Process(int((folder / "home/image/run/supervisord.pid").read_text()))
    return [one for one in supervisord.children(recursive=True) if title(one).startswith(("bench", "image"))]


def title(process: psutil.Process) -> str:
    """What follows ``fleet:`` in the title of a process."""
    return process.cmdline()[0].removeprefix("fleet: ")


def memory(found: Sequence[psutil.Process]) -> dict[str, float]:
    """MiB: PSS of all together; the private pages of one that runs tasks, on average."""
    children = [one for one in found if " slot " in title(one)]
    runners = children or [one for one in found if title(one).startswith("bench")]
    private = sum(one.memory_full_info().uss for one in runners)
    return {
        "PSS MiB": round(sum(one.memory_full_info().pss for one in found) / 2**20),
        "private MiB each": round(private / len(runners) / 2**20, 1),
    }


def send(folder: Path, tasks: int) -> None:
    """Have the workers run so many tasks; returns when the queue is empty."""
    words = [sys.executable, "-c", DONE, str(folder / "home/image/run/broker.sock"), str(tasks)]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)


def timed(folder: Path, *words: str) -> float:
    """Seconds that the command took."""
    began = time.monotonic()
    environ = {**os.environ, "FLEET_HOME": str(folder / "home")}
    subprocess.run([sys.executable, "-m", "fleet", *words], cwd=folder, env=environ, check=True, capture_output=True)
    return round(time.monotonic() - began, 2)


if __name__ == "__main__":
    main()
