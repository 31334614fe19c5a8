"""The first process of a pod: what it makes of the mounted spec, and what it does for the program it runs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fleet import pod
from fleet.core.spec import BrokerSpec, HealthCheckSpec, PoolSpec, WaitSpec, WorkerSpec, digest, given_fields
from fleet.errors import FleetError
from fleet.replica import launch_document
from fleet.replica.pod_report import PATH, PodReport, report_of
from fleet.replica.record import read as read_record
from tests.conftest import eventually
from tests.servers import free_port

COMMAND = WorkerSpec("command", "shop", "other", workdir="/")
SECRETS = {"FLEET_SECRET_STRIPE_KEY": "hush", "FLEET_SECRET_BROKER_URL": "redis://:pw@redis/0"}


def written(folder: Path, spec: WorkerSpec) -> Path:
    path = folder / "spec.json"
    path.write_text(json.dumps(given_fields(spec)))
    return path


def around(folder: Path, **more: str) -> dict[str, str]:
    state = folder / "state"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FLEET_")}
    return {**inherited, "FLEET_HOME": str(state), "FLEET_RECORD": str(state / "other.rec"), "FLEET_POD": "p-1", **more}


@contextmanager
def running(folder: Path, spec: WorkerSpec, **more: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-P", "-m", "fleet.pod", str(written(folder, spec))]
    with subprocess.Popen(command, env=around(folder, **more), stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def healthy(environ: Mapping[str, str], probe: str) -> bool:
    command = [sys.executable, "-m", "fleet", "health", "--probe", probe]
    return subprocess.run(command, env=dict(environ), capture_output=True, check=False).returncode == 0


def test_the_document_holds_the_spec_and_values_of_secrets_from_the_environment(tmp_path: Path) -> None:
    broker = BrokerSpec(secret="broker-url")
    spec = replace(COMMAND, kind="worker", broker=broker, secret_env=(("KEY", "stripe-key", ""),))
    document = pod.document_of(written(tmp_path, spec), around(tmp_path, **SECRETS))
    assert (document.spec, document.digest) == (spec, digest(spec))
    assert document.broker_url == "redis://:pw@redis/0"
    assert document.secret("stripe-key") == "hush"
    assert document.replica.startswith("other.")


@pytest.mark.parametrize(("text", "message"), [("{", "not the spec"), ("{}", "not the spec"), (None, "cannot read")])
def test_a_wrong_spec_is_told_with_its_path(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(FleetError, match=f"{path}.*|{message}") as refused:
        pod.document_of(path, {})
    assert message in refused.value.message
    assert refused.value.hint


def test_a_secret_that_the_pod_does_not_have_is_named(tmp_path: Path) -> None:
    spec = replace(COMMAND, secret_env=(("KEY", "stripe-key", ""),))
    with pytest.raises(FleetError, match="stripe-key") as refused:
        pod.document_of(written(tmp_path, spec), around(tmp_path))
    assert "FLEET_SECRET_STRIPE_KEY" in refused.value.hint


def test_pods_have_names_of_their_own_and_keep_them() -> None:
    assert pod.pod_index("shop-mail-1") == pod.pod_index("shop-mail-1") != pod.pod_index("shop-mail-2")


def test_term_reaches_the_program_and_its_exit_code_is_the_pods(tmp_path: Path) -> None:
    script = "trap 'exit 7' TERM; echo $KEY ${FLEET_SECRET_STRIPE_KEY:-hidden}; while :; do sleep 0.2; done"
    spec = replace(COMMAND, command=("bash", "-c", script), secret_env=(("KEY", "stripe-key", ""),))
    with running(tmp_path, spec, **SECRETS) as process:
        assert first_line(process) == "hush hidden"
        environ = around(tmp_path)
        assert healthy(environ, "ready")
        assert healthy(environ, "live")
        document = tmp_path / "state" / "shop" / "run" / "specs" / "other.json"
        assert stat.S_IMODE(document.stat().st_mode) == 0o600
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 7
        assert not healthy(environ, "live")


def test_a_pod_tells_of_its_worker_while_that_lives(tmp_path: Path) -> None:
    port = free_port()
    spec = replace(COMMAND, command=("bash", "-c", "echo $$; exec sleep 1000"))
    with running(tmp_path, spec, FLEET_REPORT_PORT=str(port)) as process:
        program = int(first_line(process))
        eventually(lambda: told(port) is not None)
        report = told(port)
        assert report is not None
        assert not report.counts, "a program that says nothing of itself"
        os.kill(program, signal.SIGKILL)
        process.wait()
    with pytest.raises(OSError, match="refused"):
        told(port)


def told(port: int) -> PodReport | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with closing(connection):
        connection.request("GET", PATH)
        answer = connection.getresponse()
        return report_of(json.loads(answer.read())) if answer.status == 200 else None


@pytest.mark.parametrize(
    ("command", "code"), [(("true",), 0), (("false",), 1), (("bash", "-c", "kill -9 $$"), 137), (("no-such",), 127)]
)
def test_the_end_of_the_program_is_the_end_of_the_pod(command: tuple[str, ...], code: int, tmp_path: Path) -> None:
    with running(tmp_path, replace(COMMAND, command=command)) as process:
        assert process.wait() == code


def test_what_a_worker_can_apply_is_handed_to_it_and_nothing_else(tmp_path: Path) -> None:
    spec = WorkerSpec("worker", "shop", "other", pool=PoolSpec("threads", 2), app="shop:app")
    source = written(tmp_path, spec)
    document = pod.document_of(source, around(tmp_path))
    live, lasting = replace(spec, pool=PoolSpec("threads", 5)), replace(spec, env=(("A", "b"),))
    assert pod.renewed(source, document) is document
    written(tmp_path, lasting)
    assert pod.renewed(source, document) is document
    assert not document.path.exists()
    source.write_text("{")
    assert pod.renewed(source, document) is document
    written(tmp_path, live)
    assert pod.renewed(source, document).spec == live
    assert launch_document.read(document.path).spec == live


def test_a_health_check_is_made_with_what_the_program_has(tmp_path: Path) -> None:
    check = HealthCheckSpec(("sh", "-c", 'test "$A" = b && test ! -e sick'))
    spec = replace(COMMAND, command=("sh", "-c", "echo up; exec sleep 1000"), env=(("A", "b"),), health_check=check)
    spec = replace(spec, workdir=str(tmp_path))
    document = tmp_path / "state" / "shop" / "run" / "specs" / "other.json"

    def checked(probe: str) -> tuple[int, str]:
        words = [sys.executable, "-P", "-m", "fleet.replica.health_check", str(document), probe]
        done = subprocess.run(words, env=around(tmp_path), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip()

    with running(tmp_path, spec) as process:
        assert first_line(process) == "up"
        assert checked("live") == (0, "")
        (tmp_path / "sick").touch()
        assert checked("ready") == (1, "exit code 1")
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM


def test_a_pod_waits_for_what_is_outside(tmp_path: Path) -> None:
    spec = replace(COMMAND, command=("true",), wait_for=WaitSpec((f"unix://{tmp_path}/none",), 0.1))
    with running(tmp_path, spec) as process:
        assert process.wait() == 1
    spec = replace(spec, wait_for=WaitSpec(spec.wait_for.urls, 1000.0))
    record = tmp_path / "state" / "other.rec"
    record.unlink()
    with running(tmp_path, spec) as process:
        assert eventually(lambda: (view := read_record(record)) is not None and view.note.startswith("waits for unix:"))
        process.terminate()
        assert process.wait() == 128 + signal.SIGTERM
