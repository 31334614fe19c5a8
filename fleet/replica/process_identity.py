"""Whether a process is still the same one: the kernel uses pids again, a pid with a start time is unique."""

from __future__ import annotations

import os

_STATE, _START = 0, 19
_ENDED = (b"Z", b"X")


def started_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot. None when it has ended or cannot be read."""
    fields = _fields(pid)
    return None if len(fields) <= _START or fields[_STATE] in _ENDED else int(fields[_START])


def is_stopped(pid: int) -> bool:
    """Whether somebody stopped it (SIGSTOP, Ctrl-Z): until it goes on it notices no signal but KILL."""
    return _fields(pid)[:1] == [b"T"]


def _fields(pid: int) -> list[bytes]:
    """What /proc says of a process behind its name; nothing when it has ended or cannot be read."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return []
    try:
        # The name of the program stands in parentheses and may hold anything.
        return os.read(descriptor, 4096).rpartition(b")")[2].split()
    except OSError:
        return []
    finally:
        os.close(descriptor)


def lives(pid: int, ticks: int = 0) -> bool:
    """Whether this very process runs. ``ticks`` 0: its start is not known, and only the pid is compared."""
    if pid <= 0:
        return False
    found = started_ticks(pid)
    if found is not None:
        return not ticks or found == ticks
    return not os.path.exists(f"/proc/{pid}/stat") and _can_be_signalled(pid)


def _can_be_signalled(pid: int) -> bool:
    """Where /proc hides the processes of others."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # a number in a damaged file may be no pid at all
        return False
    except PermissionError:
        return True
    return True
