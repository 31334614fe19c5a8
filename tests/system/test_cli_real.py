"""The command line against a real supervisord: killed, interrupted, locked out, on a terminal and off it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import select
import signal
import subprocess

import pytest

from fleet.state.lock import Lock
from fleet.state.paths import Places
from tests.conftest import PATIENCE, eventually
from tests.system.worlds import World

pytestmark = pytest.mark.system

SLEEPERS = "    a: {command: [sleep, '%d'], replicas: %d, health: {readyAfter: %s}, drain: {timeout: 2s}}\n"
NOWHERE = "redis://127.0.0.1:1/0"


def write(world: World, replicas: int, *, value: int = 1000, ready_after: str = "100ms") -> None:
    world.write(SLEEPERS % (value, replicas, ready_after), broker=NOWHERE)


def is_converged(world: World) -> bool:
    return world.fleet("plan", str(world.manifest), "--detailed-exitcode", code=None).returncode == 0


def apply_and_kill(world: World, after_seconds: float) -> None:
    """Unless it is done by then, which is fine too."""
    process = world.popen("apply", str(world.manifest))
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after_seconds)
    process.kill()
    process.wait()


def test_an_apply_killed_at_any_moment_is_finished_by_the_next(world: World) -> None:
    write(world, 4)
    world.apply()
    chance = random.Random(7)
    kept = world.pids()
    for round_number in range(6):
        size = 4 + chance.choice([0, 2, 4])
        write(world, size)
        apply_and_kill(world, chance.uniform(0.25, 0.7))
        world.apply()
        assert is_converged(world), f"round {round_number}"
        assert len(world.pids()) == size
    survivors = world.pids()
    assert {name: survivors[name] for name in kept} == kept, "four were right all the time"
    alive = [one for one in world.processes() if one.name() == "sleep"]
    assert len(alive) == len(survivors), "duplicates or orphans run"


def test_a_replacing_apply_killed_again_and_again_ends_where_it_should(world: World) -> None:
    write(world, 4)
    world.apply()
    for value in range(1001, 1005):
        write(world, 4, value=value)
        apply_and_kill(world, 0.2 + (value - 1000) * 0.2)
    world.apply()
    assert is_converged(world)
    lines = [one.cmdline() for one in world.processes() if one.name() == "sleep"]
    assert lines == [["sleep", "1004"]] * 4


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_apply_says_how_to_resume(world: World, signum: int, code: int) -> None:
    write(world, 2, ready_after="50s")
    process = subprocess.Popen(
        world.command("apply", str(world.manifest)),
        env=world.env(),
        cwd=world.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    audit = world.home / "world" / "state" / "audit.ndjson"
    eventually(lambda: audit.exists() and audit.read_text().count('"step.started"') == 2)
    process.send_signal(signum)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert "interrupted: run the same command again to resume" in said
    assert "interrupted" in audit.read_text().splitlines()[-1]
    assert "Traceback" not in said
    write(world, 2)
    world.apply()
    assert is_converged(world)


def test_a_held_lock_names_its_holder(world: World) -> None:
    write(world, 1)
    with Lock(Places.of(world.home, "world"), command="fleet apply somewhere"):
        said = world.fleet("apply", str(world.manifest), code=8)
        assert f"`fleet apply somewhere` (pid {os.getpid()}" in said.stderr
        assert world.fleet("plan", str(world.manifest), "--detailed-exitcode", code=2), "looking needs no lock"
        assert world.fleet("status", str(world.manifest), "-o", "json").returncode == 0


def test_a_fleet_that_cannot_get_ready_in_time_exits_4(world: World) -> None:
    write(world, 2, ready_after="50s")
    said = world.fleet("apply", str(world.manifest), "--timeout", "1s", code=4)
    assert "not ready within 1 s" in said.stderr
    world.fleet("apply", str(world.manifest), "--no-wait")


def test_a_program_that_dies_at_once_pauses_the_rollout(world: World) -> None:
    world.write(
        "    a: {command: ['false'], replicas: 1, restart: {maxCrashes: 2, backoff: {initial: 50ms, max: 50ms}}}\n",
        broker=NOWHERE,
    )
    said = world.fleet("apply", str(world.manifest), code=6)
    assert "start a.0: parked after too many crashes" in said.stderr
    state = world.status()["groups"]["a"]["workers"][0]
    assert state["state"] == "failed"


def test_scale_10_12_8_leaves_the_survivors_alone(world: World) -> None:
    write(world, 10)
    world.apply()
    ten = world.pids()
    world.fleet("scale", "a=12", str(world.manifest))
    twelve = world.pids()
    assert ten.items() <= twelve.items()
    assert len(twelve) == 12
    world.fleet("scale", "a=8", "--fleet", "world", "--live", "--for", "1h")
    eight = world.pids()
    assert eight.items() <= ten.items()
    assert len(eight) == 8
    assert "replicas: 12" in world.manifest.read_text()


def test_a_hundred_replicas_are_stopped_together(world: World) -> None:
    """Each waits at its end until all were told to stop: stopped one after the other, the first would be killed."""
    told, ended = world.root / "told", world.root / "ended"
    told.mkdir()
    ended.mkdir()
    script = world.root / "ends_with_the_others.sh"
    script.write_text(
        f"finish() {{ touch {told}/$FLEET_REPLICA\n"
        f"until [ $(ls {told} | wc -l) -ge 30 ]; do sleep 0.2; done\n"
        f"touch {ended}/$FLEET_REPLICA; exit 0; }}\n"
        "trap finish TERM\n"
        "while :; do sleep 0.2; done\n"
    )
    world.write(
        f"    a: {{command: [sh, {script}], replicas: 30, health: {{readyAfter: 1s}}, drain: {{timeout: 120s}}}}\n",
        broker=NOWHERE,
    )
    world.apply()
    world.fleet("down", str(world.manifest), "--yes")
    assert len(list(ended.iterdir())) == 30
    assert not world.processes()


def test_render_gives_the_bytes_that_run(world: World) -> None:
    write(world, 2)
    world.fleet("render", str(world.manifest), "--out", "made")
    world.apply()
    for name in ("a.0", "a.1"):
        made = (world.root / "made/run/conf.d" / f"{name}.conf").read_bytes()
        assert made == (world.home / "world/run/conf.d" / f"{name}.conf").read_bytes()
        assert (world.root / "made/run/specs" / f"{name}.json").read_bytes() == (
            world.home / "world/run/specs" / f"{name}.json"
        ).read_bytes()


def test_doctor_finds_nothing_in_a_healthy_fleet(world: World) -> None:
    write(world, 1)
    world.apply()
    document = json.loads(world.fleet("doctor", str(world.manifest), "-o", "json").stdout)
    assert not [one for one in document["findings"] if one["severity"] == "error"]
    assert document["settings"]["FLEET_HOME"] == {
        "value": str(world.home),
        "set": True,
        "description": document["settings"]["FLEET_HOME"]["description"],
    }


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, world: World, *words: str) -> None:
        self.text = ""
        env = {**world.env(), "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
        env.pop("NO_COLOR", None)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(world.root)
            os.execve(world.command()[0], world.command(*words), env)

    def read_until(self, wanted: str) -> None:
        eventually(lambda: wanted in self.read())

    def read(self) -> str:
        while select.select([self.fd], [], [], 0.05)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the other end is closed
                break
            if not data:
                break
            self.text += data.decode(errors="replace")
        return self.text

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        def ended() -> tuple[int, int] | None:
            self.read()
            found = os.waitpid(self.pid, os.WNOHANG)
            return found if found[0] else None

        code = os.waitstatus_to_exitcode(eventually(ended)[1])
        self.read()
        os.close(self.fd)
        return code


def test_on_a_terminal_apply_asks_and_no_means_no(world: World) -> None:
    write(world, 1)
    terminal = Terminal(world, "apply", "fleet.yaml")
    terminal.read_until("Do this? [y/N]")
    terminal.type("n\n")
    assert terminal.wait() == 1
    assert "nothing was done" in terminal.text
    assert not (world.home / "world" / "run" / "conf.d").exists()


def test_on_a_terminal_apply_shows_colours_and_a_bar(world: World) -> None:
    write(world, 2)
    terminal = Terminal(world, "apply", "fleet.yaml")
    terminal.read_until("Do this? [y/N]")
    assert "\033[32m+ a.0" in terminal.text
    terminal.type("y\n")
    assert terminal.wait() == 0
    assert "2/2" in terminal.text
    assert "revision 1: done, 2 steps" in terminal.text


def test_top_is_live_and_ends_quietly(world: World) -> None:
    write(world, 2)
    world.apply()
    terminal = Terminal(world, "top", "fleet.yaml")
    terminal.read_until("2/2 ready")
    terminal.read_until("a.1")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "Traceback" not in terminal.text


def test_watched_status_is_a_stream_of_documents(world: World) -> None:
    write(world, 1)
    world.apply()
    process = subprocess.Popen(
        world.command("status", str(world.manifest), "--watch", "-o", "json"),
        env=world.env(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    documents = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert [document["ready"] for document in documents] == [True, True]
    assert process.returncode == 130


def test_logs_follow_what_a_program_says(world: World) -> None:
    script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done"
    world.write(f"    a: {{command: [sh, -c, '{script}'], replicas: 2}}\n", broker=NOWHERE)
    world.apply()

    def last_three() -> list[str]:
        shown = world.fleet("logs", "a.1", str(world.manifest), "-n", "3").stdout.splitlines()
        return shown if len(shown) >= 3 else []

    shown = eventually(last_three)
    assert len(shown) == 3
    assert all(line.startswith("a.1 | line ") for line in shown)
    process = subprocess.Popen(
        world.command("logs", "--fleet", "world", "-f", "-n", "0", "-o", "json"),
        env=world.env(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen: set[str] = set()
    while len(seen) < 2:
        seen.add(json.loads(process.stdout.readline())["replica"])
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert seen == {"a.0", "a.1"}
    assert process.returncode == 143
