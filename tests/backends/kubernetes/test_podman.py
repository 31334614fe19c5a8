"""Rendered pods, played with podman on this machine: probes, drains, kills, several replicas in one, secrets, metrics.

The image is made of this machine's Python and this tree. Skipped, with the reason, where podman runs no container.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fleet.backends.kubernetes import objects
from fleet.core.manifest.parse import from_document
from fleet.tasks import Tasks
from tests.conftest import eventually
from tests.podman import engine_or_skip, local_image, play

IMAGE = "localhost/fleet-test:1"
SECRET = "sk-s3cr3t-never-shown"
MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: podtest}}
spec:
  app: pod_app:tasks
  broker: {{url: {{secret: broker-url}}}}
  secrets: {{broker-url: {{env: NOWHERE}}, stripe: {{env: NOWHERE}}}}
  kubernetes:
    image: {image}
    namespace: shop
    metrics: port
    groups: {{solo: {{pack: 3}}}}
  defaults: {{drain: {{timeout: 100s}}, health: {{readyTimeout: 100s}}}}
  groups:
    solo: {{pool: solo, replicas: 3, queues: [pod-solo]}}
    mail:
      pool: {{type: threads, concurrency: 2}}
      replicas: 1
      queues: [pod-mail]
      secretEnv: {{STRIPE_KEY: stripe}}
"""
APP = """\
import json
import os
import time

import redis
from fleet import Tasks

tasks = Tasks("pods")
SEEN = ("STRIPE_KEY", "FLEET_SECRET_STRIPE", "FLEET_SECRET_BROKER_URL", "PYTHONPATH", "HOSTNAME")


@tasks.task
def note(number, gate=""):
    server = redis.Redis.from_url(os.environ["FLEET_BROKER_URL"])
    facts = {"number": number, "pid": os.getpid(), "uid": os.getuid(), **{one: os.environ.get(one) for one in SEEN}}
    server.rpush("pods:began", json.dumps(facts))
    while gate and not server.exists(gate):
        time.sleep(0.02)
    server.rpush("pods:done", number)
"""
LOOK = f"""\
import os, stat, sys
found = []
for folder, _, names in os.walk("/run/fleet"):
    for name in names:
        path = os.path.join(folder, name)
        if stat.S_ISREG(os.lstat(path).st_mode) and {SECRET!r} in open(path, errors="replace").read():
            found.append(oct(stat.S_IMODE(os.stat(path).st_mode)))
kinds = [line.split()[2] for line in open("/proc/mounts") if line.split()[1] == "/run/fleet"]
print(found, kinds)
"""


@pytest.fixture(scope="module")
def podman() -> list[str]:
    return engine_or_skip()


@pytest.fixture(scope="module")
def image(podman: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    app = tmp_path_factory.mktemp("app")
    (app / "pod_app.py").write_text(APP)
    local_image.make(podman, IMAGE, app)
    yield IMAGE
    subprocess.run([*podman, "rmi", "--force", IMAGE], capture_output=True, check=False)


class Shop:
    """The pods of the manifest, and what their tasks write down."""

    def __init__(self, player: Any, url: str) -> None:
        self.player = player
        self._tasks = Tasks("pods", broker=url)
        self.server = redis.Redis.from_url(url)
        self.server.delete(*(self.server.keys("pods:*") or ["pods:done"]))

    def pod(self, group: str) -> Any:
        (found,) = [one for one in self.player.workloads("Deployment") if one["metadata"]["name"] == f"podtest-{group}"]
        made = self.player.play(found)
        made.start_up()
        return made

    def send(self, group: str, number: int, gate: str = "") -> None:
        self._tasks.send("pod_app.note", [number, gate], queue=f"pod-{group}")

    def began(self, number: int) -> dict[str, Any]:
        """What a task saw when it began last."""

        return eventually(lambda: self.every(number))[-1]

    def every(self, number: int) -> list[dict[str, Any]]:
        """What it saw each time that it began so far."""
        told = [json.loads(one) for one in self.server.lrange("pods:began", 0, -1)]
        return [one for one in told if one["number"] == number]

    def done(self) -> list[int]:
        return sorted(int(one) for one in self.server.lrange("pods:done", 0, -1))


@pytest.fixture
def shop(podman: list[str], image: str, redis_url: str, tmp_path: Path) -> Iterator[Shop]:
    parsed = from_document(yaml.safe_load(MANIFEST.format(image=image)), name="given")
    made = [one for every in objects.files(parsed.manifest, parsed.document).values() for one in every]
    secrets = {"podtest-secrets": {"broker-url": redis_url, "stripe": SECRET}}
    with play.Player(podman, tmp_path, made, secrets) as player:
        yield Shop(player, redis_url)


def metrics(pod: Any) -> dict[tuple[str, str], float]:
    """What Prometheus gets from a pod: by metric and replica, or group."""
    with closing(http.client.HTTPConnection("127.0.0.1", pod.port, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    every = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(one.name, one.labels.get("replica") or one.labels.get("group", "")): one.value for one in every}


def drained(shop: Shop, pod: Any, gate: str) -> int:
    """Stop a pod that runs a task, which ends only when the pod drains already; the pod's exit code."""
    codes: list[int] = []
    stopping = threading.Thread(target=lambda: codes.append(pod.stop()))
    stopping.start()
    eventually(lambda: "draining" in pod.log())
    assert not codes, "it waits for its task"
    shop.server.set(gate, 1)
    stopping.join()
    return codes[0]


def test_a_pod_of_one_worker(shop: Shop) -> None:
    pod = shop.pod("mail")
    assert eventually(lambda: pod.probe("livenessProbe"))
    assert eventually(lambda: pod.probe("readinessProbe"))
    shop.send("mail", 1, gate="pods:killed")
    first = shop.began(1)
    assert first["uid"] == local_image.USER
    assert first["STRIPE_KEY"] == SECRET
    assert (first["FLEET_SECRET_STRIPE"], first["FLEET_SECRET_BROKER_URL"]) == (None, None)
    assert eventually(lambda: metrics(pod)["fleet_group_slots_busy", "mail"] == 1)

    assert pod.run("python3", "-c", LOOK).stdout.strip() == "['0o600'] ['tmpfs']", (
        "secrets lie in memory, for one account"
    )
    assert SECRET not in pod.log()

    pod.run("sh", "-c", f"kill -9 {first['pid']}")
    eventually(lambda: pod.state()["Running"] and pod.probe("readinessProbe") and len(shop.every(1)) > 1)
    pod.start_up()
    shop.server.set("pods:killed", 1)
    eventually(lambda: shop.done() == [1])

    shop.send("mail", 2, gate="pods:last")
    shop.began(2)
    assert drained(shop, pod, "pods:last") == 0
    assert shop.done() == [1, 2]


def test_a_pod_of_several_replicas(shop: Shop) -> None:
    pod = shop.pod("solo")
    assert eventually(lambda: metrics(pod).get(("fleet_group_slots", "solo")) == 3)
    for number in (1, 2, 3):
        shop.send("solo", number, gate="pods:open")
    seen = [shop.began(number) for number in (1, 2, 3)]
    assert len({one["pid"] for one in seen}) == 3
    assert {one["uid"] for one in seen} == {local_image.USER}
    assert {one["PYTHONPATH"] for one in seen} == {local_image.SITE}, "what the image sets is there"
    assert {one["FLEET_SECRET_BROKER_URL"] for one in seen} == {None}

    pod.run("sh", "-c", f"kill -9 {seen[0]['pid']}")
    eventually(lambda: len(shop.every(1)) > 1)
    assert shop.began(1)["pid"] != seen[0]["pid"]
    assert {shop.began(number)["pid"] for number in (2, 3)} == {one["pid"] for one in seen[1:]}, "the others work on"
    assert eventually(lambda: pod.probe("livenessProbe"))
    shop.server.set("pods:open", 1)
    eventually(lambda: shop.done() == [1, 2, 3])

    shop.send("solo", 4, gate="pods:end")
    shop.began(4)
    assert drained(shop, pod, "pods:end") == 0
    assert shop.done() == [1, 2, 3, 4]
