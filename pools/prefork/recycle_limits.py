"""What a child may use up before a fresh one takes its place."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from pathlib import Path

JITTER = 0.1
"""Each child may use up to this much less than was asked for, by chance: so they do not all leave together."""
CEILING = 2
"""A running task may take its child this many times over the memory limit. Then the child is killed."""

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class RecycleLimits:
    """Tasks, seconds of life, resident memory; None: as many as it likes.

    Memory counts what is resident now, not the most there ever was. A child over its limit finishes its task and is
    then replaced, since most tasks that are a little fat end well; only past ``CEILING`` times the limit it is killed
    in the middle of the task, so that one task cannot take the machine down.
    """

    tasks: int | None = None
    seconds: float | None = None
    memory_bytes: int | None = None

    @property
    def ceiling_bytes(self) -> int | None:
        """The memory at which a child is killed."""
        return None if self.memory_bytes is None else self.memory_bytes * CEILING

    def for_one_child(self) -> RecycleLimits:
        """The part of one child."""
        return RecycleLimits(
            None if self.tasks is None else self.tasks - random.randint(0, int(self.tasks * JITTER)),
            None if self.seconds is None else self.seconds * random.uniform(1 - JITTER, 1),
            None if self.memory_bytes is None else int(self.memory_bytes * random.uniform(1 - JITTER, 1)),
        )


def resident_bytes(pid: int) -> int:
    """What a process has in memory now; 0 when that cannot be known."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
