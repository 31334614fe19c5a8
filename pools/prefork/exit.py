"""The exit of a process: signals that cause it, how it is noticed and waited for, and its exit code as text."""

from __future__ import annotations

import contextlib
import os
import select
import signal


def reap(pid: int, *, wait: bool = False) -> tuple[bool, int | None]:
    """Whether the child has exited, and its exit code: negative for a signal, None when it was reaped elsewhere."""
    try:
        found, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
    except ChildProcessError:
        return True, None
    return found == pid, os.waitstatus_to_exitcode(status) if found == pid else None


def has_exited(pid: int, pidfd: int = -1) -> bool:
    """Whether the child has exited, without reaping it: as a zombie it still owns its pid and its group."""
    if pidfd >= 0:
        return await_exit(pidfd, 0)
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def await_exit(pidfd: int, seconds: float) -> bool:
    """Whether the process ends within this time."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def kill_and_wait(pid: int, pidfd: int, seconds: float) -> None:
    """Kill a child and all of its group, and wait at most this long for its end; not at all without a pidfd."""
    signal_group(pid, signal.SIGKILL)
    if pidfd >= 0:
        await_exit(pidfd, seconds)


def signal_group(pid: int, signum: int) -> None:
    """Send a signal to the process group that a child leads, or to the child alone while it does not lead one yet."""
    try:
        os.killpg(pid, signum)
    except ProcessLookupError:
        signal_process(pid, signum)
    except PermissionError:  # a process of the group has changed its user
        signal_process(pid, signum)


def signal_process(pid: int, signum: int) -> None:
    """Send a signal to a child; does nothing when it is gone or has changed its user."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def exit_text(exit_code: int | None) -> str:
    """An exit code as text, with the name of the signal."""
    if exit_code is None:
        return "exit code unknown"
    if exit_code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-exit_code).name}"
    return f"exit code {exit_code}"
