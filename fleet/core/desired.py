"""The fleet as it must be: groups, their replicas and the budgets over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fleet.core.spec import READY_TIMEOUT_SECONDS, BrokerSpec, WorkerSpec, live_digest

BROKER_GROUP = "fleet-broker"
CONTROLLER_GROUP = "fleet-controller"
METRICS_GROUP = "fleet-metrics"
HEALTH_GROUP = "fleet-health"
RESERVED_PREFIX = "fleet-"
PROGRAMS_BESIDE = frozenset({CONTROLLER_GROUP, METRICS_GROUP, HEALTH_GROUP})
"""Programs of fleet's own that are there while something in the manifest needs them. They go without being asked."""


@dataclass(frozen=True, slots=True)
class CanaryPolicy:
    """How many replicas get the new revision first, how long they are compared with the old ones, and how much worse
    they may be.

    failure_rate: what may be added to the old rate (0.05: five percentage points).  latency, memory: factors over the
    old run time and memory.  crashes: as many.  min_tasks: rates of fewer are not judged.  title: what it is called in
    events.  number, of: its place among the steps of a canary; ``replicas`` includes those of earlier steps.
    """

    replicas: int = 1
    seconds: float = 120.0
    failure_rate: float = 0.05
    latency: float = 1.5
    memory: float = 1.5
    crashes: int = 0
    min_tasks: int = 20
    title: str = "canary"
    number: int = 1
    of: int = 1

    @property
    def name(self) -> str:
        """As it is called in events: ``canary step 2 of 3``."""
        return self.title if self.of == 1 else f"{self.title} step {self.number} of {self.of}"


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How many replicas may be extra (surge) and how many may be missing while a group is replaced.

    min_ready_seconds: a new replica counts once it was ready for this long.  deadline_seconds: the whole group must be
    done by then; None: whenever.  peak: ``budget`` keeps the slots in use within the fleet's meanwhile, ``surge`` adds
    spares to them.  later_canaries: compared after ``canary``, each with at least as many new replicas.
    blue_green: the whole new set comes up beside the old one and is judged before the old one leaves.
    """

    strategy: str = "rolling"
    max_surge: int = 1
    max_unavailable: int = 0
    on_failure: str = "pause"
    min_ready_seconds: float = 0.0
    deadline_seconds: float | None = None
    canary: CanaryPolicy | None = None
    peak: str = "surge"
    later_canaries: tuple[CanaryPolicy, ...] = ()
    blue_green: CanaryPolicy | None = None

    @property
    def canaries(self) -> tuple[CanaryPolicy, ...]:
        """Its comparisons, in order; none where there is no canary."""
        return () if self.canary is None else (self.canary, *self.later_canaries)

    @property
    def keeps_budget(self) -> bool:
        """Spares come only where the fleet's slots have room for them."""
        return self.peak == "budget"


@dataclass(frozen=True, slots=True)
class Price:
    """What a slot and a replica cost. Connections are sorted (name, count) pairs."""

    memory_per_slot_bytes: int = 0
    memory_per_replica_bytes: int = 0
    connections_per_slot: tuple[tuple[str, int], ...] = ()
    connections_per_replica: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class DesiredGroup:
    """What one group must look like.

    shape: slots of each wanted replica, largest first: full replicas and at most one smaller one.
    processes_per_replica: operating system processes of a full replica, for the budget.
    capacity_slots: slots of a replica of a command (``capacity.slots``); None for workers.
    depends_on: groups whose replicas must be ready first.  system: fleet's own program (broker, controller).
    reason: why the group has this many slots, for ``explain``.  first_index: the lowest that a replica gets.
    """

    name: str
    spec: WorkerSpec
    shape: tuple[int, ...]
    rollout: RolloutPolicy = RolloutPolicy()
    depends_on: tuple[str, ...] = ()
    price: Price = Price()
    capacity_slots: int | None = None
    processes_per_replica: int = 1
    ready_timeout_seconds: float = READY_TIMEOUT_SECONDS
    scaling: Literal["replicas", "share", "autoscale"] = "replicas"
    paused: bool = False
    system: bool = False
    reason: str = ""
    first_index: int = 0

    @property
    def replicas(self) -> int:
        return len(self.shape)

    @property
    def slots(self) -> int:
        """Over all wanted replicas."""
        return sum(self.shape) if self.capacity_slots is None else self.capacity_slots * len(self.shape)


@dataclass(frozen=True, slots=True)
class Replica:
    """One worker process as it must be: identity ``group.index``, its spec and the digest of that spec."""

    group: str
    index: int
    spec: WorkerSpec
    digest: str
    system: bool = False

    @property
    def name(self) -> str:
        """``group.index``."""
        return replica_name(self.group, self.index)

    @property
    def live(self) -> str:
        """The digest of all its settings, see :func:`fleet.core.spec.live_digest`."""
        return live_digest(self.spec)


@dataclass(frozen=True, slots=True)
class Budgets:
    """Ceilings of the fleet; None and absent names mean no ceiling."""

    slots: int | None = None
    processes: int | None = None
    memory_bytes: int | None = None
    connections: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Desired:
    """The whole fleet as it must be. ``drained`` names replicas that should run but take no work."""

    fleet: str
    groups: Mapping[str, DesiredGroup] = field(default_factory=dict)
    budgets: Budgets = Budgets()
    drained: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def nothing(fleet: str) -> Desired:
    """The empty fleet: what ``down`` wants."""
    return Desired(fleet=fleet)


def replica_name(group: str, index: int) -> str:
    """``("thumbs", 3)`` -> ``thumbs.3``."""
    return f"{group}.{index}"


def split_name(name: str) -> tuple[str, int]:
    """``thumbs.3`` -> ``("thumbs", 3)``. Raises ValueError for anything else."""
    if not is_replica(name):
        raise ValueError(f"not a replica name: {name!r}; write it like 'thumbs.3'")
    group, _, index = name.rpartition(".")
    return group, int(index)


def is_replica(name: str) -> bool:
    """The name has the form ``group.index``."""
    group, _, index = name.rpartition(".")
    return bool(group) and index.isdigit()


def group_of(name: str) -> str:
    """The group of a replica's name; a name that is none stands for itself."""
    return split_name(name)[0] if is_replica(name) else name


def broker_of(desired: Desired) -> BrokerSpec | None:
    """The broker of the fleet's groups; None where no group takes tasks."""
    brokers = {group.spec.broker for group in desired.groups.values()} - {BrokerSpec()}
    return min(brokers, key=repr, default=None)
