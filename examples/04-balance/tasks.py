"""A task that waits, as for somebody else's server, and notes when it began and when it ended."""

from __future__ import annotations

import os
import time

from fleet import Tasks

tasks = Tasks("balance")


def note(text: str) -> None:
    """One line; a short line appended with one write is never torn."""
    descriptor = os.open(os.environ["BALANCE_OUT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{text} {time.time()!r}\n".encode())
    finally:
        os.close(descriptor)


@tasks.task(name="wait")
def wait(number: int, seconds: float) -> None:
    """What began and never ended was lost or cut; what ended twice was done twice."""
    note(f"began {number}")
    time.sleep(seconds)
    note(f"ended {number}")
