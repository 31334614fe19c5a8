"""Two tasks: one that ends at once, for latency, and one with about a millisecond of work, for throughput.

Each writes one line about itself: its name, when it was sent, when it began, when it ended.
"""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from functools import cache
from pathlib import Path

from fleet import Tasks

tasks = Tasks("measured", queue="work")


@cache
def journal() -> int:
    """The file all tasks write to; a short line appended with one write is never torn."""
    return os.open(os.environ["MEASURE_OUT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def note(name: str, sent_at: float, began_at: float) -> None:
    """One line for the measurement."""
    os.write(journal(), f"{name} {sent_at!r} {began_at!r} {time.time()!r}\n".encode())


@tasks.task
def short(sent_at: float) -> None:
    """Nothing but being there."""
    note("short", sent_at, time.time())


@tasks.task
def work(sent_at: float) -> None:
    """Compress this very file, many times over, and take checksums."""
    began_at = time.time()
    data = Path(__file__).read_bytes() * 8
    for level in (1, 6, 9):
        hashlib.sha256(zlib.compress(data, level)).hexdigest()
    note("work", sent_at, began_at)
