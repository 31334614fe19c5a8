"""The heartbeat of a fleet's controller: when it looked last, and when it looks again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet.core.decode import decoded
from fleet.core.text.format import duration
from fleet.file_access import SMALL_BYTES, read_file
from fleet.state.files import write_whole

LATE_SECONDS = 60.0
"""A look may ask a broker and a supervisor that are slow to answer, and it waits for a change under way."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """at: when the last look ended, Unix seconds; 0.0 before the first.  next_at: when the next one is due.  pid: of
    the controller.  error: why the last look failed, or ''.
    """

    at: float = 0.0
    next_at: float = 0.0
    pid: int = 0
    error: str = ""

    def problem(self, uptime_seconds: float, *, now: float) -> str:
        """What is wrong with a controller that has lived for so long, or ''."""
        since = max(self.next_at, now - uptime_seconds)  # what an earlier process left is no fault of this one
        if now - since <= LATE_SECONDS:
            return ""
        ago = f"{duration(max(0, round(now - self.at)))} ago" if self.at else "never"
        return f"no heartbeat: the controller looked last {ago}"


def read(path: Path) -> Heartbeat:
    """The last one; an empty one where there is none that makes sense."""
    try:
        return decoded(Heartbeat, json.loads(read_file(path, limit_bytes=SMALL_BYTES)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Heartbeat()


def write(path: Path, heartbeat: Heartbeat) -> None:
    """Keep it, whole or not at all; not waiting for the disk."""
    write_whole(path, json.dumps(asdict(heartbeat), ensure_ascii=False), lasting=False)
