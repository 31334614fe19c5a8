"""How many tasks, how much time and how much memory a child may use before a fresh one takes its place."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

JITTER = 0.1
"""Each child may use up to this part less than was asked for, at random, so that they do not all leave together."""
CEILING = 2
"""A running task may take its child this many times over the memory limit. Then the child is killed."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class RecycleLimits:
    """Tasks, seconds since the start, resident bytes; None: no limit.

    Memory counts what is resident now, not the most there ever was. A child over its limit finishes its task and is
    then replaced, since most tasks that use a little too much end well. Only past ``CEILING`` times the limit it is
    killed in the middle of the task, so that one task cannot use up the memory of the machine.
    """

    tasks: int | None = None
    seconds: float | None = None
    memory_bytes: int | None = None

    @property
    def ceiling_bytes(self) -> int | None:
        """Resident bytes at which a child is killed; None without a limit."""
        return None if self.memory_bytes is None else self.memory_bytes * CEILING

    def for_one_child(self) -> RecycleLimits:
        """The limits of one child: up to ``JITTER`` less than these."""
        return RecycleLimits(
            None if self.tasks is None else self.tasks - random.randint(0, int(self.tasks * JITTER)),
            None if self.seconds is None else self.seconds * random.uniform(1 - JITTER, 1),
            None if self.memory_bytes is None else int(self.memory_bytes * random.uniform(1 - JITTER, 1)),
        )


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now; 0 when it cannot be read."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
