"""What a backend saw at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fleet.core.desired import replica_name
from fleet.core.spec import WorkerSpec, live_digest, resizes


class State(StrEnum):
    """The state of a replica as people and scripts see it."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"
    UNKNOWN = "unknown"
    COMPLETED = "completed"


class Trouble(StrEnum):
    """Why a replica whose process lives does not work.

    stuck: no heartbeat, or a task far past its time limit.  not consuming: free slots, and the broker has answered no
    fetch for a while.  crashing: it has not lived as long yet as it did before it crashed last.
    unhealthy: its health check fails.
    """

    NONE = ""
    STUCK = "stuck"
    NOT_CONSUMING = "not consuming"
    CRASHING = "crashing"
    UNHEALTHY = "unhealthy"


GONE = frozenset({State.STOPPED, State.FAILED})
"""States in which no process of a replica runs."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task in a slot. ``since_seconds`` is its age at the moment of observation."""

    id: str
    name: str
    since_seconds: float


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """One replica as seen. ``spec`` is what its launch document says (None when that is gone or unreadable).

    live: digest of the settings that a running worker follows; empty where none is reported.

    counts: its process lives and counts its own work; only then may busy, processed, busy_seconds and reserved
    be believed.  trouble: why it does not work although its process lives.

    processed, busy_seconds: counted since the process began; neither goes back while the process is the
    same.  processed: tasks that came to their end, failed ones among them; what is to be repeated (a retry) has not.
    retried: runs that ended in a retry.  busy_seconds: spent by slots on tasks, those that run now included.
    crashes: earlier processes of it that crashed, as far back as its launcher remembers.
    cannot_start: its last start failed for a reason that another start does not change, which ``note`` says.
    reserved: messages it holds, those that run and those that wait in it for a slot.
    ready_seconds: how long it has been ready without a break; 0 while it is not, or is held.
    cpu_seconds: spent on processors by all its processes, those that have ended included.
    """

    group: str
    index: int
    digest: str
    state: State
    pid: int | None = None
    spec: WorkerSpec | None = None
    slots: int = 0
    busy: int = 0
    processed: int = 0
    failed: int = 0
    memory_bytes: int = 0
    uptime_seconds: float = 0.0
    tasks: tuple[RunningTask, ...] = ()
    held: bool = False
    note: str = ""
    live: str = ""
    retried: int = 0
    busy_seconds: float = 0.0
    reserved: int = 0
    counts: bool = False
    cannot_start: bool = False
    crashes: int = 0
    trouble: Trouble = Trouble.NONE
    ready_seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def name(self) -> str:
        """``group.index``."""
        return replica_name(self.group, self.index)

    @property
    def running(self) -> bool:
        return self.pid is not None

    @property
    def is_ready(self) -> bool:
        """It takes work, or is held on purpose, or has done all it had to, and nothing is wrong with it."""
        at_rest = self.state is State.COMPLETED or (self.held and self.state is State.DRAINING)
        return not self.trouble and (self.state is State.READY or at_rest)

    def is_available(self, *, min_ready_seconds: float) -> bool:
        """It takes tasks, and has for long enough to be trusted."""
        return self.is_ready and not self.held and self.ready_seconds >= min_ready_seconds

    @property
    def can_hold(self) -> bool:
        """Whether it can be told to take no work and stay: fleet's worker can, Celery's where it keeps a record."""
        if self.spec is None or self.spec.kind == "command":
            return False
        return self.spec.kind == "worker" or self.counts

    @property
    def target_slots(self) -> int:
        """By its launch document; where that is lost, the slots that it has."""
        return self.spec.pool.concurrency if self.spec is not None else self.slots

    def follows(self, spec: WorkerSpec) -> bool:
        """Whether its launch document says this and, where the worker reports its settings, it has applied them."""
        if self.spec is not spec and self.spec != spec:
            return False
        if not self.live:
            return True
        return self.live == live_digest(spec) and (self.slots == spec.pool.concurrency or not resizes(spec))


@dataclass(frozen=True, slots=True)
class Stray:
    """A process that carries this fleet's mark and is not the one its supervisor runs: an orphan or a duplicate."""

    pid: int
    replica: str
    kind: str


@dataclass(frozen=True, slots=True)
class Observed:
    """One snapshot. ``up`` False: the daemon does not run, which is an empty observation and not an error.

    foreign: names that the daemon runs and fleet does not own; never touched.
    """

    fleet: str
    up: bool = False
    replicas: Mapping[str, ObservedReplica] = field(default_factory=dict)
    strays: tuple[Stray, ...] = ()
    foreign: tuple[str, ...] = ()


def leaving(replica: ObservedReplica) -> bool:
    """It drains to go; it is not only held."""
    return replica.state is State.DRAINING and not replica.held
