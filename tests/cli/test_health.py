"""fleet health: which replicas it looks at, what it says of them, and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.cli.verbs.health import RECORD_VARIABLE
from fleet.core.spec import HealthCheckSpec
from fleet.replica import process_identity
from fleet.replica.health_result import HealthResult, result_file, result_text
from fleet.replica.record import Record, read, set_hold
from fleet.state.files import write_whole
from fleet.state.paths import Places
from tests.cli.conftest import Desk

Words = tuple[str, ...]


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    """The record of this very process, as a worker's."""
    made = Record(tmp_path / "thumbs.0.rec", digest="9f31c2ab", slots=1)
    made.line_up, made.consumed_at = True, time.time()
    made.become("ready")
    yield made
    made.close()


def test_a_record_is_enough(desk: Desk, record: Record) -> None:
    said = desk.fleet("health", "--record", str(record.path))

    assert said.out.splitlines()[0].split() == ["NAME", "PID", "CONDITION", "BUSY", "HEARTBEAT", "WHY"]
    assert said.out.splitlines()[1].split()[:4] == ["thumbs.0", str(os.getpid()), "ready", "0/1"]


def test_inside_a_replica_its_own_record_is_meant(desk: Desk, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RECORD_VARIABLE, str(record.path))
    record.begin(0, task_id="id-1", task_name="shop.thumb", until=time.time() + 90)
    [replica] = desk.fleet("health", "-o", "json", "--probe", "progress").json["replicas"]

    assert (replica["name"], replica["condition"], replica["healthy"]) == ("thumbs.0", "busy", True)
    assert (replica["tasks"][0]["name"], replica["busyUntil"]) == ("shop.thumb", replica["tasks"][0]["until"])
    assert "busy until " in desk.fleet("health").out


def test_the_probe_decides_the_exit_code(desk: Desk, record: Record) -> None:
    set_hold(record.path, on=True)
    record.become("draining", "held by an operator")
    probe: Words = ("health", "--record", str(record.path), "--probe")

    assert desk.fleet(*probe, "live").code == 0
    assert desk.fleet(*probe, "progress").code == 0
    said = desk.fleet(*probe, "ready", "-o", "json", code=1)
    assert (said.json["probe"], said.json["healthy"], said.json["replicas"][0]["condition"]) == ("ready", False, "held")


def test_patience_is_a_flag(desk: Desk, record: Record) -> None:
    record.begin(0, task_id="id-1", task_name="shop.thumb", until=time.time() - 20)
    record.beat()

    assert desk.fleet("health", "--record", str(record.path)).code == 0
    said = desk.fleet("health", "--record", str(record.path), "--patience", "10s", code=1)
    assert "stuck" in said.out
    assert "over its time limit" in said.out


def test_without_a_record_nothing_is_known(desk: Desk) -> None:
    said = desk.fleet("health", "--record", "nowhere/thumbs.0.rec", "-o", "json", code=1)

    assert said.json["replicas"] == [
        {
            "name": "thumbs.0",
            "condition": "unknown",
            "healthy": False,
            "reason": "there is no record of it",
            "busyUntil": None,
        }
    ]


@pytest.fixture
def shop(desk: Desk, record: Record) -> Desk:
    """A fleet of three replicas, of which one has a record."""
    run = desk.folder / "home" / "shop" / "run"
    for folder in ("conf.d", "records"):
        (run / folder).mkdir(parents=True)
    for name in ("thumbs.0", "thumbs.1", "reports.0"):
        (run / "conf.d" / f"{name}.conf").touch()
    (run / "records" / "thumbs.0.rec").write_bytes(record.path.read_bytes())
    return desk


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--fleet", "shop"), ["reports.0", "thumbs.0", "thumbs.1"]),
        (("fleet.yaml",), ["reports.0", "thumbs.0", "thumbs.1"]),
        (("--fleet", "shop", "thumbs"), ["thumbs.0", "thumbs.1"]),
        (("--fleet", "shop", "thumbs.0"), ["thumbs.0"]),
        (("--fleet", "shop", "thumbs.7"), ["thumbs.7"]),
    ],
)
def test_a_fleet_a_group_or_a_replica_is_named(shop: Desk, words: Words, names: list[str]) -> None:
    said = shop.fleet("health", *words, "-o", "json", code=0 if names == ["thumbs.0"] else 1)

    assert [replica["name"] for replica in said.json["replicas"]] == names


def test_an_unknown_group_is_a_mistake_of_the_command_line(shop: Desk) -> None:
    said = shop.fleet("health", "--fleet", "shop", "thumb", code=64)

    assert "did you mean 'thumbs'?" in said.err
    assert shop.fleet("health", "--record", "x.rec", "--fleet", "shop", code=64).out == ""


def test_a_fleet_that_is_down_is_not_healthy(shop: Desk) -> None:
    for path in (shop.folder / "home" / "shop" / "run" / "conf.d").iterdir():
        path.unlink()

    assert shop.fleet("health", "--fleet", "shop", code=1).out == "nothing runs\n"


def test_a_process_is_told_from_a_later_one_of_the_same_pid(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "thumbs.0.rec"
    code = f"""
from pathlib import Path
from fleet.replica.record import Record
Record(Path({str(path)!r}), digest="d", slots=1)
"""
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        process.wait()
    view = read(path)
    assert view is not None
    assert view.pid == process.pid
    assert "dead" in desk.fleet("health", "--record", str(path), code=1).out
    assert view.started_ticks > 0
    assert not process_identity.lives(os.getpid(), view.started_ticks), "this process has not the start of that one"
    assert process_identity.lives(os.getpid(), process_identity.started_ticks(os.getpid()) or 0)


def test_a_zombie_is_gone() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    assert not process_identity.lives(process.pid)
    process.wait()


def test_the_probe_imports_nothing_heavy(record: Record) -> None:
    code = f"""
import sys
from fleet.cli import main
assert main(["health", "--record", {str(record.path)!r}]) == 0
print(*sorted(sys.modules.keys() & {{"pydantic", "yaml", "kombu", "celery", "redis", "billiard", "gevent", "logging"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize(
    ("checks", "condition", "ready"),
    [("+", "ready", True), ("", "ready", True), ("-", "starting", False), ("+---", "unhealthy", False)],
)
def test_a_health_check_counts_besides_what_the_record_says(
    shop: Desk, checks: str, condition: str, ready: bool
) -> None:
    places = Places(shop.folder / "home" / "shop")
    result = HealthResult(os.getpid())
    for one in checks:
        result = result.after("" if one == "+" else "status 503", HealthCheckSpec(port=1), now=time.time())
    write_whole(result_file(places.health, "thumbs.0"), result_text(result))
    said = shop.fleet("health", "thumbs.0", "--fleet", "shop", "--probe", "ready", "-o", "json", code=0 if ready else 1)
    (replica,) = said.json["replicas"]
    assert (replica["condition"], replica["healthy"]) == (condition, ready)
    assert ready or "status 503" in replica["reason"]


def test_a_program_that_waits_to_start_is_starting(desk: Desk, tmp_path: Path) -> None:
    made = Record(tmp_path / "web.0.rec", digest="9f31c2ab", slots=0, foreign=True)
    made.become("starting", "waits for tcp://db:5432: Connection refused")
    said = desk.fleet("health", "--record", str(made.path), "--probe", "ready", "-o", "json", code=1)
    made.close()
    (replica,) = said.json["replicas"]
    assert (replica["condition"], replica["reason"]) == ("starting", "waits for tcp://db:5432: Connection refused")
