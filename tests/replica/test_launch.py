"""The launcher as a process, without supervisord: what a program finds, and what a crash loop does."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fleet.backends.supervisor.replica_files import Folder
from fleet.core.desired import Replica
from fleet.core.spec import PARKED_EXIT, RestartPolicy, WaitSpec, WorkerSpec, digest
from fleet.core.totals import Totals
from fleet.replica import record as records
from fleet.replica.ending import Ending, ending_file, write_ending
from fleet.state.audit import Audit
from fleet.state.paths import Places
from fleet.state.totals import read_totals
from tests.accounts import give, needs_second_account
from tests.backends.worlds import IDLE, PYTHON, spec_of
from tests.conftest import PATIENCE, eventually

REPORT = """
import json, os, resource, signal, sys
out = sys.argv[1]
facts = {
    "argv": [os.fsencode(word).hex() for word in sys.argv[2:]],
    "env": {name.decode(): value.hex() for name, value in os.environb.items()},
    "cwd": os.getcwd(),
    "umask": os.umask(0),
    "descriptors": [fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.exists(f"/proc/self/fd/{fd}")],
    "stdin": os.readlink("/proc/self/fd/0"),
    "stdout": os.readlink("/proc/self/fd/1"),
    "stderr": os.readlink("/proc/self/fd/2"),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "ignored": next(line for line in open("/proc/self/status") if line.startswith("SigIgn")).split()[1],
    "blocked": next(line for line in open("/proc/self/status") if line.startswith("SigBlk")).split()[1],
}
with open(out + ".new", "w") as file: json.dump(facts, file)
os.replace(out + ".new", out)
"""


@dataclass
class Launchpad:
    """A fleet's folder with launch documents, and launchers run by hand."""

    places: Places

    def write(self, spec: WorkerSpec, **secrets: str) -> Replica:
        replica = Replica(spec.group, 0, spec, digest(spec))
        folder = Folder(self.places)
        folder.make()
        history = self.places.starts_file(replica.name)
        kept = history.read_bytes() if history.exists() else None
        folder.write({replica: "; Written by fleet"}, secrets=secrets)
        if kept is not None:
            history.write_bytes(kept)
        return replica

    def popen(self, replica: Replica, *, env: dict[str, str] | None = None, **more: Any) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-P", "-m", "fleet.launch", str(self.places.spec_file(replica.name)), replica.digest]
        return subprocess.Popen(argv, env=env, cwd="/", **more)

    def run(self, spec: WorkerSpec, *, env: dict[str, str] | None = None, **secrets: str) -> int:
        """Launch once and wait for the end."""
        with self.popen(self.write(spec, **secrets), env=env) as process:
            return process.wait(PATIENCE)

    def facts(self, spec: WorkerSpec, *arguments: str, env: dict[str, str] | None = None, **secrets: str) -> Any:
        """What the program found."""
        out = self.places.root.parent / "facts"
        assert self.run(replace(spec, command=(*PYTHON, REPORT, str(out), *arguments)), env=env, **secrets) == 0, (
            self.log
        )
        return json.loads(out.read_text())

    @property
    def log(self) -> str:
        return self.places.log_file("thumbs.0").read_text(errors="surrogateescape")

    @property
    def log_so_far(self) -> str:
        return self.log if self.places.log_file("thumbs.0").exists() else ""

    @property
    def record(self) -> records.RecordView:
        found = records.read(self.places.record_file("thumbs.0"))
        assert found is not None
        return found


@pytest.fixture
def pad(short_tmp: Path) -> Launchpad:
    return Launchpad(Places.of(short_tmp, "shop"))


VALUES = [
    "a;b",
    " ; #c",
    "%(x)s",
    "%%",
    '"',
    "'",
    "two\nlines",
    "$HOME",
    "$(id)",
    "\\",
    "",
    " ",
    "Grüße 日本",
    "=@b",
    "x" * 9000,
]


@pytest.mark.parametrize("locale", ["C", "en_US.ISO-8859-1", "C.UTF-8"])
def test_values_arrive_byte_for_byte(pad: Launchpad, locale: str) -> None:
    raw = b"not \xff utf-8".decode("utf-8", "surrogateescape")
    values = [*VALUES, raw]
    env = tuple((f"V{number}", value) for number, value in enumerate(values))
    spec = spec_of(env=env, secret_env=(("SECRET", "key", "mark"),))

    facts = pad.facts(spec, *values, env={"PATH": os.environ["PATH"], "LC_ALL": locale}, key="s;e%c\nret")

    wanted = [value.encode("utf-8", "surrogateescape").hex() for value in values]
    assert facts["argv"] == wanted
    assert [facts["env"][name] for name, _ in env] == wanted
    assert bytes.fromhex(facts["env"]["SECRET"]) == b"s;e%c\nret"


def test_a_program_finds_a_clean_process(pad: Launchpad, tmp_path: Path) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        facts = pad.facts(spec_of(workdir=str(tmp_path)))
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    log = str(pad.places.log_file("thumbs.0"))
    assert (facts["stdin"], facts["stdout"], facts["stderr"]) == ("/dev/null", log, log)
    assert facts["descriptors"] == [0, 1, 2, 3], "the lock that keeps a second process of the replica waiting is 3"
    assert (facts["cwd"], facts["umask"]) == (str(tmp_path), 0o022)
    assert int(facts["blocked"], 16) == 0
    own = {
        signal.SIGPIPE,
        signal.SIGXFSZ,
        32,
        33,
    }  # Python's, and the two that libc keeps to itself (it may inherit them)
    assert int(facts["ignored"], 16) & ~sum(1 << (signum - 1) for signum in own) == 0
    assert facts["files"][0] >= min(facts["files"][1], 65_536)


def test_nothing_of_the_shell_that_started_it_is_inherited(pad: Launchpad) -> None:
    around = {"PATH": os.environ["PATH"], "HOME": "/home/me", "DATABASE_URL": "secret", "VIRTUAL_ENV": "/venv"}

    found = pad.facts(spec_of(), env=around)["env"]

    assert not {"DATABASE_URL", "VIRTUAL_ENV", "SUPERVISOR_ENABLED"} & found.keys()
    assert bytes.fromhex(found["HOME"]) == b"/home/me"


def test_the_log_is_private_and_appended_to(pad: Launchpad) -> None:
    for word in ("one", "two"):
        pad.run(spec_of(("/bin/sh", "-c", f"echo {word}; echo err {word} >&2")))

    assert [line for line in pad.log.splitlines() if "launch" not in line] == ["one", "err one", "two", "err two"]
    assert stat.S_IMODE(pad.places.log_file("thumbs.0").stat().st_mode) == 0o600


def test_a_command_of_the_interpreters_folder_is_found(pad: Launchpad, tmp_path: Path) -> None:
    (tmp_path / "hello").write_text("#!/bin/sh\necho found $PATH\n")
    (tmp_path / "hello").chmod(0o755)

    assert pad.run(spec_of(("hello",), python=str(tmp_path / "python"), env=(("PATH", "/usr/bin:/bin"),))) == 0
    assert "found /usr/bin:/bin" in pad.log


@pytest.mark.parametrize(
    ("more", "code", "line"),
    [
        ({"command": ("no-such-program",)}, 127, "cannot run 'no-such-program': not found in PATH"),
        ({"command": ("/etc/passwd",)}, 127, "cannot run '/etc/passwd': Permission denied"),
        ({"command": ("/nowhere/x",)}, 127, "cannot run '/nowhere/x': No such file or directory"),
        ({"workdir": "/nowhere"}, 1, "cannot enter the working folder"),
        ({"env": (("BIG", "x" * 200_000),)}, 127, "arguments and environment are too long"),
        ({"env": (("NUL", "a\0b"),)}, 1, "embedded null byte"),
    ],
)
def test_what_cannot_run_says_so_in_the_log(pad: Launchpad, more: dict[str, Any], code: int, line: str) -> None:
    assert pad.run(spec_of(**{"command": IDLE, **more})) == code
    assert line in pad.log
    assert "Traceback" not in pad.log


@pytest.mark.parametrize("command", [("false",), ("no-such-program",), ("true",)])
def test_a_crash_loop_waits_longer_and_longer_and_is_parked(pad: Launchpad, command: Sequence[str]) -> None:
    restart = RestartPolicy(backoff_initial_seconds=0.01, backoff_max_seconds=60.0, max_crashes=3)
    spec = spec_of(command, restart=restart)

    codes = [pad.run(spec) for _ in range(5)]

    assert codes[3] != 78
    assert codes[4] == 78
    assert pad.record.state == "failed"
    assert pad.record.note == "parked: 4 crashes in 600 s"
    parked = [entry["reason"] for entry in Audit(pad.places.audit).read() if entry["event"] == "worker.parked"]
    assert parked == [pad.record.note]
    assert "starts again in 0.01 s" in pad.log
    assert "starts again in 0.04 s" in pad.log
    assert "`fleet restart thumbs.0` tries again" in pad.log


def test_waiting_out_a_crash_is_seen_and_ends_at_once_on_term(pad: Launchpad) -> None:
    restart = RestartPolicy(backoff_initial_seconds=600.0, backoff_max_seconds=600.0)
    pad.run(spec_of(("false",), restart=restart))
    with pad.popen(pad.write(spec_of(("false",), restart=restart))) as process:
        eventually(lambda: pad.record.pid == process.pid and pad.record.note)
        assert pad.record.state == "starting"
        assert pad.record.note == "crashed 1 time; starts again in 600 s"
        process.send_signal(signal.SIGUSR1)  # somebody asks for stacks too early; that must not be its end
        process.terminate()
        assert process.wait(PATIENCE) == -signal.SIGTERM


def test_a_second_process_of_a_replica_waits_for_the_end_of_the_first(pad: Launchpad) -> None:
    replica = pad.write(spec_of())
    with pad.popen(replica) as first:
        eventually(lambda: pad.record.pid == first.pid and pad.record.state == "ready")
        with pad.popen(replica) as second:
            eventually(lambda: "an earlier process still drains" in pad.log)
            assert pad.record.pid == first.pid
            first.kill()
            first.wait()
            eventually(lambda: pad.record.pid == second.pid and pad.record.state == "ready")
            second.kill()


def test_children_of_a_killed_program_do_not_keep_the_next_one_waiting(pad: Launchpad, tmp_path: Path) -> None:
    child_file = tmp_path / "child"
    code = f"""
import os, signal
child = os.fork()
if child == 0: signal.pause()
with open({str(child_file)!r}, "w") as file: file.write(str(child) + "\\n")
signal.pause()
"""
    replica = pad.write(spec_of((*PYTHON, code)))
    with pad.popen(replica) as first:
        child = int(
            eventually(lambda: child_file.exists() and child_file.read_text().endswith("\n") and child_file.read_text())
        )
        first.kill()
    try:
        with pad.popen(replica) as second:
            eventually(lambda: pad.record.pid == second.pid and pad.record.state == "ready")
            grandchild = int(eventually(lambda: (text := child_file.read_text()) != f"{child}\n" and text))
            os.kill(grandchild, signal.SIGKILL)
            second.kill()
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "No such file or directory"),
        ("{", "is not a launch document"),
        ("[]", "is not a launch document"),
        ('{"fleet": "shop"}', "is not a launch document"),
        ("\x00\xff", "is not a launch document"),
    ],
)
def test_a_broken_document_is_named_in_the_replicas_log(pad: Launchpad, text: str | None, line: str) -> None:
    replica = pad.write(spec_of())
    path = pad.places.spec_file(replica.name)
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pad.popen(replica) as process:
        eventually(lambda: pad.places.log_file(replica.name).exists() and line in pad.log)
        assert (pad.record.cannot_start, pad.record.pid) == (True, process.pid)
        assert line in pad.record.note
        process.kill()


def test_a_refused_document_leaves_the_record_of_a_process_that_lives(pad: Launchpad) -> None:
    replica = pad.write(spec_of())
    with pad.popen(replica) as first:
        eventually(lambda: pad.record.state == "ready")
        pad.places.spec_file(replica.name).write_text("{")
        with pad.popen(replica) as second:
            eventually(lambda: "is not a launch document" in pad.log)
            assert (pad.record.pid, pad.record.state) == (first.pid, "ready")
            second.kill()
        first.kill()


def test_what_a_replica_has_done_stays_counted_when_its_document_is_refused(pad: Launchpad) -> None:
    replica = pad.write(spec_of())
    ended = "import sys; from pathlib import Path; from fleet.replica.record import Record\n"
    ended += "record = Record(Path(sys.argv[1]), digest='d', slots=1)\nrecord.processed, record.failed = 5, 2\n"
    ended += "record.become('stopped'); record.close()"
    subprocess.run([sys.executable, "-c", ended, str(pad.places.record_file(replica.name))], check=True)
    pad.places.spec_file(replica.name).write_text("{")
    with pad.popen(replica) as process:
        eventually(lambda: pad.places.log_file(replica.name).exists() and "is not a launch document" in pad.log)
        process.kill()
    totals = read_totals(pad.places)[replica.name]
    assert (totals.done, totals.failed) == (5, 2)


def test_a_document_for_another_digest_is_refused(pad: Launchpad) -> None:
    replica = replace(pad.write(spec_of()), digest="00000000")
    with pad.popen(replica) as process:
        eventually(
            lambda: pad.places.log_file(replica.name).exists() and "not 00000000: run `fleet apply` again" in pad.log
        )
        process.kill()


def test_a_launcher_whose_supervisor_has_died_does_not_start_anything(pad: Launchpad) -> None:
    replica = pad.write(spec_of())
    (pad.places.run / "supervisord.pid").write_text("1\n")

    with pad.popen(replica, env={**os.environ, "SUPERVISOR_ENABLED": "1"}) as process:
        assert process.wait(PATIENCE) == 1
    assert not pad.places.record_file(replica.name).exists()


def test_a_held_replica_is_still_held_after_its_launcher_wrote_the_record(pad: Launchpad) -> None:
    pad.run(spec_of(("true",)))
    records.set_hold(pad.places.record_file("thumbs.0"), on=True)
    pad.run(spec_of(("true",)))

    assert pad.record.hold
    assert pad.record.foreign, "nobody but the launcher writes the record of a command"


def test_the_launcher_imports_nothing_heavy() -> None:
    heavy = ["kombu", "celery", "billiard", "pydantic", "redis", "supervisor", "gevent", "psutil", "asyncio"]
    code = f"import sys, fleet.launch; print([name for name in {heavy!r} if name in sys.modules])"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@needs_second_account
def test_a_document_of_another_account_is_not_started(pad: Launchpad) -> None:
    """Whoever can write into the folder must not choose what this account runs."""
    out = pad.places.root.parent / "ran"
    replica = pad.write(spec_of(("touch", str(out))))
    give(pad.places.spec_file(replica.name))

    with pad.popen(replica) as process:
        eventually(lambda: "belongs to nobody, not to root" in pad.log_so_far)
        process.kill()

    assert not out.exists()


def test_a_document_that_is_a_link_is_not_started(pad: Launchpad) -> None:
    out = pad.places.root.parent / "ran"
    replica = pad.write(spec_of(("touch", str(out))))
    document = pad.places.spec_file(replica.name)
    document.rename(document.with_name("elsewhere"))
    document.symlink_to("elsewhere")

    with pad.popen(replica) as process:
        eventually(lambda: "it is a symbolic link" in pad.log_so_far)
        process.kill()

    assert not out.exists()


def crash_events(pad: Launchpad) -> list[dict[str, Any]]:
    return [entry for entry in Audit(pad.places.audit).read() if entry["event"] == "worker.crashed"]


def after(pad: Launchpad, *, status: int | None, asked: bool = False) -> list[dict[str, Any]]:
    """What the second launch tells of the first, which ended with this status, as supervisord wrote it down."""
    spec = spec_of(("/bin/true",))
    pad.run(spec)
    if status is not None:
        path = ending_file(pad.places.records, "thumbs.0")
        write_ending(path, Ending(pad.record.pid, status, asked, time.time()))
    pad.run(spec)
    return crash_events(pad)


def test_a_crash_is_an_event(pad: Launchpad) -> None:
    (entry,) = after(pad, status=int(signal.SIGKILL))

    assert (entry["replica"], entry["signal"], entry["exitCode"], entry["by"]) == ("thumbs.0", "SIGKILL", None, "fleet")
    assert entry["reason"].startswith("killed by SIGKILL after ")


def test_an_exit_code_is_told(pad: Launchpad) -> None:
    (entry,) = after(pad, status=3 << 8)

    assert (entry["signal"], entry["exitCode"]) == ("", 3)


def test_a_crash_that_nobody_saw_is_an_event_too(pad: Launchpad) -> None:
    (entry,) = after(pad, status=None)

    assert "nobody saw how" in entry["reason"]


def test_what_was_stopped_on_purpose_did_not_crash(pad: Launchpad) -> None:
    assert after(pad, status=int(signal.SIGKILL), asked=True) == []


def test_an_audit_that_another_process_holds_stops_no_start(pad: Launchpad) -> None:
    pad.run(spec_of(("/bin/true",)))
    pad.places.state.mkdir(exist_ok=True)
    with pad.places.audit.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert pad.run(spec_of(("/bin/echo", "started"))) == 0

    assert "started" in pad.log
    assert crash_events(pad) == []


def test_starts_and_crashes_are_counted_over_all_processes(pad: Launchpad) -> None:
    after(pad, status=int(signal.SIGKILL))

    assert read_totals(pad.places)["thumbs.0"] == Totals(restarts=1, crashes=1)


def test_a_full_disk_for_counters_stops_no_start(pad: Launchpad) -> None:
    pad.places.state.mkdir(parents=True)
    pad.places.counters.write_text("no folder")

    assert pad.run(spec_of(("/bin/true",))) == 0


def waits_for(*urls: str, seconds: float) -> WorkerSpec:
    restart = RestartPolicy(backoff_initial_seconds=0.1, backoff_max_seconds=0.1)
    return replace(spec_of(("true",), restart=restart), wait_for=WaitSpec(urls, seconds))


def test_the_program_starts_when_all_it_waits_for_answers(pad: Launchpad, short_tmp: Path) -> None:
    late = short_tmp / "late.sock"
    spec = replace(
        waits_for(f"unix://{late}", f"unix://{late}", seconds=PATIENCE), command=("touch", str(late) + ".on")
    )
    replica = pad.write(spec)
    with pad.popen(replica) as process:
        note = f"waits for unix://{late}: No such file or directory"
        assert eventually(lambda: pad.log_so_far.count(note))
        assert (pad.record.state, pad.record.note) == ("starting", note[:96])
        assert not Path(f"{late}.on").exists()
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(late))
            server.listen()
            assert process.wait(PATIENCE) == 0
    assert Path(f"{late}.on").exists()
    assert "all it waited for answers" in pad.log
    assert pad.log.count("waits for") == 1, "once for each reason, not for each attempt"


def test_what_does_not_answer_in_time_is_a_crash_with_a_reason_and_a_back_off(pad: Launchpad, short_tmp: Path) -> None:
    spec = waits_for(f"unix://{short_tmp}/none", seconds=0.1)
    reason = f"waited 0.1 s for unix://{short_tmp}/none: No such file or directory"
    for crashes in (0, 1):
        assert pad.run(spec) == 1
        assert pad.record.note == reason[:96]
        assert (pad.record.state, pad.record.cannot_start, pad.record.crashes) == ("starting", True, crashes)
    assert pad.log.count(reason) == 2
    assert "crashed 1 time; starts again in 0.1 s" in pad.log


def test_a_job_that_never_began_is_tried_again(pad: Launchpad, short_tmp: Path) -> None:
    spec = waits_for(f"unix://{short_tmp}/late", seconds=0.1)
    spec = replace(spec, job=True, restart=replace(spec.restart, policy="never"))
    assert pad.run(spec) == 1
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{short_tmp}/late")
        server.listen()
        assert pad.run(spec) == PARKED_EXIT
    assert pad.record.state == "stopped"
    assert pad.record.note.startswith("exit code 0 after")


def test_one_that_is_stopped_while_it_waits_has_not_crashed(pad: Launchpad, short_tmp: Path) -> None:
    spec = waits_for(f"unix://{short_tmp}/none", seconds=PATIENCE)
    for waits in (1, 2):
        with pad.popen(pad.write(spec)) as process:
            assert eventually(lambda waits=waits: pad.log_so_far.count("waits for") == waits)
            process.terminate()
            assert process.wait(PATIENCE) == -signal.SIGTERM
    assert pad.record.crashes == 0
    assert "crashed" not in pad.log
