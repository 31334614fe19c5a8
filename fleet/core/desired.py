"""Manifest to replicas: what each replica must be, and its digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from fleet.core.decode import decoded
from pools.traits import TRAITS

BROKER_GROUP = "fleet-broker"
CONTROLLER_GROUP = "fleet-controller"
RESERVED_PREFIX = "fleet-"
PARKED_EXIT = 78
"""The exit code of a launcher that parks its replica: the only one that supervisord does not answer with a restart."""

DRAIN_TIMEOUT_SECONDS = 60.0
READY_TIMEOUT_SECONDS = 60.0
"""What the manifest's ``drain.timeout`` and ``health.readyTimeout`` are where it gives none."""

Kind = Literal["worker", "celery", "command"]


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """The pool of one replica. ``concurrency`` is the number of slots of this replica."""

    type: str
    concurrency: int = 1
    class_path: str = ""
    max_tasks_per_child: int | None = None
    max_memory_per_child_bytes: int | None = None
    max_age_per_child_seconds: float | None = None
    start_method: str = "fork"

    @property
    def processes_beside_slots(self) -> int:
        """The worker itself, and the process that its children are forked from if that is another one."""
        return 2 if self.start_method == "forkserver" else 1


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue to consume, and its priority among the queues of the group (higher first)."""

    name: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class TaskPolicy:
    """Delivery and limits. ``acks`` and ``prefetch`` None: the app's setting, else late and as many as free slots.

    rate_limits: sorted pairs of a task's name and its rate, as ``("shop.thumb", "10/s")``.
    """

    time_limit_seconds: float | None = None
    soft_time_limit_seconds: float | None = None
    acks: str | None = None
    prefetch: int | None = None
    max_attempts: int = 5
    rate_limits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """A crash waits ``initial * 2^n`` seconds up to ``max``; more than ``max_crashes`` in ``window`` park it."""

    backoff_initial_seconds: float = 1.0
    backoff_max_seconds: float = 60.0
    max_crashes: int = 8
    window_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How many replicas may be extra (surge) and how many may be missing while a group is replaced."""

    strategy: str = "rolling"
    max_surge: int = 1
    max_unavailable: int = 0
    on_failure: str = "pause"


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """Where tasks come from. ``url`` is empty when it is a secret; then ``secret`` names it."""

    url: str = ""
    secret: str = ""
    fingerprint: str = ""
    visibility_timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a replica must be. Nothing else may be in it: no replica counts, scaling or rollout policy.

    What forces a restart when it changes is in :func:`digest`; the rest is taken up in place.
    ``env`` and ``secret_env`` are sorted tuples; ``secret_env`` holds (variable, secret name, keyed fingerprint), so
    that a rotated secret changes the digest while its value stays out of plans and logs.
    """

    kind: Kind
    fleet: str
    group: str
    pool: PoolSpec = PoolSpec("solo")
    app: str = ""
    command: tuple[str, ...] = ()
    queues: tuple[QueueSpec, ...] = ()
    broker: BrokerSpec = BrokerSpec()
    env: tuple[tuple[str, str], ...] = ()
    secret_env: tuple[tuple[str, str, str], ...] = ()
    task: TaskPolicy = TaskPolicy()
    restart: RestartPolicy = RestartPolicy()
    drain_timeout_seconds: float = DRAIN_TIMEOUT_SECONDS
    ready_after_seconds: float = 1.0
    workdir: str = ""
    python: str = ""
    revision: str = ""
    log_level: str = "INFO"
    log_format: str = "text"

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; :meth:`from_json` reads it back to an equal value."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WorkerSpec:
        """The spec that ``to_json`` wrote. Raises TypeError or ValueError on a document of another shape."""
        return decoded(cls, document)


def resizes(spec: WorkerSpec) -> bool:
    """A running replica of it can have another number of slots."""
    return spec.kind == "worker" and TRAITS[spec.pool.type].resize


def lasting(spec: WorkerSpec) -> WorkerSpec:
    """The spec with everything that can change in place as in a bare one: what is left forces a restart.

    ``restart`` and ``ready_after_seconds`` are read by the launcher and by whoever observes, never by what runs. A
    worker of fleet's own takes up queues, delivery, limits and log level while it runs, and slots if its pool can.
    The drain timeout lasts: supervisord kills by the one that it read when the replica was started.
    """
    bare = WorkerSpec(spec.kind, spec.fleet, spec.group)
    fixed = replace(spec, restart=bare.restart, ready_after_seconds=bare.ready_after_seconds)
    if spec.kind != "worker":
        return fixed
    pool = replace(spec.pool, concurrency=1) if resizes(spec) else spec.pool
    return replace(fixed, pool=pool, queues=bare.queues, task=bare.task, log_level=bare.log_level)


@lru_cache(maxsize=4096)
def digest(spec: WorkerSpec) -> str:
    """Eight hex digits over everything that forces a restart; never counts, scaling or rollout policy."""
    return live_digest(lasting(spec))


@lru_cache(maxsize=4096)
def live_digest(spec: WorkerSpec) -> str:
    """Eight hex digits over the whole spec: of replicas with one digest, it tells which settings are in force.

    Fields at their default are left out, so that a version that adds a field restarts nothing.
    """
    bare = WorkerSpec(spec.kind, spec.fleet, spec.group).to_json()
    said = {name: _said(value, bare[name]) for name, value in spec.to_json().items() if value != bare[name]}
    text = json.dumps([spec.kind, spec.fleet, spec.group, said], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _said(value: Any, default: Any) -> Any:
    """Of a nested document, what differs from its default."""
    if not isinstance(value, dict):
        return value
    return {name: one for name, one in value.items() if one != default[name]}


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
    slots_per_replica: what counts against the concurrency budget (``capacity.slots`` for a command).
    depends_on: groups whose replicas must be ready first.  system: fleet's own program (broker, controller).
    reason: why the group has this many slots, for ``explain``.
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

    @property
    def replicas(self) -> int:
        """How many replicas are wanted."""
        return len(self.shape)

    @property
    def slots(self) -> int:
        """Concurrency of the group: slots over all wanted replicas."""
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
        """The digest of its settings."""
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
    """Where the fleet's tasks come from; None where no group takes any."""
    brokers = {group.spec.broker for group in desired.groups.values()} - {BrokerSpec()}
    return min(brokers, key=repr, default=None)
