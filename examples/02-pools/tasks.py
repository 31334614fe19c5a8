"""Two kinds of work: one that waits, as for a web server, and one that computes."""

from __future__ import annotations

import hashlib
import os
import time

from fleet import Tasks

tasks = Tasks("pools")


def done() -> None:
    """One byte for each task that has ended, for whoever measures."""
    descriptor = os.open(os.environ["COMPARE_OUT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, b".")
    os.close(descriptor)


@tasks.task(name="wait")
def wait(seconds: float) -> None:
    """Wait for somebody else."""
    time.sleep(seconds)
    done()


@tasks.task(name="compute")
def compute(rounds: int) -> None:
    """Keep one processor busy, in small steps of Python."""
    digest = b""
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
    done()
