"""What is known of groups and queues at one moment. A metric that could not be measured is a value: None."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Sample:
    """One group, seen once. Counters only grow, except that they begin again at 0 when their source does.

    queue: tasks waiting, not yet with a worker.  oldest_age_seconds: how long the first of them has waited.
    completions, busy_seconds: counters.  busy, ready, starting, draining: slots; those that drain may be busy.
    age_is_estimated: the age was worked out, not measured; nothing drastic is decided on it.
    """

    queue: int | None = None
    oldest_age_seconds: float | None = None
    completions: int | None = None
    busy_seconds: float | None = None
    busy: int = 0
    ready: int = 0
    starting: int = 0
    draining: int = 0
    age_is_estimated: bool = False

    @property
    def has(self) -> int:
        """Slots that take work, now or soon."""
        return self.ready + self.starting

    @property
    def missing(self) -> tuple[str, ...]:
        """Metrics without which the need of the group is unknown."""
        needed = {"queue": self.queue, "completions": self.completions, "busySeconds": self.busy_seconds}
        return tuple(name for name, value in needed.items() if value is None)

    @property
    def measured_age_seconds(self) -> float | None:
        """The age of the oldest waiting task, where it was measured."""
        return None if self.age_is_estimated else self.oldest_age_seconds


@dataclass(frozen=True, slots=True)
class QueueSample:
    """One queue.

    waiting: messages nobody has yet, delayed ones that are due among them; None: no telling.  oldest_sent_at: Unix
    seconds at which the next of them was sent, or was due where it had a date, by the clock of its sender; None where
    that cannot be known.
    """

    waiting: int | None = None
    oldest_sent_at: float | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a broker says of all queues that were asked for, by name.

    held: replica name -> messages delivered to it and not acknowledged, as the broker knows; of dead replicas too,
    until their messages are given to others. None where the broker does not tell.  problem: why something could not
    be learned, for people; '' when all is well.
    """

    queues: Mapping[str, QueueSample]
    held: Mapping[str, int] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Count:
    """What one process has counted since it began."""

    completions: int
    busy_seconds: float


_NOTHING = Count(0, 0.0)


@dataclass(frozen=True, slots=True)
class Meter:
    """Counters of a group made of those of its replicas: it never goes back when replicas come, restart and leave."""

    completions: int = 0
    busy_seconds: float = 0.0
    last: Mapping[str, Count] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; ``decoded`` reads it back to an equal value."""
        last = {name: [one.completions, one.busy_seconds] for name, one in sorted(self.last.items())}
        return {"completions": self.completions, "busySeconds": self.busy_seconds, "last": last}

    def read(self, counts: Mapping[str, Count]) -> Meter:
        """With what the replicas say now. Completions that went back are those of a new process and count whole; busy
        seconds alone do so when its clock is set back, and do not count."""
        completions, busy_seconds = self.completions, self.busy_seconds
        for name, count in counts.items():
            before = self.last.get(name, _NOTHING)
            if count.completions < before.completions:
                before = _NOTHING
            completions += count.completions - before.completions
            busy_seconds += max(0.0, count.busy_seconds - before.busy_seconds)
        return Meter(completions, busy_seconds, dict(counts))
