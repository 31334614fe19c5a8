"""Runs a shell line, or a program with ``stop.group``, so that stopping reaches all that it started.

``python -m fleet.replica.shell GRACE_SECONDS SIGNAL shell|group PROGRAM ARGV…`` stays in front of the program as the
replica's process. A shell that gets TERM dies and leaves its children running; here the children get TERM as well,
processes whose parent is gone are adopted and get it too, and what is left after the grace is killed and named. The
signal is TERM unless the manifest names another. Stdlib only.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05
_KILL_WAIT_SECONDS = 5.0
_PASSED_ON = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2, signal.SIGWINCH)
_SHELL = r"(?:^|/)(?:ba|da|a|z|k)?sh$"


def is_shell(argv: tuple[str, ...]) -> bool:
    """Whether the command is a shell that runs a line or a script."""
    return len(argv) > 1 and re.search(_SHELL, argv[0]) is not None


def kept_argv(
    program: str, argv: tuple[str, ...], *, grace_seconds: float, stop: str = "TERM", group: bool = False
) -> tuple[str, ...]:
    """What to exec instead of the program itself. ``group``: all that it has started gets the signal too."""
    reach = "group" if group else "shell"
    return (sys.executable, "-P", "-m", __name__, f"{grace_seconds:g}", stop, reach, program, *argv)


def main(argv: list[str]) -> int:
    """Run the program to its end. Returns its exit code, 128 and the signal where one ended it."""
    return run(argv)[0]


def run(argv: list[str]) -> tuple[int, bool]:
    """Run the program to its end. Returns its exit code, and whether it was asked to end."""
    grace, stop, reach, program, words = float(argv[0]), signal.Signals[f"SIG{argv[1]}"], argv[2], argv[3], argv[4:]
    waited_for = {signal.SIGCHLD, signal.SIGTERM, stop}
    passed_on = {*_PASSED_ON} - waited_for
    signal.pthread_sigmask(signal.SIG_BLOCK, waited_for | passed_on)  # the shell may run before there is a handler
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shell = _started(program, words)
    for signum in passed_on:
        signal.signal(signum, lambda number, _frame: _send(shell, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
    code = None
    while code is None and signal.sigwaitinfo(waited_for).si_signo == signal.SIGCHLD:
        code, _ = _reaped(shell)
    asked = code is None
    return _ended(shell, code, stop=stop, group=reach == "group", grace_seconds=grace), asked


def _started(program: str, words: list[str]) -> int:
    """The pid of the shell: with default signals, in the same process group, ended when this process dies."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() == parent:
            os.execv(program, words)
    except OSError as error:
        os.write(2, f"fleet: cannot run {program}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _reaped(shell: int) -> tuple[int | None, bool]:
    """Collect children that have ended: the exit code of the shell, where it is among them, and whether any is left.

    What is left, waitpid knows: /proc may leave out living children while others end (proc(5)).
    """
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return code, True
            if pid == shell:
                ended = os.waitstatus_to_exitcode(status)
                code = ended if ended >= 0 else 128 - ended
    return code, False


def _ended(shell: int, code: int | None, *, stop: int, group: bool, grace_seconds: float) -> int:
    """End all that is left: the signal once to the shell, to the children it has and to what is adopted later, then
    KILL. ``group``: to whatever they have started, too.

    What the shell starts from now on is its own way to end (a trap): it is left alone.
    """
    asked: set[int] = set()
    end = time.monotonic() + grace_seconds
    # The shell first: it must not go on with its next command.
    to_ask = [shell, *(_descendants(shell) if group else _children(shell))] if code is None else []
    while True:
        to_ask += _children(os.getpid())
        for pid in to_ask:
            if pid not in asked:
                asked.add(pid)
                _send(pid, stop)
        to_ask = []
        ended, left = _reaped(shell)
        code = ended if ended is not None else code
        if code is not None and not left:
            return code
        if time.monotonic() >= end:
            return _killed(shell, code)
        time.sleep(_POLL_SECONDS)


def _killed(shell: int, code: int | None) -> int:
    """Kill the whole tree below this process, name it in the log, and collect it."""
    end = time.monotonic() + _KILL_WAIT_SECONDS
    named: set[int] = set()
    left = True
    while left and time.monotonic() < end:
        for pid in _descendants(os.getpid()):
            if pid not in named:
                named.add(pid)
                os.write(2, f"fleet: killed what did not stop: {pid} {_command_line(pid)}\n".encode())
            _send(pid, signal.SIGKILL)
        ended, left = _reaped(shell)
        code = ended if ended is not None else code
        time.sleep(_POLL_SECONDS)
    return 128 + signal.SIGKILL if code is None else code


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def _children(pid: int) -> list[int]:
    """Living children, those that wait to be collected left out."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += [int(child) for child in file.read().split()]
    return [child for child in found if _state(child) not in {"Z", "X", ""}]


def _state(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0].decode()
    return ""


def _descendants(pid: int) -> list[int]:
    found = _children(pid)
    for child in list(found):
        found += _descendants(child)
    return found


def _command_line(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().replace(b"\0", b" ").decode(errors="replace").strip()[:200]
    return "?"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
