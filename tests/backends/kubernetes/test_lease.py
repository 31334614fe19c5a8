"""A program that must never run twice, and the Lease that its pod holds meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fleet import pod
from fleet.backends.kubernetes import objects
from fleet.backends.kubernetes.client import Cluster, Place
from fleet.backends.kubernetes.leader import Leadership
from fleet.core.manifest.parse import from_document
from fleet.core.spec import WorkerSpec, digest
from fleet.replica.launch_document import LaunchDocument
from tests.backends.kubernetes.stand_in import StandIn
from tests.conftest import eventually

GROUPS = {
    "beat": ("{command: [beat], replicas: 1, rollout: {strategy: recreate}}", True),
    "two": ("{command: [beat], replicas: 2, rollout: {strategy: recreate}}", False),
    "rolls": ("{command: [web], replicas: 1}", False),
    "job": ("{command: [once], job: true}", False),
    "worker": ("{pool: solo, replicas: 1, queues: [q], rollout: {strategy: recreate}}", False),
    "asked": ("{command: [web], replicas: 1}", True),
    "refused": ("{command: [beat], replicas: 1, rollout: {strategy: recreate}}", False),
}


def test_beat_and_its_like_are_guarded_and_nothing_else_unless_it_is_asked_for() -> None:
    text = (
        "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\n"
        "spec:\n  app: shop:app\n  broker: {url: redis://redis/0}\n"
        "  kubernetes: {image: shop:1, groups: {asked: {lease: true}, refused: {lease: false}}}\n  groups:\n"
    ) + "".join(f"    {name}: {text}\n" for name, (text, _) in GROUPS.items())
    made = objects.files(from_document(yaml.safe_load(text), name="given").manifest)
    for name, (_, is_guarded) in GROUPS.items():
        owner = next(one for one in made[f"group-{name}.yaml"] if one["kind"] in ("Deployment", "Job"))
        container = owner["spec"]["template"]["spec"]["containers"][0]
        leases = [one["value"] for one in container["env"] if one["name"] == "FLEET_LEASE"]
        assert leases == ([f"shop-{name}-one"] if is_guarded else []), name
        assert any(one["name"] == "api-token" for one in container["volumeMounts"]) == is_guarded
    roles = [one for one in made["fleet.yaml"] if one["kind"] == "Role"]
    assert [one["rules"][0]["resources"] for one in roles] == [["leases"]]


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[StandIn, Cluster]]:
    with StandIn() as api:
        monkeypatch.setenv("KUBECONFIG", str(api.write_kubeconfig(tmp_path / "kubeconfig")))
        yield api, Cluster(Place("here", "shop"))


def guard(cluster: Cluster, holder: str, clock: list[float] | None = None) -> Leadership:
    moment = clock or [0.0]
    return Leadership(
        cluster, name="shop-beat-one", fleet="shop", holder=holder, monotonic=lambda: moment[0], seconds=30
    )


def document(folder: Path) -> LaunchDocument:
    spec = WorkerSpec("command", "shop", "beat", workdir="/")
    return LaunchDocument(
        path=folder / "beat.json", fleet="shop", replica="beat.1", digest=digest(spec), spec=spec, secrets={},
        record=folder / "beat.rec", starts=folder / "beat.starts",
    )  # fmt: skip


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Signals as the pod's first process has them, and looks that follow each other at once."""
    monkeypatch.setattr(pod, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(pod, "LEASE_LOOK_SECONDS", 0.02)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def program(script: str) -> int:
    """A child that no Popen reaps."""
    return os.posix_spawn(sys.executable, [sys.executable, "-c", script], os.environ, setsigmask=[])


def test_a_pod_waits_while_another_holds_the_lease_and_begins_when_that_one_is_silent(
    cluster: tuple[StandIn, Cluster], tmp_path: Path, quick: None, capfd: pytest.CaptureFixture[str]
) -> None:
    api, door = cluster
    assert guard(door, "old").look()
    clock = [0.0]
    waiting = guard(door, "new", clock)

    def pass_time() -> None:
        eventually(lambda: waiting.held_by == "old")
        clock[0] += 31

    thread = threading.Thread(target=pass_time)
    thread.start()
    assert pod.wait_for_lead(waiting, document(tmp_path)) == 0
    thread.join()
    assert "waits for the Lease shop-beat-one, which old holds" in capfd.readouterr().err
    lease = api.get("leases", "shop-beat-one")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "new"


def test_a_pod_that_waits_ends_when_it_is_told_to(
    cluster: tuple[StandIn, Cluster], tmp_path: Path, quick: None
) -> None:
    _, door = cluster
    assert guard(door, "old").look()
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # blocked, so it waits to be taken
    assert pod.wait_for_lead(guard(door, "new"), document(tmp_path)) == signal.SIGTERM


@pytest.mark.parametrize(("script", "code"), [("import time; time.sleep(1000)", 143), ("TERM", 137)])
def test_a_pod_that_cannot_renew_ends_its_program_before_another_may_begin(
    script: str, code: int, cluster: tuple[StandIn, Cluster], tmp_path: Path, quick: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if script == "TERM":  # a program that does not listen
        ready = tmp_path / "ready"
        script = (
            "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            f" pathlib.Path({str(ready)!r}).touch(); time.sleep(1000)"
        )
        monkeypatch.setattr(pod, "END_SECONDS", 0.05)
        child = program(script)
        eventually(ready.exists)
    else:
        child = program(script)
    api, door = cluster
    clock = [0.0]
    own = guard(door, "own", clock)
    assert own.look()
    api.forbidden.add(("update", "leases"))
    clock[0] += 14
    assert pod.look_after(child, tmp_path / "spec.json", document(tmp_path), own) == code
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_program_that_ends_gives_the_lease_back(
    cluster: tuple[StandIn, Cluster], tmp_path: Path, quick: None
) -> None:
    _, door = cluster
    own = guard(door, "own")
    assert own.look()
    assert pod.look_after(program("raise SystemExit(3)"), tmp_path / "spec.json", document(tmp_path), own) == 3
    assert guard(door, "next").look(), "nobody has to wait for it"


def test_outside_of_a_cluster_a_guarded_program_does_not_start(tmp_path: Path) -> None:
    spec = tmp_path / "spec.json"
    spec.write_text('{"kind": "command", "fleet": "shop", "group": "beat", "command": ["true"], "workdir": "/"}')
    environ = {**os.environ, "FLEET_HOME": str(tmp_path / "state"), "FLEET_LEASE": "shop-beat-one"}
    command = [sys.executable, "-P", "-m", "fleet.pod", str(spec)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no token for the Lease shop-beat-one" in done.stderr
