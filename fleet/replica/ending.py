"""How the last process of a replica ended: supervisord's plug-in writes it, the launcher of the next process reads it.

Only the parent of a process learns by which signal or with which code it ended. The file is small, without fsync and
never waited for: where it is missing, or of an earlier process, how a process ended is not known.
"""

from __future__ import annotations

import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from fleet.core.text.format import counted, duration
from fleet.file_access import SMALL_BYTES, open_own, read_file
from fleet.replica.record import RecordView

_SHOWN_TASKS = 3


@dataclass(frozen=True, slots=True)
class Ending:
    """status: as ``waitpid`` gave it.  asked: supervisord was told to stop it.  at: Unix seconds."""

    pid: int
    status: int
    asked: bool
    at: float

    @property
    def signal_name(self) -> str:
        """``SIGKILL``; '' where it exited by itself."""
        if not os.WIFSIGNALED(self.status):
            return ""
        number = os.WTERMSIG(self.status)
        try:
            return signal.Signals(number).name
        except ValueError:
            return f"signal {number}"

    @property
    def exit_code(self) -> int | None:
        """None where a signal ended it."""
        return os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else None

    @property
    def how(self) -> str:
        """For people: ``killed by SIGKILL``, ``exit code 3``."""
        return f"killed by {self.signal_name}" if self.signal_name else f"exit code {self.exit_code}"


def ending_file(records: Path, replica: str) -> Path:
    """Where it is kept: beside the record."""
    return records / f"{replica}.end"


def write_ending(path: Path, ending: Ending) -> None:
    """Replace the file in one step. Raises OSError."""
    fresh = path.with_name(f".{path.name}.tmp")
    descriptor = open_own(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with open(descriptor, "w") as file:
        json.dump([ending.pid, ending.status, ending.asked, ending.at], file)
    os.replace(fresh, path)


def read_ending(path: Path) -> Ending | None:
    """The ending that was written last, or None where there is none that can be read."""
    try:
        pid, status, asked, at = json.loads(read_file(path, limit_bytes=SMALL_BYTES, own=True))
        return Ending(int(pid), int(status), bool(asked), float(at))
    except (OSError, ValueError, TypeError, OverflowError, RecursionError):
        return None


def crash_text(how: str, lived_seconds: float, record: RecordView | None) -> str:
    """``killed by SIGKILL after 3 min 2 s; it ran shop.thumb (b3f1…)``, in one line."""
    text = f"{how} after {duration(max(0, round(lived_seconds)))}"
    tasks = record.tasks if record is not None else ()
    if not tasks:
        return text
    shown = ", ".join(f"{task.task_name} ({task.task_id})" for task in tasks[:_SHOWN_TASKS])
    more = len(tasks) - _SHOWN_TASKS
    return f"{text}; it ran {shown}" + (f" and {counted(more, 'task')} more" if more > 0 else "")
