"""Tells a worker that runs to look now at what was written for it: the hold in its record, its launch document.

A worker that has had nothing to do for a while looks at these every few seconds only, so that it costs nothing. The
signal is one that every program ignores unless it asks for it: sent to a process that does not know it, or too late, it
does nothing, and the worker notices with its next look.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

from fleet.replica import record as records
from fleet.replica.process_identity import lives

LOOK = signal.SIGURG


def look_now(record: Path) -> None:
    """Wake the worker that keeps this record. Never raises; a program that keeps no record of its own hears nothing."""
    found = records.read(record)
    if found is None or found.foreign or not found.started_ticks or not lives(found.pid, found.started_ticks):
        return
    with suppress(OSError):
        os.kill(found.pid, LOOK)
