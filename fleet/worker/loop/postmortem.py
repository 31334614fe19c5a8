"""What is known of a process that died with a task: how it ended, and what it last wrote into the worker's log."""

from __future__ import annotations

import json
import os
import re
import signal
import stat

from pools.errors import HardTimeLimit, MemoryLimit, SlotLost

LOG_HEADER = "x-fleet-log"
EXIT_HEADER = "x-fleet-exit"

_LOG_FD = 2
_TAIL_BYTES = 128 * 1024
_MOST_LINES = 20
_MOST_OF_A_FATAL_ERROR = 8
_MOST_CHARACTERS = 4096
_LONGEST_LINE = 400
_FATAL = "Fatal Python error:"
_TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}(?:[+-]\d{4})? [A-Z]+ \S+\[(\d+)\] ")


def story(error: BaseException, pid: int) -> dict[str, str]:
    """Headers for the dead letter of a task whose process had to die, or just did. Empty for other ends."""
    if not isinstance(error, (SlotLost, MemoryLimit, HardTimeLimit)) or pid in (0, os.getpid()):
        return {}
    headers = {EXIT_HEADER: _exit_name(error.exit_code)} if isinstance(error, SlotLost) else {}
    if lines := last_lines(pid):
        headers[LOG_HEADER] = lines
    return headers


def last_lines(pid: int, *, fd: int = _LOG_FD) -> str:
    """The last lines of one process in this worker's log; empty where the log is no file.

    What the interpreter writes when it crashes (``faulthandler``) has no pid: the last such report is taken as its own.
    """
    own: list[str] = []
    fatal: list[str] = []
    block: list[str] = []
    for line in _tail(fd).splitlines():
        owner = _owner(line)
        if owner is not None:
            block = own if owner == pid else []
        elif line.startswith(_FATAL):
            block = fatal = []
        block.append(line[:_LONGEST_LINE])
    fatal = fatal[:_MOST_OF_A_FATAL_ERROR]  # its last call comes first
    own = own[-(_MOST_LINES - len(fatal)) :]
    return "\n".join([*own, *fatal])[-_MOST_CHARACTERS:]


def _tail(fd: int) -> str:
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return ""
        with open(f"/proc/self/fd/{fd}", "rb") as log:  # the descriptor itself may be for writing only
            log.seek(max(0, os.fstat(fd).st_size - _TAIL_BYTES))
            return log.read(_TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _owner(line: str) -> int | None:
    """The pid in a line of the log; None for a continued line, or one without a pid."""
    if match := _TEXT_LINE.match(line):
        return int(match[1])
    if line.startswith('{"time": '):
        try:
            return int(json.loads(line)["pid"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None
    return None


def _exit_name(code: int | None) -> str:
    if code is None:
        return "unknown"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"
