"""A task that waits, and notes when it began and when it ended: what was lost, cut or done twice can be told."""

from __future__ import annotations

import os
import time

from fleet import Tasks

tasks = Tasks("waits")


def _note(what: str, number: int) -> None:
    """One line with one write: lines of many processes never mix."""
    descriptor = os.open(os.environ["BENCH_JOURNAL"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, f"{what} {number} {time.time()!r}\n".encode())
    finally:
        os.close(descriptor)


@tasks.task(name="bench.wait")
def wait(number: int, seconds: float) -> None:
    """As for somebody else's server."""
    _note("began", number)
    time.sleep(seconds)
    _note("ended", number)
