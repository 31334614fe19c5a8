"""A task with a number that notes when it began and when it ended: what was lost or done twice can be told."""

from __future__ import annotations

import os
import time

from fleet import Tasks

tasks = Tasks("chaos")


def _note(journal: str, what: str, number: int) -> None:
    """One line with one write: lines of many processes never mix."""
    descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{what} {number}\n".encode())
    finally:
        os.close(descriptor)


@tasks.task(name="chaos.work")
def work(journal: str, number: int, seconds: float) -> None:
    """As for somebody else's server."""
    _note(journal, "began", number)
    time.sleep(seconds)
    _note(journal, "ended", number)
