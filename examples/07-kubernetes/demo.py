"""The shop's pods on this machine: rendered as for a cluster, played with podman. `make demo-kubernetes` runs this.

An image is made of this machine's Python, fleet and the shop; a Redis is started for the broker. The pods get real
work, one of their processes is killed, and all of them drain at the end. Only the image is left behind.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import local_image
import play

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MANIFESTS = ("manifests/prod.yaml", "examples/07-kubernetes/cluster.yaml", "examples/07-kubernetes/demo.yaml")
IMAGE = "localhost/fleet-demo-shop:1"
SECRET = "only-in-the-demo"
RENDER = (sys.executable, "-m", "fleet", "render", "--target", "kubernetes")


def say(text: str) -> None:
    print(text, flush=True)


def step(text: str) -> None:
    say(f"\n== {text}")


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """A Redis of its own on the loopback; its URL. Raises CannotPlay."""
    server = shutil.which("redis-server") or shutil.which("valkey-server")
    if server is None:
        raise play.CannotPlay("there is no Redis for the broker; as root: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen([server, *words], stdout=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


def wait_for_port(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"nothing answers on port {port}")


def rendered(out: Path, state: Path) -> list[dict[str, Any]]:
    """The objects of the shop, written as for a cluster."""
    say(f"$ fleet render --target kubernetes {' '.join(MANIFESTS)} --out {out}")
    environ = {**os.environ, "SHOP_STATE": str(state)}
    subprocess.run([*RENDER, *MANIFESTS, "--out", str(out)], cwd=ROOT, env=environ, check=True)
    return play.objects_in(out)


def shown(pods: list[Any]) -> None:
    """A line for each pod, as `fleet health` says in it."""
    for pod in pods:
        done = pod.run(*HEALTH)
        replicas = json.loads(done.stdout or '{"replicas": []}')["replicas"]
        slots, busy = (sum(one.get(name) or 0 for one in replicas) for name in ("slots", "busy"))
        conditions = sorted({one["condition"] for one in replicas})
        count = f"{len(replicas)} replicas" if len(replicas) > 1 else "1 replica"
        say(f"  {pod.name:<18} {count:<11} {busy:>2} of {slots:>2} slots busy   {', '.join(conditions)}")


HEALTH = ("python3", "-P", "-m", "fleet", "health", "-o", "json")


def tried(player: Any, url: str, state: Path, share: float) -> bool:
    """Everything that is shown; whether it went well."""
    step("the Job first, then what waits for it")
    for job in player.workloads("Job"):
        pod = player.play(job)
        code = pod.wait()
        say(f"  {pod.name}: exit code {code}")
        if code:
            say(pod.log())
            return False
    step("the Deployments: one pod of each, as many replicas in it as its pack")
    pods = [player.play(one) for one in player.workloads("Deployment")]
    for workload in player.workloads("Deployment"):
        for what in play.needs_cluster(workload):
            say(f"  {workload['metadata']['name']}: without {what}, which needs an API server")
    with ThreadPoolExecutor(len(pods)) as threads:
        list(threads.map(lambda pod: pod.start_up(), pods))
    shown(pods)

    step("work, and its results")
    environ = {**os.environ, "FLEET_BROKER_URL": url, "SHOP_STATE": str(state)}
    send = subprocess.Popen([sys.executable, "examples/shop/send.py", "--share", str(share)], cwd=ROOT, env=environ)
    (packed,) = [pod for pod in pods if "fleet.packed_pod" in pod.container["command"]]
    victim = next(one for one in json.loads(packed.run(*HEALTH).stdout)["replicas"] if one.get("pid"))
    packed.run("sh", "-c", f"kill -9 {victim['pid']}")
    say(f"killed {victim['name']} in {packed.name}: fleet in the pod starts it again, and the others work on")
    good = send.wait() == 0
    packed.start_up()
    shown(pods)

    step(f"what Prometheus would scrape from {packed.name}")
    with urllib.request.urlopen(f"http://127.0.0.1:{packed.port}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    for line in lines:
        if line.startswith(("fleet_group_", "fleet_tasks_total")) and not line.endswith(" 0.0"):
            say(f"  {line}")

    step("TERM: every pod drains")
    with ThreadPoolExecutor(len(pods)) as threads:
        codes = list(threads.map(lambda pod: pod.stop(), pods))
    for pod, code in zip(pods, codes, strict=True):
        ended_by_term = code == 128 + signal.SIGTERM  # a command that does not listen to it, as the partner
        say(f"  {pod.name}: exit code {code}{' (by TERM)' if ended_by_term else ''}")
        good = good and (code == 0 or ended_by_term)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--share", type=float, default=0.25, help="part of the usual number of tasks (default 0.25)")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fleet-demo-"))
    try:
        command = play.engine()
        with redis(folder) as url:
            began = time.monotonic()
            step(f"an image of this machine's Python, fleet and the shop: {IMAGE}")
            local_image.make(command, IMAGE, ROOT / "examples" / "shop", extras=("celery", "gevent"))
            state = folder / "state"
            state.mkdir()
            folder.chmod(0o755)
            state.chmod(0o777)
            step("the same manifest, as objects of a cluster")
            objects = rendered(folder / "rendered", state)
            keys = {"broker-url": url, "broker-password": ""}
            secrets = {"shop-secrets": keys, "payment": {"stripe": SECRET}}
            with play.Player(command, folder / "mounted", objects, secrets, state) as player:
                good = tried(player, url, state, args.share)
            say(f"\n{'all right' if good else 'NOT all right'}, after {time.monotonic() - began:.0f} s")
            return 0 if good else 1
    except play.CannotPlay as problem:
        say(f"the demo cannot run: {problem}")
        say("docs/kubernetes.md tells what it would show; `fleet render --target kubernetes` needs no podman")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
