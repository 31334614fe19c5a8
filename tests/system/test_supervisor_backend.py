"""The supervisor backend in the worst of worlds: real supervisord, real kills, foreign hands in its folders."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from fleet.backends.supervisor import config
from fleet.backends.supervisor.daemon import daemon_environment
from fleet.backends.supervisor.processes import is_alive, supervisors
from fleet.backends.supervisor.replica_files import Folder
from fleet.broker import embedded
from fleet.core.desired import BROKER_GROUP
from fleet.core.observed import ObservedReplica, State
from fleet.core.spec import RestartPolicy, WorkerSpec
from fleet.errors import FleetError, Refused, Unreachable
from fleet.replica import process_identity
from fleet.replica import record as records
from tests.backends.worlds import IDLE, PYTHON, World, desired_of, drains_for, replicas_of, spec_of
from tests.conftest import eventually

pytestmark = pytest.mark.system


@pytest.fixture
def world(short_tmp: Path) -> Iterator[World]:
    world = World(short_tmp)
    try:
        yield world
    finally:
        world.end()


def writes_its_life(path: Path, *, drain_seconds: float = 0.0, gate: Path | None = None) -> tuple[str, ...]:
    """A program that notes when it begins and when it ends: two lives of a replica must never overlap.

    Told to end, it waits for the gate first.
    """
    code = f"""
import os, signal, sys, time
def note(word):
    fd = os.open({str(path)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{{word}} {{os.environ['FLEET_REPLICA']}} {{os.getpid()}}\\n".encode()); os.close(fd)
def finish(*_):
    while not os.path.exists({str(gate or path.parent)!r}): time.sleep(0.02)
    time.sleep({drain_seconds}); note("end"); os._exit(0)
signal.signal(signal.SIGTERM, finish)
note("begin")
while True: signal.pause()
"""
    return (*PYTHON, code)


def lives(path: Path) -> dict[str, list[str]]:
    """Replica -> the words its lives wrote, in order."""
    found: dict[str, list[str]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        word, replica, _ = line.split()
        found.setdefault(replica, []).append(word)
    return found


# --- many


def test_a_hundred_replicas_start_are_seen_and_stop_side_by_side(world: World) -> None:
    """Each waits at its end until all hundred were told to stop: stopping one after another would never end."""
    told = world.home / "told"
    told.mkdir()
    code = f"""
import os, signal, time
def finish(*_):
    open({str(told)!r} + "/" + os.environ["FLEET_REPLICA"], "w").close()
    while len(os.listdir({str(told)!r})) < 100: time.sleep(0.02)
    os._exit(0)
signal.signal(signal.SIGTERM, finish)
while True: signal.pause()
"""
    replicas = replicas_of(spec_of((*PYTHON, code), drain_timeout_seconds=60.0), 100)
    names = [replica.name for replica in replicas]

    seen = world.run(replicas)

    assert len({seen.replicas[name].pid for name in names}) == 100
    assert seen.strays == ()
    eventually(lambda: all(one.memory_bytes > 0 for one in world.backend.observe().replicas.values()))
    daemon = psutil.Process(world.supervisord())
    assert daemon.num_fds() < 2 * 100 + 30
    world.backend.stop(names)
    world.until_stopped(names)
    assert len(list(told.iterdir())) == 100
    world.backend.forget(names)
    world.backend.shutdown()
    assert [*world.places.conf_d.iterdir(), *world.places.specs.iterdir()] == []


def test_room_is_made_in_a_running_daemon(world: World) -> None:
    spec = spec_of()
    world.backend.prepare(desired_of(spec, replicas=1))
    world.backend.prepare(desired_of(spec, replicas=500))

    soft, _ = resource.prlimit(world.supervisord(), resource.RLIMIT_NOFILE)
    assert soft >= config.descriptors(500)


# --- what arrives


def test_values_reach_the_program_byte_for_byte_and_no_secret_is_elsewhere(world: World) -> None:
    values = ["a;b", " ;x #y", "%(x)s", "100%", '"q"', "it's", "two\nlines", "$HOME `id`", "Grüße 日本", "A=@b", "\\n"]
    out = world.home / "facts.json"
    code = """
import json, os, signal, sys
facts = [[os.fsencode(word).hex() for word in sys.argv[2:]], {n.decode(): v.hex() for n, v in os.environb.items()}]
with open(sys.argv[1] + ".new", "w") as file: json.dump(facts, file)
os.replace(sys.argv[1] + ".new", sys.argv[1]); signal.pause()
"""
    env = tuple((f"V{number}", value) for number, value in enumerate(values))
    command = (*PYTHON, code, str(out), *values)
    spec = spec_of(command, env=env, secret_env=(("KEY", "stripe", "mark"),))

    world.run(replicas_of(spec, 1), stripe="s3cr;t%\n", unused="nobody needs this")

    arguments, environ = json.loads(eventually(lambda: out.exists() and out.read_text()))
    assert [bytes.fromhex(word).decode() for word in arguments] == values
    assert [bytes.fromhex(environ[name]).decode() for name, _ in env] == values
    assert bytes.fromhex(environ["KEY"]) == b"s3cr;t%\n"
    files = [path for path in world.places.root.rglob("*") if path.is_file()]
    assert [path for path in files if b"s3cr;t" in path.read_bytes()] == [world.places.spec_file("thumbs.0")]
    assert not [path for path in files if b"nobody needs this" in path.read_bytes()]
    assert world.places.spec_file("thumbs.0").stat().st_mode & 0o777 == 0o600
    assert "s3cr" not in " ".join(psutil.Process(world.pids()["thumbs.0"]).cmdline())


def test_a_missing_secret_starts_nothing(world: World) -> None:
    spec = spec_of(secret_env=(("KEY", "stripe", "mark"),))
    world.backend.prepare(desired_of(spec))

    with pytest.raises(FleetError, match="'stripe' is missing"):
        world.backend.start(replicas_of(spec, 1), secrets={})

    assert world.backend.observe().replicas == {}


def runs_for_everybody(python: str) -> bool:
    """The interpreter of a virtual environment may lie in a folder that only its owner may enter."""
    check = "import sys; sys.exit(sys.version_info[:2] != (3, 11))"
    try:
        return subprocess.run([python, "-c", check], user=65534, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_runs_a_fleet() -> None:
    nobody = 65534
    python = next((one for one in (sys.executable, "/usr/bin/python3") if runs_for_everybody(one)), None)
    if python is None:
        pytest.skip("no Python 3.11 on this machine that everybody may run")
    if not all(folder.stat().st_mode & 0o005 == 0o005 for folder in Path(__file__).parents):
        pytest.skip("the project lies in a folder that other users cannot read")
    home = Path(tempfile.mkdtemp(prefix="fl-", dir="/tmp"))
    os.chown(home, nobody, nobody)
    code = f"""
from pathlib import Path
from tests.backends.worlds import *
world = World(Path({str(home)!r}))
try:
    seen = world.run(replicas_of(spec_of(drains_for(0.1)), 3))
    assert os.stat(f"/proc/{{seen.replicas['thumbs.0'].pid}}").st_uid == {nobody}
    world.remove(["thumbs.0", "thumbs.1", "thumbs.2"])
    world.backend.shutdown()
    assert world.marked() == [] and not world.places.socket.exists()
    print("user=" in world.places.supervisord_conf.read_text())
finally:
    world.end()
"""
    try:
        done = subprocess.run(
            [python, "-c", code],
            user=nobody,
            group=nobody,
            extra_groups=[],
            cwd=Path(__file__).parents[2],
            env={"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": os.pathsep.join(["", *sys.path])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
    finally:
        shutil.rmtree(home, ignore_errors=True)


# --- the daemon


def test_the_daemon_belongs_to_nobody_who_started_it(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    daemon = psutil.Process(world.supervisord())

    assert daemon.ppid() != os.getpid()
    assert os.getsid(daemon.pid) != os.getsid(0)
    assert not [name for name in daemon.environ() if name.startswith(("FLEET_", "PYTEST"))]
    assert "running as root" not in config.daemon_log(world.places).read_text()
    assert world.places.socket.stat().st_mode & 0o777 == 0o600
    assert world.places.root.stat().st_mode & 0o777 == 0o700


def test_stale_sockets_and_pid_files_are_no_obstacle(world: World) -> None:
    Folder(world.places).make()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(world.places.socket))
    config.pidfile(world.places).write_text(f"{os.getpid()}\n")

    assert not world.backend.observe().up
    world.run(replicas_of(spec_of(), 1))


def test_a_daemon_that_lost_its_socket_is_not_doubled(world: World) -> None:
    pids = world.run(replicas_of(spec_of(), 1)).replicas["thumbs.0"].pid
    world.places.socket.unlink()
    world.backend.close()

    with pytest.raises(Unreachable, match="does not listen on"):
        world.backend.observe()
    with pytest.raises(Unreachable, match="does not listen on") as caught:
        world.backend.prepare(desired_of(spec_of()))

    assert "fleet doctor --fix" in caught.value.hint
    assert pids is not None
    assert is_alive(pids)


def test_a_daemon_does_not_start_with_a_file_that_is_not_fleets(world: World) -> None:
    """One that was planted before the first apply would run as this account."""
    Folder(world.places).make()
    out = world.home / "ran"
    foreign = world.places.conf_d / "web.conf"
    foreign.write_text(f"[program:web]\ncommand={shutil.which('touch')} {out}\n")

    with pytest.raises(Refused, match="is not fleet's"):
        world.backend.prepare(desired_of(spec_of()))
    assert supervisors(world.places.supervisord_conf) == []
    assert not out.exists()

    foreign.unlink()
    world.run(replicas_of(spec_of(), 1))


def test_shutdown_leaves_neither_socket_nor_pid_file_nor_process(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    daemon = world.supervisord()
    world.remove(["thumbs.0"])
    world.backend.shutdown()

    assert not is_alive(daemon)
    assert not world.places.socket.exists()
    assert not config.pidfile(world.places).exists()
    assert world.places.log_file("thumbs.0").exists(), "logs stay"


# --- kills


def test_when_supervisord_is_killed_its_workers_drain_and_none_runs_twice(world: World) -> None:
    """supervisord #199, #925: its children survive it, and the next one starts duplicates."""
    book = world.home / "lives"
    gate = world.home / "gate"
    replicas = replicas_of(spec_of(writes_its_life(book, drain_seconds=1.0, gate=gate)), 4)
    world.run(replicas)
    eventually(lambda: len(lives(book)) == 4)
    world.kill_supervisord()

    seen = world.backend.observe()
    assert not seen.up
    assert sorted((stray.replica, stray.kind) for stray in seen.strays) == [(one.name, "orphan") for one in replicas]
    gate.touch()
    world.run(replicas)

    eventually(lambda: all(words == ["begin", "end", "begin"] for words in lives(book).values()))
    assert len(lives(book)) == 4
    assert world.backend.observe().strays == ()


def test_an_orphan_that_ignores_everything_blocks_its_own_successor_only(world: World) -> None:
    deaf = (*PYTHON, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: signal.pause()")
    world.run([*replicas_of(spec_of(deaf), 1), *replicas_of(spec_of(group="mail"), 1)])
    first = world.pids()["thumbs.0"]
    world.kill_supervisord()
    replicas = [*replicas_of(spec_of(deaf), 1), *replicas_of(spec_of(group="mail"), 1)]
    world.backend.prepare(desired_of(*(one.spec for one in replicas)))
    world.backend.start(replicas, secrets={})
    world.until_ready(["mail.0"])

    seen = world.backend.observe()
    assert [(stray.pid, stray.kind) for stray in seen.strays] == [(first, "duplicate")]
    assert seen.replicas["thumbs.0"].state is State.STARTING
    os.kill(first, signal.SIGKILL)
    world.until_ready(["thumbs.0"])


def test_a_daemon_started_by_hand_waits_for_orphans_too(world: World) -> None:
    """After a crash somebody (or an init system) may start supervisord before fleet does."""
    book = world.home / "lives"
    world.run(replicas_of(spec_of(writes_its_life(book, drain_seconds=1.0)), 2))
    eventually(lambda: len(lives(book)) == 2)
    world.kill_supervisord()
    conf = str(world.places.supervisord_conf)
    subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "-c", conf], env=daemon_environment(os.environ), check=True
    )

    eventually(lambda: all(words == ["begin", "end", "begin"] for words in lives(book).values()))
    world.until_ready(["thumbs.0", "thumbs.1"])


def test_a_killed_worker_is_started_again_alone(world: World) -> None:
    before = {name: one.pid for name, one in world.run(replicas_of(spec_of(), 3)).replicas.items()}
    victim = before["thumbs.1"]
    assert victim is not None
    os.kill(victim, signal.SIGKILL)

    eventually(lambda: world.pids().get("thumbs.1") not in (None, victim))
    world.until_ready(["thumbs.1"])

    after = world.pids()
    assert {name: pid for name, pid in after.items() if name != "thumbs.1"} == {
        name: pid for name, pid in before.items() if name != "thumbs.1"
    }


def test_a_crash_loop_is_parked_told_and_tried_again_on_request(world: World) -> None:
    restart = RestartPolicy(backoff_initial_seconds=0.01, backoff_max_seconds=0.05, max_crashes=2)
    flag = world.home / "works-now"
    code = f"import os, signal, sys; signal.pause() if os.path.exists({str(flag)!r}) else sys.exit(3)"
    spec = spec_of((*PYTHON, code), restart=restart, ready_after_seconds=0.2)
    world.backend.prepare(desired_of(spec))
    world.backend.start(replicas_of(spec, 1), secrets={})

    def parked() -> ObservedReplica | None:
        seen = world.backend.observe().replicas["thumbs.0"]
        return seen if seen.state is State.FAILED and seen.pid is None else None

    assert eventually(parked).note == "parked: 3 crashes in 600 s"
    flag.touch()
    world.backend.run_again(["thumbs.0"])
    world.until_ready(["thumbs.0"])


def test_a_replica_that_crashes_all_the_time_can_be_stopped(world: World) -> None:
    restart = RestartPolicy(backoff_initial_seconds=0.0001, backoff_max_seconds=0.0001, max_crashes=100_000)
    spec = spec_of(("false",), restart=restart)
    world.backend.prepare(desired_of(spec, replicas=5))
    world.backend.start(replicas_of(spec, 5), secrets={})
    names = [f"thumbs.{index}" for index in range(5)]

    world.backend.stop(names)
    world.until_stopped(names)
    world.backend.forget(names)

    assert world.backend.observe().replicas == {}


def test_a_command_killed_between_writing_and_starting_is_finished_by_the_next(world: World) -> None:
    spec = spec_of()
    survivors = {name: one.pid for name, one in world.run(replicas_of(spec, 1)).replicas.items()}
    left = replicas_of(spec, 1, first=1)[0]
    text = world.places.program_file("thumbs.0").read_text().replace("thumbs.0", "thumbs.1")
    Folder(world.places).write({left: text}, secrets={})

    seen = world.backend.observe().replicas["thumbs.1"]
    assert (seen.state, seen.pid, seen.digest) == (State.STOPPED, None, left.digest)
    world.run(replicas_of(spec, 1, first=2))
    assert sorted(world.pids()) == ["thumbs.0", "thumbs.2"], "a step starts its own replicas and no others"
    world.run([left])

    assert world.pids()["thumbs.0"] == survivors["thumbs.0"]


# --- strays


def test_children_of_a_killed_worker_are_found_and_reaped_and_daemons_of_a_living_one_are_not(world: World) -> None:
    children = world.home / "children"
    code = f"""
import os, signal, subprocess
child = subprocess.Popen(["sleep", "600"], start_new_session=True)
with open({str(children)!r}, "a") as file: file.write(f"{{child.pid}}\\n")
if os.fork() == 0:  # a daemon that a task set free
    os.setsid()
    if os.fork(): os._exit(0)
    signal.pause()
while True: signal.pause()
"""
    world.run(replicas_of(spec_of((*PYTHON, code)), 1))
    eventually(lambda: children.exists() and children.read_text().endswith("\n"))
    assert world.backend.observe().strays == ()
    first = world.pids()["thumbs.0"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: world.pids().get("thumbs.0") not in (None, first))
    world.until_ready(["thumbs.0"])

    strays = world.backend.observe().strays
    assert {stray.kind for stray in strays} == {"leftover"}
    assert int(children.read_text().splitlines()[0]) in {stray.pid for stray in strays}
    world.backend.reap([stray.pid for stray in strays])
    eventually(lambda: world.backend.observe().strays == ())
    assert "thumbs.0" in world.pids()


def test_an_orphan_that_somebody_stopped_exits_too(world: World) -> None:
    orphan = world.run(replicas_of(spec_of(), 1)).replicas["thumbs.0"].pid
    assert orphan is not None
    os.kill(orphan, signal.SIGSTOP)
    world.kill_supervisord()
    world.backend.reap([orphan])
    eventually(lambda: not psutil.pid_exists(orphan))


def test_reaping_spares_the_supervised_and_the_unmarked(world: World) -> None:
    world.run(replicas_of(spec_of(), 1))
    with subprocess.Popen(["sleep", "600"]) as bystander:
        world.backend.reap([world.pids()["thumbs.0"], bystander.pid, 2**22 - 1])
        assert bystander.poll() is None
        bystander.kill()

    assert world.backend.observe().replicas["thumbs.0"].state is State.READY


def test_another_fleets_processes_are_no_strays(world: World) -> None:
    other = World(world.home / "o")
    try:
        other.run(replicas_of(spec_of(), 1))
        other.kill_supervisord()
        world.run(replicas_of(spec_of(), 1))
        assert world.backend.observe().strays == ()
    finally:
        other.end()


# --- foreign hands


def test_a_foreign_file_blocks_starts_and_kills_nothing(world: World) -> None:
    before = world.run(replicas_of(spec_of(), 2))
    foreign = world.places.conf_d / "web.conf"
    sleep = f"[program:web]\ncommand={shutil.which('sleep')} 600\n"
    for text in (sleep, "[program:web]\n", "[program:web\ncommand=x", "[program:web]\ncommand=%(nope)s\n", "\x00\xff"):
        foreign.write_bytes(text.encode("latin-1"))
        with pytest.raises(Refused, match=r"web\.conf is not fleet's, and supervisord would run it"):
            world.backend.start(replicas_of(spec_of(), 1, first=2), secrets={})
        assert not world.places.program_file("thumbs.2").exists()
        assert not world.places.spec_file("thumbs.2").exists()
        assert world.pids() == {name: one.pid for name, one in before.replicas.items()}
    foreign.unlink()
    world.run(replicas_of(spec_of(), 1, first=2))


def test_foreign_programs_are_listed_and_left_alone(world: World) -> None:
    """Those that somebody has given to this supervisord by hand."""
    world.run(replicas_of(spec_of(), 2))
    foreign = world.places.conf_d / "web.conf"
    foreign.write_text(f"[program:web]\ncommand={shutil.which('sleep')} 600\n")
    rpc = world.backend._rpc
    rpc.reload()
    rpc.add(["web"])

    eventually(lambda: any(row.name == "web" and row.pid for row in rpc.processes()))
    assert world.backend.observe().foreign == ("web:web",)
    world.backend.stop(["web", "thumbs.0", "thumbs.1"])
    world.until_stopped(["thumbs.0", "thumbs.1"])
    world.backend.forget(["web", "thumbs.0", "thumbs.1"])
    with pytest.raises(Refused, match="web:web"):
        world.backend.shutdown()
    assert foreign.exists()
    assert world.backend.observe().foreign == ("web:web",)


def test_program_files_edited_or_removed_by_hand_are_restored_and_no_pid_changes(world: World) -> None:
    before = {name: one.pid for name, one in world.run(replicas_of(spec_of(), 3)).replicas.items()}
    world.places.program_file("thumbs.0").unlink()
    edited = world.places.program_file("thumbs.1")
    good = edited.read_text()
    edited.write_text(good.replace("stopsignal=TERM", "stopsignal=KILL"))
    world.places.program_file("thumbs.2").write_text("")

    world.run(replicas_of(spec_of(), 1, first=3))

    assert {name: pid for name, pid in world.pids().items() if name != "thumbs.3"} == before
    assert edited.read_text() == good
    assert world.places.program_file("thumbs.0").exists()


# --- the embedded broker


def broker_spec(world: World) -> WorkerSpec:
    command = embedded.command(world.places, embedded.find_server())
    return replace(spec_of(command, group=BROKER_GROUP), kind="command")


def test_the_embedded_broker_is_ready_when_it_answers(world: World) -> None:
    seen = world.run(replicas_of(broker_spec(world), 1))

    assert seen.replicas["fleet-broker.0"].state is State.READY
    assert embedded.ping(embedded.url(world.places))
    world.remove(["fleet-broker.0"])
    assert list(world.places.broker_data.iterdir()), "its data stays"


@pytest.mark.parametrize("data", [None, b"", b"\xff" * 300], ids=["lost", "empty", "garbage"])
def test_a_programs_damaged_record_is_written_again(world: World, data: bytes | None) -> None:
    """A worker does that itself; of another program it is the controller."""
    world.run(replicas_of(spec_of(), 1))
    record, pid = world.places.record_file("thumbs.0"), world.pids()["thumbs.0"]
    record.unlink()
    if data is not None:
        record.write_bytes(data)
    eventually(lambda: world.backend.observe().replicas["thumbs.0"].state is State.READY)
    world.backend.renew_records()
    found = records.read(record)
    assert found is not None
    assert (found.pid, found.state, found.foreign, process_identity.lives(found.pid, found.started_ticks)) == (
        pid,
        "ready",
        True,
        True,
    )
    assert found.started_at in {float(row.started_at) for row in world.backend._rpc.processes()}, "its uptime goes on"
    before = record.stat()
    world.backend.renew_records()
    assert record.stat() == before, "what can be read is left alone"


def test_a_broker_that_does_not_answer_is_not_ready(world: World) -> None:
    spec = replace(broker_spec(world), command=(*IDLE, "--dir", str(world.places.broker_data)))
    world.backend.prepare(desired_of(spec))
    world.backend.start(replicas_of(spec, 1), secrets={})

    eventually(lambda: world.backend.observe().replicas["fleet-broker.0"].note == "does not answer yet")
    assert world.backend.observe().replicas["fleet-broker.0"].state is State.STARTING


def test_what_drains_too_long_is_killed_by_supervisord(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "STOP_MARGIN_SECONDS", 0)
    world.run(replicas_of(spec_of(drains_for(600.0), drain_timeout_seconds=1.0), 1))
    world.remove(["thumbs.0"])

    assert world.marked() == []
