"""What one replica must be, and its digests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from fleet.core.decode import decoded
from pools.traits import TRAITS

PARKED_EXIT = 78
"""The exit code of a launcher that parks its replica: the only one that supervisord does not answer with a restart."""

DRAIN_TIMEOUT_SECONDS = 60.0
READY_TIMEOUT_SECONDS = 60.0
JOB_TIMEOUT_SECONDS = 3600.0
WAIT_TIMEOUT_SECONDS = 60.0
"""What the manifest's ``drain.timeout`` and ``health.readyTimeout`` (of a job: the third) and
``waitFor.timeout`` are where it gives none."""

Kind = Literal["worker", "celery", "command"]

IMAGE_POOLS = frozenset({"solo", "threads", "prefork", "asyncio", "gevent"})
"""Pools whose workers may be forked from an image. eventlet itself warns of every fork; what somebody's own pool does
when it is imported is not known."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """The pool of one replica. ``concurrency`` is the number of slots of this replica.

    min_concurrency: of Celery's worker, what it shrinks to by itself while it has little to do; None: it keeps all.
    """

    type: str
    concurrency: int = 1
    class_path: str = ""
    max_tasks_per_child: int | None = None
    max_memory_per_child_bytes: int | None = None
    max_age_per_child_seconds: float | None = None
    start_method: str = "fork"
    min_concurrency: int | None = None

    @property
    def processes_beside_slots(self) -> int:
        """The worker itself, and the process that its children are forked from if that is another one."""
        return 2 if self.start_method == "forkserver" else 1


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue to consume, and its priority among the queues of the group (higher first)."""

    name: str
    priority: int = 0


DeadLetters = Literal["fleet", "broker", "none"]
"""Who keeps the messages that nobody can run: fleet in ``<queue>.dead``, the queue's dead-letter exchange, nobody."""


@dataclass(frozen=True, slots=True)
class TaskPolicy:
    """Delivery and limits. ``acks`` and ``prefetch`` None: the app's setting, else late and as many as free slots.

    rate_limits: sorted pairs of a task's name and its rate, as ``("shop.thumb", "10/s")``.  dead_letters None: to the
    broker where the app declares a queue with a dead-letter exchange, else to ``<queue>.dead``.  look_ahead_most: how
    many messages may be taken ahead of free slots, as far as they are done in look_ahead_seconds; 0: none.
    """

    time_limit_seconds: float | None = None
    soft_time_limit_seconds: float | None = None
    acks: str | None = None
    prefetch: int | None = None
    max_attempts: int = 5
    rate_limits: tuple[tuple[str, str], ...] = ()
    dead_letters: DeadLetters | None = None
    look_ahead_seconds: float = 0.01
    look_ahead_most: int = 64


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """A crash waits ``initial * 2^n`` seconds up to ``max``; more than ``max_crashes`` in ``window`` park it.

    policy: which ends are crashes: all, those with another exit code than 0, or none, which then is the end of it.
    """

    backoff_initial_seconds: float = 1.0
    backoff_max_seconds: float = 60.0
    max_crashes: int = 8
    window_seconds: float = 600.0
    policy: Literal["always", "onFailure", "never"] = "always"


@dataclass(frozen=True, slots=True)
class BrokerSpec:
    """Where tasks come from. ``url`` is empty when it is a secret; then ``secret`` names it."""

    url: str = ""
    secret: str = ""
    fingerprint: str = ""
    visibility_timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StopSpec:
    """How a program is asked to end. ``group``: everything it has started is asked as well, and killed at the end."""

    signal: str = "TERM"
    group: bool = False


@dataclass(frozen=True, slots=True)
class LimitsSpec:
    """What a replica may take: files in one process, memory and processors in all of them. None: no limit."""

    open_files: int | None = None
    memory_bytes: int | None = None
    cpus: float | None = None


@dataclass(frozen=True, slots=True)
class RemoteControlSpec:
    """What those who can write to the broker may ask of a worker by remote control. ``allow`` None: every command."""

    enabled: bool = True
    max_slots: int = 10_000
    allow: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class AccountSpec:
    """The account of a replica's process, for a fleet that runs as root. ``user`` is empty where it is fleet's own.

    user: its name, or its number where it has none.
    """

    user: str = ""
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class HealthCheckSpec:
    """How fleet finds out whether a replica is healthy: by a command, or by a request to a port of this machine.

    host: the Host header of the request.  failures: so many one after another, and it is unhealthy.  within_seconds: by
    then one must have passed.
    """

    command: tuple[str, ...] = ()
    port: int = 0
    path: str = "/"
    host: str = "localhost"
    interval_seconds: float = 10.0
    timeout_seconds: float = 5.0
    failures: int = 3
    within_seconds: float = READY_TIMEOUT_SECONDS

    @property
    def is_given(self) -> bool:
        return bool(self.command or self.port)


@dataclass(frozen=True, slots=True)
class WaitSpec:
    """What must answer before a replica's program starts, and how long that is waited for."""

    urls: tuple[str, ...] = ()
    timeout_seconds: float = WAIT_TIMEOUT_SECONDS


FLEETS_ACCOUNT = AccountSpec()
"""The replica runs as whoever runs fleet."""


@dataclass(frozen=True, slots=True)
class TracingSpec:
    """Whether tasks are traced, and where spans go. otlp: base URL of OTLP over HTTP, empty: as OTEL_ variables say.

    sample: the part of the traces begun here that is kept, 0 to 1; None: as OTEL_ variables say, else all.
    """

    on: bool = False
    otlp: str = ""
    sample: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What a replica must be. Nothing else may be in it: no replica counts, scaling or rollout policy.

    What forces a restart when it changes is in :func:`digest`; the rest is applied in place.
    ``env`` and ``secret_env`` are sorted tuples; ``secret_env`` holds (variable, secret name, keyed fingerprint), so
    that a rotated secret changes the digest while its value stays out of plans and logs.  ``code`` and
    ``fleet_version`` are empty where the manifest does not watch them.  ``node``: the worker's name on the broker, with
    ``{group}`` and the like in it; empty: the usual one.  ``log_link``: where a link to its log is, likewise.
    ``job``: it runs to its end, once; ``followers``: a mark of what waits for that, so that it runs again before them.
    ``task_counters``: it counts tasks by name, with histograms of their times.
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
    code: str = ""
    fleet_version: str = ""
    log_level: str = "INFO"
    log_format: str = "text"
    log_to: Literal["file", "journald", "both"] = "file"
    image: Literal["auto", "off"] = "auto"
    node: str = ""
    stop: StopSpec = StopSpec()
    nice: int = 0
    limits: LimitsSpec = LimitsSpec()
    log_link: str = ""
    job: bool = False
    followers: str = ""
    account: AccountSpec = FLEETS_ACCOUNT
    no_new_privileges: bool = False
    merge_memory: bool = False
    task_counters: bool = True
    health_check: HealthCheckSpec = HealthCheckSpec()
    wait_for: WaitSpec = WaitSpec()
    remote_control: RemoteControlSpec = RemoteControlSpec()
    tracing: TracingSpec = TracingSpec()

    def __hash__(self) -> int:
        """Over a few fields: all of them take as long as what is remembered by spec would save."""
        return hash((self.fleet, self.group, self.kind, self.pool.concurrency))

    def secret_marks(self) -> dict[str, str]:
        """Name -> fingerprint of every secret that it needs."""
        marks = {name: mark for _, name, mark in self.secret_env}
        return {**marks, self.broker.secret: self.broker.fingerprint} if self.broker.secret else marks

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; :meth:`from_json` reads it back to an equal value."""
        document: dict[str, Any] = _plain(self)
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> WorkerSpec:
        """The spec that ``to_json`` wrote. Raises TypeError or ValueError on a document of another shape."""
        return decoded(cls, document)


def _plain(value: Any) -> Any:
    """Objects and lists as JSON has them. ``dataclasses.asdict`` copies every leaf, which took four times as long."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    slots = getattr(type(value), "__slots__", None)
    return value if slots is None else {name: _plain(getattr(value, name)) for name in slots}


@lru_cache(maxsize=4096)
def shared(spec: WorkerSpec) -> WorkerSpec:
    """One object for all equal specs, as long as it is remembered: comparing it with itself costs nothing."""
    return spec


def resizes(spec: WorkerSpec) -> bool:
    """Whether a running replica can get another number of slots without a restart."""
    return spec.kind == "worker" and TRAITS[spec.pool.type].resize


def forks_from_image(spec: WorkerSpec) -> bool:
    """Whether replicas of this spec may be forked from a process that has imported the app already.

    One with an account of its own is not: the image belongs to fleet's account, and so would what its memory holds.
    """
    return (
        spec.account == FLEETS_ACCOUNT
        and spec.image == "auto"
        and spec.kind == "worker"
        and spec.pool.type in IMAGE_POOLS
    )


def patch_of(spec: WorkerSpec) -> str:
    """The library that the process of this spec is patched for before it imports anything; ``""``: none."""
    return spec.pool.type if spec.kind == "worker" and TRAITS[spec.pool.type].is_green else ""


def lasting(spec: WorkerSpec) -> WorkerSpec:
    """The spec with everything that can change in place as in a bare one: what is left forces a restart.

    ``restart``, ``ready_after_seconds``, ``image``, ``health_check`` and ``wait_for`` are read when it is started and
    by the backend, never by what runs. A worker of fleet's own applies queues, delivery, limits and log level while it
    runs, and slots if its pool can. The drain timeout lasts: supervisord kills by the one that it read when the replica
    was started.
    """
    bare = WorkerSpec(spec.kind, spec.fleet, spec.group)
    fixed = replace(
        spec,
        restart=bare.restart,
        ready_after_seconds=bare.ready_after_seconds,
        image=bare.image,
        health_check=bare.health_check,
        wait_for=bare.wait_for,
    )
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
    """Eight hex digits over the whole spec: it tells apart the settings of replicas that have one digest.

    Fields at their default are left out, so that a version that adds a field restarts nothing. So is ``image``, which
    is of how it was started and nothing that a running worker applies.
    """
    given = _unlike_bare(replace(spec, image="auto"))
    text = json.dumps([spec.kind, spec.fleet, spec.group, given], sort_keys=True, separators=(",", ":"))
    import hashlib  # loads OpenSSL, and what looks at a fleet makes no digests

    return hashlib.sha256(text.encode()).hexdigest()[:8]


def given_fields(spec: WorkerSpec) -> dict[str, Any]:
    """The spec as JSON without what is at its default; :meth:`WorkerSpec.from_json` reads it back to an equal value."""
    found = {"kind": spec.kind, "fleet": spec.fleet, "group": spec.group, **_unlike_bare(spec)}
    return {**found, "pool": {"type": spec.pool.type, **found.get("pool", {})}}


def _unlike_bare(spec: WorkerSpec) -> dict[str, Any]:
    bare = WorkerSpec(spec.kind, spec.fleet, spec.group)
    pairs = {name: (getattr(spec, name), getattr(bare, name)) for name in WorkerSpec.__slots__}
    return {name: _unlike(_plain(value), _plain(other)) for name, (value, other) in pairs.items() if value != other}


def _unlike(value: Any, default: Any) -> Any:
    """Of a nested document, what differs from its default."""
    if not isinstance(value, dict):
        return value
    return {name: one for name, one in value.items() if one != default[name]}
