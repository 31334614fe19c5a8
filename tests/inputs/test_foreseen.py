"""What fails for sure is told before anything is started."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.core.desired import Desired, DesiredGroup
from fleet.core.spec import BrokerSpec, HealthCheckSpec, Kind, WorkerSpec
from fleet.inputs.foreseen import foreseen


def desired(spec: WorkerSpec, replicas: int = 1) -> Desired:
    return Desired("shop", {spec.group: DesiredGroup(spec.group, spec, (1,) * replicas)})


def command(*words: str, workdir: str = "/", **more: object) -> WorkerSpec:
    return WorkerSpec("command", "shop", "web", command=words, workdir=workdir, **more)  # type: ignore[arg-type]


def told(spec: WorkerSpec) -> list[tuple[str, str]]:
    return [(one.path, one.message) for one in foreseen(desired(spec), {})]


def test_a_program_is_looked_for_as_the_launcher_does(tmp_path: Path) -> None:
    program = tmp_path / "serve"
    program.write_text("#!/bin/sh\n")
    assert told(command("serve", env=(("PATH", str(tmp_path)),)))[0][0] == "spec.groups.web.command"
    program.chmod(0o755)
    assert told(command("serve", env=(("PATH", str(tmp_path)),))) == []
    assert told(command("./serve", workdir=str(tmp_path))) == []
    assert told(command("serve", python=str(tmp_path / "python"))) == []
    assert "not found in PATH" in told(command("no-such-program-at-all"))[0][1]


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.write_text("x"), "it is not executable"),
        (lambda path: path.mkdir(), "it is no file"),
        (lambda path: None, "there is no such file"),
        (lambda path: path.touch(0o755) or path.write_text("#!/no/such/python -E\n"), "/no/such/python"),
    ],
)
def test_why_a_program_cannot_be_run(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    make(tmp_path / "serve")
    (message,) = [message for _, message in told(command("./serve", workdir=str(tmp_path)))]
    assert why in message


@pytest.mark.parametrize("kind", ["worker", "celery", "command"])
def test_the_program_of_a_health_check_is_looked_for_too(kind: Kind) -> None:
    spec = replace(command("true"), kind=kind, health_check=HealthCheckSpec(("no-such-program-at-all",)))
    ((path, message),) = told(spec)
    assert (path, "not found in PATH" in message) == ("spec.groups.web.health.command", True)
    assert told(replace(spec, health_check=HealthCheckSpec(("true",)))) == []
    assert told(replace(spec, health_check=HealthCheckSpec(port=1))) == []


def test_folder_and_interpreter_of_a_worker(tmp_path: Path) -> None:
    worker = WorkerSpec("worker", "shop", "w", workdir=str(tmp_path / "gone"), python="/bin/sh")
    assert [path for path, _ in told(worker)] == ["spec.release.workdir"]
    worker = WorkerSpec("worker", "shop", "w", workdir=str(tmp_path), python="/no/python")
    assert [path for path, _ in told(worker)] == ["spec.release.python"]
    assert told(command("/bin/sh", python="/no/python")) == []


def test_nothing_is_told_of_a_group_without_replicas_or_outside_what_is_asked_for() -> None:
    spec = command("no-such-program-at-all")
    assert foreseen(desired(spec, replicas=0), {}) == []
    assert foreseen(desired(spec), {}, only=set()) == []


def test_a_broker_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        there = f"amqp://user:pass@127.0.0.1:{port}//"
        assert told(WorkerSpec("worker", "shop", "w", broker=BrokerSpec(there))) == []
        listed = BrokerSpec(f"amqp://127.0.0.1:1//;{there}")
        assert told(WorkerSpec("worker", "shop", "w", broker=listed)) == []
    ((path, message),) = told(WorkerSpec("worker", "shop", "w", broker=BrokerSpec("redis://u:secret@127.0.0.1:1/0")))
    assert path == "spec.broker.url"
    assert "secret" not in message
    secret = WorkerSpec("worker", "shop", "w", broker=BrokerSpec(secret="url"))
    (one,) = foreseen(desired(secret), {"url": "redis://u:hidden@127.0.0.1:1/0"})
    assert "the secret url" in one.message
    assert "hidden" not in one.message


@pytest.mark.parametrize("url", ["memory://", "sqs://", "filesystem:///tmp", "redis+socket:///run/x.sock", "nonsense"])
def test_other_brokers_are_not_asked(url: str) -> None:
    assert told(WorkerSpec("worker", "shop", "w", broker=BrokerSpec(url))) == []
