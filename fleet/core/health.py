"""How a replica is, judged from its record and whether its process lives: PURE.

RUNNING, said of a process, means little: a worker may live and turn in circles, or live and take nothing. The record
tells these apart, because the worker writes the time into it once a second as long as its loop (for solo: the loop or
its attendant) goes round, and the time of every fetch that the broker answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from fleet.core.text.format import counted, duration, listed


class Condition(StrEnum):
    """How a replica is.

    alive: a program that keeps no record; its process is there, and no more is known.  busy: no free slot.
    stuck: its loop does not turn, or a task is past its time limit and was not ended.  not consuming: ready, with free
    slots, and the broker has answered no fetch for a while.  dead: the process is gone and did not say good-bye.
    unhealthy: it is there, and its health check fails.
    """

    ALIVE = "alive"
    STARTING = "starting"
    READY = "ready"
    BUSY = "busy"
    STUCK = "stuck"
    UNHEALTHY = "unhealthy"
    NOT_CONSUMING = "not consuming"
    DRAINING = "draining"
    HELD = "held"
    STOPPED = "stopped"
    DEAD = "dead"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Probe(StrEnum):
    """What is asked. live: should it be left running?  ready: would it take a task?  progress: is it live, and taking
    tasks if it should?"""

    LIVE = "live"
    READY = "ready"
    PROGRESS = "progress"


_READY = frozenset({Condition.ALIVE, Condition.READY, Condition.BUSY})
_PROGRESS = _READY | {Condition.STARTING, Condition.DRAINING, Condition.HELD}
PASSES: Mapping[Probe, frozenset[Condition]] = MappingProxyType(
    {Probe.LIVE: _PROGRESS | {Condition.NOT_CONSUMING}, Probe.READY: _READY, Probe.PROGRESS: _PROGRESS}
)
"""Probe -> the conditions that satisfy it."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long something may take before it is called wrong."""

    silence_seconds: float = 30.0
    """Without a heartbeat, although the process lives."""
    overrun_seconds: float = 30.0
    """Past the hard time limit of a task: ending one takes a while."""
    idle_seconds: float = 30.0
    """With free slots and no answer to a fetch."""


PATIENCE = Patience()


class Slot(Protocol):
    """A busy slot of a record."""

    @property
    def task_id(self) -> str: ...
    @property
    def task_name(self) -> str: ...
    @property
    def since(self) -> float: ...
    @property
    def until(self) -> float: ...


class Facts(Protocol):
    """What of a record counts here; times are Unix seconds."""

    @property
    def state(self) -> str: ...
    @property
    def slots(self) -> int: ...
    @property
    def tasks(self) -> Sequence[Slot]: ...
    @property
    def note(self) -> str: ...
    @property
    def hold(self) -> bool: ...
    @property
    def started_at(self) -> float: ...
    @property
    def heartbeat_at(self) -> float: ...
    @property
    def consumed_at(self) -> float: ...
    @property
    def freed_at(self) -> float: ...
    @property
    def state_at(self) -> float: ...
    @property
    def line_up(self) -> bool: ...
    @property
    def sated(self) -> bool: ...
    @property
    def foreign(self) -> bool: ...
    @property
    def awaited(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Health:
    """A judgement. ``busy_until``: when the last running task must have ended, Unix seconds; None without tasks or
    where one of them has no limit."""

    condition: Condition
    reason: str = ""
    busy_until: float | None = None

    def passes(self, probe: Probe) -> bool:
        """Whether this is good enough for a probe."""
        return self.condition in PASSES[probe]


def judge(record: Facts | None, *, lives: bool, now: float, patience: Patience = PATIENCE) -> Health:
    """How the replica of this record is. ``lives``: whether the very process that the record names is there."""
    if record is None:
        return Health(Condition.UNKNOWN, "there is no record of it")
    if not lives:
        return _gone(record, now)
    if record.foreign and record.awaited:
        return Health(Condition.STARTING, f"for {_span(now - record.started_at)}")
    if record.foreign and record.state == "ready":
        return Health(Condition.ALIVE, f"for {_span(now - record.started_at)}; it keeps no record")
    if record.state == "failed":  # the launcher is about to leave
        return Health(Condition.FAILED, record.note)
    if record.state == "starting":
        return Health(Condition.STARTING, record.note or f"for {_span(now - record.started_at)}")
    return _frozen(record, now, patience) or _overrun(record, now, patience) or _turning(record, now, patience)


def _gone(record: Facts, now: float) -> Health:
    if record.state == "failed":
        return Health(Condition.FAILED, record.note)
    if record.state == "stopped":
        return Health(Condition.STOPPED, record.note or f"{_span(now - record.state_at)} ago")
    left = f", with {counted(len(record.tasks), 'task')} running" if record.tasks else ""
    return Health(Condition.DEAD, f"its process is gone; last heard of {_span(now - record.heartbeat_at)} ago{left}")


def _frozen(record: Facts, now: float, patience: Patience) -> Health | None:
    silence = now - record.heartbeat_at
    if silence <= patience.silence_seconds:
        return None
    names = listed(sorted({task.task_name for task in record.tasks}))
    return Health(Condition.STUCK, f"no heartbeat for {_span(silence)}" + (f"; runs {names}" if names else ""))


def _overrun(record: Facts, now: float, patience: Patience) -> Health | None:
    over = [task for task in record.tasks if task.until and now - task.until > patience.overrun_seconds]
    if not over:
        return None
    worst = min(over, key=lambda task: task.until)
    beyond = _span(now - worst.until)
    return Health(Condition.STUCK, f"{worst.task_name}[{worst.task_id}] is {beyond} over its time limit")


def _turning(record: Facts, now: float, patience: Patience) -> Health:
    until = _busy_until(record.tasks)
    if record.state in ("draining", "stopped"):
        held = record.hold and record.state == "draining"
        return Health(Condition.HELD if held else Condition.DRAINING, record.note, until)
    if record.slots and len(record.tasks) >= record.slots:
        return Health(Condition.BUSY, _running(record.tasks, now), until)
    return _fasting(record, now, patience, until) or Health(Condition.READY, _running(record.tasks, now), until)


def _fasting(record: Facts, now: float, patience: Patience, until: float | None) -> Health | None:
    """A slot was free all this time, and nothing was fetched for it."""
    since = max(record.consumed_at, record.freed_at, record.state_at)
    if record.sated or now - since <= patience.idle_seconds:
        return None
    cause = "no fetch was answered" if record.line_up else "no connection to the broker, nothing fetched"
    return Health(Condition.NOT_CONSUMING, f"{cause} for {_span(now - since)}", until)


def _busy_until(tasks: Sequence[Slot]) -> float | None:
    return max(task.until for task in tasks) if tasks and all(task.until for task in tasks) else None


def _running(tasks: Sequence[Slot], now: float) -> str:
    if not tasks:
        return ""
    oldest = min(tasks, key=lambda task: task.since)
    more = f" and {len(tasks) - 1} more" if len(tasks) > 1 else ""
    return f"{oldest.task_name}[{oldest.task_id}] for {_span(now - oldest.since)}{more}"


def _span(seconds: float) -> str:
    return duration(max(0, round(seconds)))
