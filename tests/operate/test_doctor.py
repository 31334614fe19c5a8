"""What the doctor finds, and what ``--fix`` does about it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fleet.backends.supervisor import config
from fleet.backends.supervisor.processes import is_alive
from fleet.backends.supervisor.replica_files import Folder
from fleet.broker import embedded
from fleet.core.desired import BROKER_GROUP
from fleet.core.spec import BrokerSpec, QueueSpec
from fleet.operate.doctor import processes
from fleet.operate.doctor.examine import examine, fix
from fleet.operate.doctor.finding import Finding
from fleet.replica.crash_history import History, Life, read_history, write_history
from fleet.settings import Settings
from fleet.state import applied
from fleet.state.applied import Applied
from fleet.state.lock import Lock
from tests.backends.worlds import IDLE, PYTHON, World, desired_of, drains_for, drains_until, replicas_of, spec_of
from tests.conftest import eventually

pytestmark = pytest.mark.system

SETTINGS = Settings(rpc_timeout_seconds=60.0)


def problems(world: World) -> list[Finding]:
    """All but that these tests may run as root, which one of them is about."""
    found = examine(world.places, SETTINGS)
    return [finding for finding in found if finding.severity != "info" and finding.subject != "privileges"]


def said(findings: list[Finding]) -> str:
    return "\n".join(f"{finding.severity} {finding.subject}: {finding.message}" for finding in findings)


def test_a_healthy_fleet_has_no_problems(world: World) -> None:
    world.run(replicas_of(spec_of(), 3))

    found = examine(world.places, SETTINGS)

    assert problems(world) == []
    assert "supervisord: runs (pid" in said(found)
    assert "descriptors: supervisord uses" in said(found)


def test_replicas_whose_memory_is_to_be_merged_where_it_is_not_are_a_warning(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run(replicas_of(spec_of(merge_memory=True), 2))
    monkeypatch.setattr(processes, "why_not_merged", lambda: "nobody looks")
    assert said(problems(world)) == "warning mergeMemory: thumbs: memory is not merged: nobody looks"
    monkeypatch.setattr(processes, "why_not_merged", lambda: "")
    assert problems(world) == []


def test_replicas_that_run_as_root_are_a_warning(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))

    found = said(examine(world.places, SETTINGS))

    assert ("1 replica of this fleet run as root" in found) == (os.geteuid() == 0)


def test_a_fleet_that_never_ran_is_no_problem(world: World) -> None:
    found = examine(world.places, SETTINGS)
    assert {finding.severity for finding in found} == {"info"}
    assert "never ran here" in said(found)


def test_nothing_is_changed_by_looking(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    (world.places.conf_d / ".thumbs.1.conf.1.tmp").touch()
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in world.places.run.rglob("*"))

    examine(world.places, SETTINGS)

    assert sorted((str(path), path.lstat().st_mtime_ns) for path in world.places.run.rglob("*")) == before


def test_orphans_are_found_and_ended(world: World) -> None:
    gate = world.home / "gate"
    world.run(replicas_of(spec_of(drains_until(gate)), 2))
    world.kill_supervisord()
    found = problems(world)
    assert said(found).count("an orphan of thumbs.") == 2

    gate.touch()
    fix(found)

    eventually(lambda: world.marked() == [])
    assert problems(world) == []


def test_an_orphan_that_ignores_term_is_killed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "STOP_MARGIN_SECONDS", 0)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()"
    world.run(replicas_of(spec_of((*PYTHON, code), drain_timeout_seconds=0.2), 1))
    world.kill_supervisord()

    done = fix([finding for finding in problems(world) if finding.subject == "processes"])

    assert "was killed after 0.2 s" in done[0]
    assert world.marked() == []


def test_a_duplicate_is_told_from_the_supervised_one(world: World) -> None:
    deaf = (*PYTHON, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()")
    world.run(replicas_of(spec_of(deaf), 1))
    first = world.pids()["thumbs.0"]
    world.kill_supervisord()
    world.backend.prepare(desired_of(spec_of()))
    world.backend.start(replicas_of(spec_of(deaf), 1), secrets={})

    assert f"error processes: a duplicate of thumbs.0 (pid {first})" in said(problems(world))
    os.kill(first, signal.SIGKILL)


def test_stale_sockets_pid_files_and_secrets_of_a_dead_daemon_are_removed(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    world.kill_supervisord()
    eventually(lambda: world.marked() == [])
    found = problems(world)
    assert {"socket", "pid file", "specs"} <= {finding.subject for finding in found}

    fix(found)

    assert problems(world) == []
    assert not world.places.socket.exists()
    assert not list(world.places.specs.iterdir())


def test_a_daemon_without_its_socket_is_ended_and_its_workers_drain(world: World) -> None:
    world.run(replicas_of(spec_of(drains_for(0.2)), 2))
    world.places.socket.unlink()
    daemon = world.supervisord()
    (finding,) = [finding for finding in problems(world) if finding.subject == "supervisord"]

    fix([finding])

    assert not is_alive(daemon)
    eventually(lambda: world.marked() == [])
    world.run(replicas_of(spec_of(), 2))


def test_a_wrong_pid_file_is_put_right(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    config.pidfile(world.places).write_text("1\n")

    fix(problems(world))

    assert config.pidfile(world.places).read_text() == f"{world.supervisord()}\n"
    assert problems(world) == []


def test_open_permissions_are_found_and_closed(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    world.places.root.chmod(0o755)
    world.places.spec_file("thumbs.0").chmod(0o644)
    assert said(problems(world)).count("error permissions") == 2

    fix(problems(world))

    assert problems(world) == []
    assert world.places.spec_file("thumbs.0").stat().st_mode & 0o777 == 0o600


def test_files_left_by_killed_commands_are_removed_once_they_are_old(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    old, young = (world.places.conf_d / f".thumbs.{index}.conf.1.tmp" for index in (1, 2))
    for path in (old, young):
        path.touch()
    os.utime(old, (0, 0))
    shutil.copy(world.places.record_file("thumbs.0"), world.places.record_file("thumbs.9"))
    shutil.copy(world.places.spec_file("thumbs.0"), world.places.spec_file("thumbs.9"))
    assert len(problems(world)) == 3

    fix(problems(world))

    assert problems(world) == []
    assert (old.exists(), young.exists()) == (False, True)
    assert "thumbs.0" in world.pids()


def test_edited_and_broken_program_files_are_found(world: World) -> None:
    world.run(replicas_of(spec_of(), 2))
    world.places.program_file("thumbs.0").write_text("; nothing\n")
    (world.places.conf_d / "web.conf").write_text("[program:web]\n")
    found = problems(world)
    assert "program files were edited or removed by hand: thumbs.0" in said(found)
    assert "does not specify a command" in said(found)
    assert "web.conf is not fleet's" in said(found)

    fix(found)

    assert "edited" not in said(problems(world))
    assert "does not specify a command" in said(problems(world)), "what is not fleet's is for its owner to correct"


def test_a_parked_replica_is_named_with_what_to_do(world: World) -> None:
    spec = spec_of(("false",), restart=replace(spec_of().restart, backoff_initial_seconds=0.01, max_crashes=1))
    world.backend.prepare(desired_of(spec))
    world.backend.start(replicas_of(spec, 1), secrets={})

    eventually(lambda: "error thumbs.0: parked: 2 crashes" in said(problems(world)))
    assert "`fleet logs thumbs.0`" in problems(world)[0].hint


def test_the_embedded_broker_is_asked(world: World) -> None:
    command = embedded.command(world.places, embedded.find_server())
    world.run(replicas_of(replace(spec_of(command, group=BROKER_GROUP)), 1))
    assert "broker: answers on" in said(examine(world.places, SETTINGS))
    world.remove(["fleet-broker.0"])
    mute = spec_of(IDLE, group=BROKER_GROUP)
    world.backend.start(replicas_of(mute, 1), secrets={})

    assert "error broker: the embedded broker does not answer" in said(problems(world))


def test_who_holds_the_lock_is_told_to_others(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    child = os.fork()
    if child == 0:
        with Lock(world.places, command="fleet apply"):
            signal.pause()
        os._exit(0)
    try:
        eventually(lambda: "lock: held by" in said(examine(world.places, SETTINGS)))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_stale_socket_alone_is_found(world: World) -> None:
    Folder(world.places).make()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(world.places.socket))

    assert [finding.subject for finding in problems(world)] == ["socket"]


def test_old_heartbeats_are_told(world: World) -> None:
    """A worker that has said it is ready and nothing since."""
    code = """
import os, signal, time
from pathlib import Path
from fleet.replica import record
real = time.time
record.time.time = lambda: real() - 100
it = record.Record(Path(os.environ["FLEET_RECORD"]), digest=os.environ["FLEET_DIGEST"], slots=1)
it.become("ready")
signal.pause()
"""
    spec = spec_of((PYTHON[0], "-c", code))
    world.backend.prepare(desired_of(spec))
    world.backend.start(replicas_of(spec, 1), secrets={})
    eventually(lambda: world.backend.observe().replicas["thumbs.0"].uptime_seconds > 90)
    path = world.places.spec_file("thumbs.0")
    path.write_text(path.read_text().replace('"kind": "command"', '"kind": "worker"'))

    assert "warning thumbs.0: stuck: no heartbeat for 1m" in said(problems(world))


def test_damaged_state_is_found_and_what_decides_itself_again_is_removed(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    places = world.places
    places.state.mkdir(exist_ok=True)
    for path in (places.decisions, places.overrides, places.state / "standing.json", places.state / "owner.json"):
        path.write_text("{half")
    places.audit.write_bytes(b"\xff\n")

    found = problems(world)
    text = said(found)
    for name in ("standing.json", "overrides.yaml", "decisions.json", "owner.json"):
        assert f"{name} is damaged" in text
    assert "1 lines of" in text
    fix(found)
    assert not places.decisions.exists()
    assert places.overrides.exists(), "a person's word is for a person to judge"


def test_a_changed_configuration_of_the_daemon_is_written_again(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    before = world.places.supervisord_conf.read_text()
    world.places.supervisord_conf.write_text("")
    found = problems(world)
    assert "is not as fleet wrote it" in said(found)
    fix(found)

    assert world.places.supervisord_conf.read_text() == before
    assert problems(world) == []


def test_a_crash_loop_is_found_before_it_is_parked(world: World) -> None:
    (replica,) = replicas_of(spec_of(), 1)
    world.run([replica])
    starts = world.places.starts_file(replica.name)
    eventually(lambda: read_history(starts).began is not None)  # its launcher writes no more
    now = time.time()
    lives = tuple(Life(now - 10, now - 10 + number, clean=False) for number in range(3))
    write_history(starts, History(lives, now))

    assert f"error {replica.name}: crashed 3 times and is started again and again" in said(problems(world))


def test_a_broker_that_does_not_answer_is_found(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    spec = replace(spec_of(), broker=BrokerSpec("redis://127.0.0.1:1/0"), queues=(QueueSpec("a"),))
    applied.save(world.places.state / "standing.json", Applied(desired_of(spec), 1))

    assert "error broker: " in said(problems(world))


def test_a_fleet_of_the_same_name_in_another_home_is_found(world: World, short_tmp: Path) -> None:
    world.run(replicas_of(spec_of(), 1))
    other = replace(world.places, root=short_tmp / "other" / world.places.fleet)
    text = said(examine(other, SETTINGS))
    assert "never ran here" in text
    other.run.mkdir(parents=True)

    assert f"also runs in {world.places.root}" in said(examine(other, SETTINGS))
