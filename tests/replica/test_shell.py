"""Stopping a shell line reaches what it started: the program hears TERM, and nothing of the tree is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from fleet.replica.shell import is_shell, kept_argv
from tests.conftest import PATIENCE, eventually

PROGRAM = """#!/bin/sh
trap 'echo heard > "{folder}/heard"; exit 3' TERM
echo $$ > "{folder}/pid"
while :; do sleep 0.05; done
"""
DEAF = """#!/bin/sh
trap '' TERM
echo $$ > "{folder}/pid"
while :; do sleep 0.05; done
"""
LONG = 600.0

FORMS = {
    "after cd": "cd / && {program}",
    "pipe": "{program} | cat",
    "or": "{program} || echo failed",
    "redirection": "{program} > {folder}/out 2>&1; true",
    "list": "true; {program}; echo never > {folder}/never",
    "background": "{program} & wait",
    "subshell": "({program}; true) & wait",
    "trap of the shell": "trap 'true' TERM; {program}; true",
    "exec": "exec {program}",
}


def write(folder: Path, text: str) -> Path:
    program = folder / "program"
    program.write_text(text.format(folder=folder))
    program.chmod(0o755)
    return program


@contextmanager
def running(line: str, *, grace_seconds: float) -> Iterator[subprocess.Popen[str]]:
    """The line as a replica runs it, in a process group of its own, which is killed in the end."""
    argv = kept_argv("/bin/sh", ("sh", "-c", line), grace_seconds=grace_seconds)
    # As a launcher leaves them: a shell cannot trap what was ignored before, as SIGHUP is in everything below nohup.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process = subprocess.Popen(argv, start_new_session=True, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGHUP, before)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def started(folder: Path) -> int:
    return int(eventually(lambda: (folder / "pid").exists() and (folder / "pid").read_text().strip()))


def members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(name))
    return found


@pytest.mark.parametrize("form", FORMS)
def test_term_reaches_the_program_and_nothing_is_left(form: str, tmp_path: Path) -> None:
    program = write(tmp_path, PROGRAM)
    with running(FORMS[form].format(program=program, folder=tmp_path), grace_seconds=LONG) as process:
        started(tmp_path)
        process.terminate()
        process.wait(PATIENCE)
        assert members(process.pid) == []
    assert (tmp_path / "heard").exists()
    assert not (tmp_path / "never").exists()


def test_what_a_trap_runs_is_left_alone(tmp_path: Path) -> None:
    line = f"trap 'for i in 1 2 3 4 5; do sleep 0.1 || exit 9; echo $i >> {tmp_path}/said; done; exit 7' TERM; "
    with running(f"{line} echo up > {tmp_path}/up; while :; do sleep 0.05; done", grace_seconds=LONG) as process:
        eventually(lambda: (tmp_path / "up").exists())
        process.terminate()
        assert process.wait(PATIENCE) == 7
    assert (tmp_path / "said").read_text().split() == ["1", "2", "3", "4", "5"]


def test_what_does_not_stop_is_killed_after_the_grace_and_named(tmp_path: Path) -> None:
    program = write(tmp_path, DEAF)
    with running(f"{program}; true", grace_seconds=0.2) as process:
        pid = started(tmp_path)
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
        assert members(process.pid) == []
    assert f"fleet: killed what did not stop: {pid} " in errors
    assert str(program) in errors


def test_what_a_shell_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    program = write(tmp_path, PROGRAM)
    line = f"{program} & until [ -e {tmp_path}/pid ]; do sleep 0.02; done; exit 7"
    with running(line, grace_seconds=LONG) as process:
        assert process.wait(PATIENCE) == 7
        assert members(process.pid) == []
    assert (tmp_path / "heard").exists()


@pytest.mark.parametrize(("line", "code"), [("exit 0", 0), ("exit 5", 5), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_shells(line: str, code: int) -> None:
    with running(line, grace_seconds=LONG) as process:
        assert process.wait(PATIENCE) == code


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGINT, signal.SIGUSR2])
def test_other_signals_reach_the_shell(signum: signal.Signals, tmp_path: Path) -> None:
    name = signum.name.removeprefix("SIG")
    line = f"trap 'exit 9' {name}; echo x > {tmp_path}/pid; while :; do sleep 0.05; done"
    with running(line, grace_seconds=LONG) as process:
        eventually((tmp_path / "pid").exists)
        process.send_signal(signum)
        assert process.wait(PATIENCE) == 9


@pytest.mark.parametrize(
    ("argv", "shell"),
    [
        (("sh", "-c", "x"), True),
        (("/usr/bin/bash", "run.sh"), True),
        (("sh",), False),
        (("python", "-c", "x"), False),
        (("fish-sh-like", "-c"), False),
    ],
)
def test_only_shells_are_kept(argv: tuple[str, ...], shell: bool) -> None:
    assert is_shell(argv) is shell


def test_it_imports_nothing_but_the_standard_library() -> None:
    code = (
        "import sys, fleet.replica.shell; print([name for name in sys.modules if name.startswith(('fleet', 'pools'))])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert set(eval(done.stdout)) == {"fleet", "fleet._version", "fleet.replica", "fleet.replica.shell"}


def test_a_program_with_its_own_signal_and_all_it_started_get_that_signal(tmp_path: Path) -> None:
    child = write(
        tmp_path,
        "#!/bin/sh\ntrap 'echo child >> {folder}/told; exit 0' USR1\necho $$ > {folder}/pid\n"
        "while :; do sleep 0.05; done\n",
    )
    inner = f"trap 'echo main >> {tmp_path}/told; exit 7' USR1; ({child} & wait) & wait"
    argv = kept_argv("/bin/sh", ("sh", "-c", inner), grace_seconds=30, stop="USR1", group=True)
    process = subprocess.Popen(argv, start_new_session=True, stderr=subprocess.PIPE, text=True)
    started(tmp_path)
    process.send_signal(signal.SIGUSR1)
    _, said = process.communicate()
    assert process.returncode == 7
    assert "killed" not in said
    assert sorted((tmp_path / "told").read_text().split()) == ["child", "main"]
