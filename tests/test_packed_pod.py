"""A pod with several replicas: what its first process keeps, tells and ends. Real workers and a real Redis."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from fleet import packed_pod
from fleet.backends.kubernetes import objects
from fleet.core.manifest.parse import from_document
from fleet.replica.pod_report import METRICS_PATH, PATH, PodReport, report_of
from fleet.tasks import Tasks
from tests.conftest import eventually
from tests.servers import free_port

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  app: packed_app:tasks
  broker: {{url: {{secret: broker-url}}}}
  secrets: {{broker-url: {{env: NOWHERE}}}}
  kubernetes: {{image: shop:1, workdir: "{workdir}", metrics: port, groups: {{solo: {{pack: 3}}}}}}
  groups:
    solo: {{pool: solo, replicas: 6, queues: [{queues}], drain: {{timeout: 60s}}, logging: {{level: {level}}}}}
"""
APP = """\
import os
import pathlib
import time

from fleet import Tasks

tasks = Tasks("packed")


@tasks.task
def note(folder, number, gate=""):
    folder = pathlib.Path(folder)
    seen = [os.environ.get(name) for name in ("OF_IMAGE", "FLEET_SECRET_BROKER_URL")]
    (folder / f"{number}.began").write_text(f"{os.getpid()} {seen[0]} {seen[1]}")
    while gate and not os.path.exists(gate):
        time.sleep(0.02)
    with open(folder / f"{number}.done", "a") as done:
        done.write("x")
"""


@dataclass
class Pod:
    """One pod as the kubelet sees it: a process, a mounted file, a port."""

    folder: Path
    url: str
    queue: str
    port: int
    process: subprocess.Popen[str]

    @property
    def home(self) -> Path:
        return self.folder / "state" / "home"

    def send(self, number: int, gate: str = "") -> None:
        Tasks("packed", broker=self.url).send("packed_app.note", [str(self.folder), number, gate], queue=self.queue)

    def asked(self, path: str) -> bytes | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with closing(connection):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.read() if answer.status == 200 else None
            except OSError:
                return None

    def report(self) -> PodReport | None:
        told = self.asked(PATH)
        return None if told is None else report_of(json.loads(told))

    def metric(self, name: str) -> dict[tuple[str, ...], float]:
        """Values of a metric by its labels but the fleet."""
        text = (self.asked(METRICS_PATH) or b"").decode()
        every = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {
            tuple(value for label, value in sorted(one.labels.items()) if label != "fleet"): one.value
            for one in every
            if one.name == name
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """As ``kubectl exec`` does."""
        command = [sys.executable, "-P", "-m", *words]
        return subprocess.run(command, env=environ(self.folder, self.url), capture_output=True, text=True, check=False)

    def replicas(self, *probe: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run("fleet", "health", "-o", "json", *probe).stdout)["replicas"]
        return found


def environ(folder: Path, url: str, **more: str) -> dict[str, str]:
    home = folder / "state" / "home"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    return {
        **inherited,
        "FLEET_HOME": str(home),
        "FLEET_RECORDS": str(home / "shop" / "run" / "records" / "solo"),
        "FLEET_LOG_BYTES": str(1 << 20),
        "FLEET_POD": "shop-solo-1",
        "FLEET_SECRET_BROKER_URL": url,
        "OF_IMAGE": "set in the Dockerfile",
        **more,
    }


def mount(folder: Path, *queues: str, level: str = "INFO") -> None:
    """What the ConfigMap holds, where the kubelet puts it."""
    text = MANIFEST.format(workdir=folder, queues=", ".join(queues), level=level)
    parsed = from_document(yaml.safe_load(text), name="given")
    (config,) = [
        one for one in objects.files(parsed.manifest, parsed.document)["group-solo.yaml"] if one["kind"] == "ConfigMap"
    ]
    fresh = folder / "..fleet.json"
    fresh.write_text(config["data"]["fleet.json"])
    fresh.replace(folder / "fleet.json")


@contextmanager
def running(folder: Path, url: str, queue: str) -> Iterator[Pod]:
    (folder / "packed_app.py").write_text(APP)
    (folder / "state").mkdir(mode=0o777)
    (folder / "state").chmod(0o777)  # as the kubelet makes volumes
    mount(folder, queue)
    port = free_port()
    command = [sys.executable, "-P", "-m", "fleet.packed_pod", str(folder / "fleet.json")]
    around = environ(folder, url, FLEET_REPORT_PORT=str(port))
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, env=around, stdout=log, stderr=subprocess.STDOUT, text=True) as process,
    ):
        try:
            yield Pod(folder, url, queue, port, process)
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def test_the_replicas_of_a_pod_from_its_start_to_its_drain(short_tmp: Path, redis_url: str) -> None:
    with running(short_tmp, redis_url, "packed") as pod:
        eventually(lambda: pod.run("fleet", "health", "--probe", "ready", "--least", "3").returncode == 0)
        replicas = pod.replicas()
        first = packed_pod.first_index({"FLEET_POD": "shop-solo-1"})
        assert [one["name"] for one in replicas] == [f"solo.{first + number}" for number in range(3)]
        assert eventually(lambda: (seen := pod.report()) is not None and (seen.slots, seen.state) == (3, "ready"))

        for number in range(3):
            pod.send(number, gate=str(short_tmp / "gate"))
        eventually(lambda: len(list(short_tmp.glob("*.began"))) == 3)
        began = [path.read_text().split(maxsplit=1) for path in short_tmp.glob("*.began")]
        assert {int(pid) for pid, _ in began} == {one["pid"] for one in replicas}, "one task in each replica"
        assert {rest for _, rest in began} == {"set in the Dockerfile None"}, "the image's variables, and no secret"
        assert eventually(lambda: (seen := pod.report()) is not None and seen.busy == 3)
        assert pod.metric("fleet_group_slots_busy") == {("solo",): 3.0}
        assert set(pod.metric("fleet_replica_ready").values()) == {1.0}

        victim = int(began[0][0])
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: victim not in {one["pid"] for one in pod.replicas()})
        assert pod.run("fleet", "health", "--least", "1").returncode == 0, "the others work on, and the pod stays"
        (short_tmp / "gate").touch()
        eventually(lambda: len(list(short_tmp.glob("*.done"))) == 3)
        eventually(lambda: pod.run("fleet", "health", "--probe", "ready", "--least", "3").returncode == 0)
        assert eventually(lambda: (seen := pod.report()) is not None and (seen.busy, seen.ended) == (0, 3))

        for word, held in (("on", True), ("off", False)):
            assert pod.run("fleet.replica.hold", word).stdout == "done\n"
            assert eventually(lambda held=held: {one["condition"] == "held" for one in pod.replicas()} == {held})

        mount(short_tmp, "packed", "late")
        pod.queue = "late"
        before = {one["pid"] for one in pod.replicas()}
        pod.send(3)
        eventually(lambda: (short_tmp / "3.done").exists())
        assert {one["pid"] for one in pod.replicas()} == before, "another queue is taken up without a restart"

        pod.send(4, gate=str(short_tmp / "last"))
        eventually(lambda: (short_tmp / "4.began").exists())
        pod.process.terminate()
        eventually(lambda: "draining; a second signal" in (short_tmp / "log").read_text())
        (short_tmp / "last").touch()
        assert pod.process.wait() == 0
        assert [path.read_text() for path in sorted(short_tmp.glob("*.done"))] == ["x"] * 5, "each task once"


def test_what_is_no_manifest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert packed_pod.main([str(tmp_path / "none.json")]) == 1
        (tmp_path / "odd.json").write_text("[]")
        assert packed_pod.main([str(tmp_path / "odd.json")]) == 1
        assert packed_pod.main([]) == 64
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    said = capsys.readouterr().err
    assert said.count("hint: mount the ConfigMap") == 2
    assert "usage:" in said


def test_no_two_pods_have_a_replica_of_the_same_name() -> None:
    one, other = (packed_pod.first_index({"FLEET_POD": name}) for name in ("shop-solo-1", "shop-solo-2"))
    assert abs(one - other) >= packed_pod.MOST_REPLICAS
    assert one == packed_pod.first_index({"FLEET_POD": "shop-solo-1"})
