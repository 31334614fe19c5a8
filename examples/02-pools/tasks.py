"""Two kinds of work: one that waits, as for a web server, and one that computes."""

from __future__ import annotations

import hashlib
import time

from fleet import Tasks

tasks = Tasks("pools")


@tasks.task(name="wait")
def wait(seconds: float) -> None:
    """Wait for somebody else."""
    time.sleep(seconds)


@tasks.task(name="compute")
def compute(rounds: int) -> None:
    """Keep one processor busy, in small steps of Python."""
    digest = b""
    for _ in range(rounds):
        digest = hashlib.sha256(digest).digest()
