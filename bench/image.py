"""Solo workers with an image and without: time to ready, processor time and memory, in runs that alternate.

    python -m bench.image --workers 10 --rounds 2

The app imports numpy, pydantic and requests where they are installed. Needs a Redis server program.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
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
    solo: {{pool: solo, replicas: {workers}, queues: [q], health: {{readyTimeout: 10m}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    for _ in range(given.rounds):
        for image in ("off", "auto"):
            print(json.dumps(measured(image, given.workers)), flush=True)


def measured(image: str, workers: int) -> dict[str, object]:
    """Seconds of apply, restart and down; processor seconds and PSS of workers and image, when all are ready."""
    with tempfile.TemporaryDirectory(prefix="fl-", dir="/tmp") as name:
        folder = Path(name)
        (folder / "shop.py").write_text(APP)
        (folder / "fleet.yaml").write_text(MANIFEST.format(image=image, workers=workers))
        load = os.getloadavg()[0]
        apply = timed(folder, "apply", "fleet.yaml", "-y")
        supervisord = psutil.Process(int((folder / "home/image/run/supervisord.pid").read_text()))
        found = [one for one in supervisord.children() if one.cmdline()[0].startswith(("fleet: solo", "fleet: image"))]
        cpu = sum(one.cpu_times().user + one.cpu_times().system for one in found)
        pss = sum(one.memory_full_info().pss for one in found)
        solos = [one.memory_full_info().uss for one in found if one.cmdline()[0].startswith("fleet: solo")]
        restart = timed(folder, "restart", "solo", "--fleet", "image", "-y")
        down = timed(folder, "down", "--fleet", "image", "-y")
        return {
            "image": image,
            "workers": workers,
            "load before": round(load, 1),
            "apply s": apply,
            "cpu s": round(cpu, 2),
            "pss MiB": round(pss / 2**20),
            "private MiB each": round(sum(solos) / len(solos) / 2**20, 1),
            "restart s": restart,
            "down s": down,
        }


def timed(folder: Path, *words: str) -> float:
    """Seconds that the command took."""
    began = time.monotonic()
    environ = {**os.environ, "FLEET_HOME": str(folder / "home")}
    subprocess.run([sys.executable, "-m", "fleet", *words], cwd=folder, env=environ, check=True, capture_output=True)
    return round(time.monotonic() - began, 2)


if __name__ == "__main__":
    main()
