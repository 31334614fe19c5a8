"""What is known of one fleet, and of one sync source, at the moment of a scrape: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet.core.autoscale.sample import Backlog
from fleet.core.observed import Observed
from fleet.core.status import Status
from fleet.replica.task_counters import CountersView, TaskCounts


@dataclass(frozen=True, slots=True)
class EventCounts:
    """What the audit says happened so far.

    events: by kind.  heals: by (class, verdict), where the verdict is started, parked or warned.
    changes: by (verb, outcome).  moves: times that the slots of a group were changed, by group.
    """

    events: Mapping[str, int] = field(default_factory=dict)
    heals: Mapping[tuple[str, str], int] = field(default_factory=dict)
    changes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    moves: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FleetReading:
    """One fleet. Times are Unix seconds.

    problem: why it could not be read; then all else is empty.  seconds: that the reading took.  budget: slots of the
    whole fleet, None without one.  good: the last revision of which every replica became ready.  tasks: by group and
    task.  counters: by replica.  dropped: bytes of logs by replica.  backlog: None while nobody has asked the broker.
    look: the controller's last, as its file has it; None where there is none.
    """

    fleet: str
    now: float = 0.0
    problem: str = ""
    seconds: float = 0.0
    status: Status | None = None
    observed: Observed | None = None
    budget: int | None = None
    good: int = 0
    tasks: Mapping[str, Mapping[str, TaskCounts]] = field(default_factory=dict)
    counters: Mapping[str, CountersView] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    backlog: Backlog | None = None
    look: Mapping[str, Any] | None = None
    events: EventCounts = field(default_factory=EventCounts)


@dataclass(frozen=True, slots=True)
class SourceReading:
    """One source of ``fleet sync``, as ``fleet sync status -o json`` has it; None where it could not be read."""

    source: str
    document: Mapping[str, Any] | None
