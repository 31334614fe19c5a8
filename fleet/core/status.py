"""Desired against observed: what is ready, what drifted, what is there and not wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.core.desired import RESERVED_PREFIX, Desired, DesiredGroup, Replica, group_of
from fleet.core.observed import Observed, ObservedReplica, RunningTask, State, Stray, Trouble
from fleet.core.planning.assignment import assign
from fleet.core.totals import NO_TOTALS, Totals

OUTDATED = "outdated"
UNSETTLED = "to resize"
UNWANTED = "not wanted"
ORPHANED = "not in manifest"


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One replica. ``drift`` is empty when it is as wanted.  ready: it works, or is held on purpose.

    processed, failed: of the process that runs, or ran last.  totals: of all its processes.
    """

    name: str
    pid: int | None
    state: State
    digest: str
    slots: int
    busy: int
    processed: int
    failed: int
    memory_bytes: int
    uptime_seconds: float
    tasks: tuple[RunningTask, ...] = ()
    held: bool = False
    drift: str = ""
    note: str = ""
    ready: bool = False
    trouble: Trouble = Trouble.NONE
    totals: Totals = NO_TOTALS
    cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class GroupStatus:
    """One group. ``missing`` names replicas that are wanted and not there.  totals: those that are gone included.

    up_to_date_replicas: with the wanted digest and settings, whether they are ready or not.  available_replicas: those
    that take tasks, and were ready for the rollout's ``minReady``, whether they are up to date or not.
    """

    name: str
    pool: str
    desired_replicas: int
    ready_replicas: int
    desired_slots: int
    workers: tuple[WorkerStatus, ...] = ()
    missing: tuple[str, ...] = ()
    system: bool = False
    paused: bool = False
    up_to_date_replicas: int = 0
    available_replicas: int = 0
    totals: Totals = NO_TOTALS

    @property
    def busy(self) -> int:
        return sum(worker.busy for worker in self.workers)

    @property
    def processed(self) -> int:
        """Tasks done by the workers that run now."""
        return sum(worker.processed for worker in self.workers)

    @property
    def failed(self) -> int:
        """Tasks that failed in the workers that run now."""
        return sum(worker.failed for worker in self.workers)

    @property
    def ready(self) -> bool:
        """Every wanted replica is there, as wanted, and ready."""
        return self.ready_replicas >= self.desired_replicas


@dataclass(frozen=True, slots=True)
class Status:
    """The whole fleet. ``up``: its daemon runs.  ``revision`` 0: nothing was applied yet."""

    fleet: str
    revision: int
    ready: bool
    up: bool
    groups: Mapping[str, GroupStatus] = field(default_factory=dict)
    strays: tuple[Stray, ...] = ()

    @property
    def drifted(self) -> bool:
        """Something is missing, outdated or not wanted."""
        return any(group.missing or any(worker.drift for worker in group.workers) for group in self.groups.values())


def summarise(desired: Desired | None, observed: Observed, *, revision: int) -> Status:
    """Everything at a glance. Without a desired fleet, what is there counts as what is wanted."""
    seen = _by_group(observed)
    wanted = dict(desired.groups) if desired is not None else {}
    groups = {
        name: _known(wanted[name], seen.get(name, [])) if name in wanted else _unknown(name, seen[name], desired)
        for name in sorted(wanted.keys() | seen.keys())
    }
    something = bool(groups) or desired is not None
    return Status(
        fleet=observed.fleet,
        revision=revision,
        ready=something and all(group.ready for group in groups.values()),
        up=observed.up,
        groups=groups,
        strays=observed.strays,
    )


def with_totals(status: Status, totals: Mapping[str, Totals]) -> Status:
    """The same with what each replica has done in all its processes; ``totals``: by replica, gone ones included."""
    groups = {name: _group_with_totals(group, totals) for name, group in status.groups.items()}
    return replace(status, groups=groups)


def _group_with_totals(group: GroupStatus, totals: Mapping[str, Totals]) -> GroupStatus:
    workers = tuple(replace(worker, totals=totals.get(worker.name, NO_TOTALS)) for worker in group.workers)
    whole = Totals.sum(one for name, one in totals.items() if group_of(name) == group.name)
    return replace(group, workers=workers, totals=whole)


def document(status: Status) -> dict[str, Any]:
    """The status for scripts. Programs of fleet's own (the embedded broker) stand apart, under ``system``."""
    return {
        "fleet": status.fleet,
        "revision": status.revision,
        "ready": status.ready,
        "groups": {name: _group_document(group) for name, group in status.groups.items() if not group.system},
        "system": {name: _group_document(group) for name, group in status.groups.items() if group.system},
        "strays": [{"pid": stray.pid, "replica": stray.replica, "kind": stray.kind} for stray in status.strays],
    }


def _by_group(observed: Observed) -> dict[str, list[ObservedReplica]]:
    groups: dict[str, list[ObservedReplica]] = {}
    for replica in sorted(observed.replicas.values(), key=lambda replica: (replica.group, replica.index)):
        groups.setdefault(replica.group, []).append(replica)
    return groups


def _known(group: DesiredGroup, seen: Sequence[ObservedReplica]) -> GroupStatus:
    wanted = assign(group, seen).wanted
    workers = tuple(_worker(replica, _drift(wanted.get(replica.index), replica)) for replica in seen)
    present = {replica.index for replica in seen}
    return GroupStatus(
        name=group.name,
        pool=_pool(group.spec.kind, group.spec.pool.type),
        desired_replicas=group.replicas,
        ready_replicas=sum(worker.ready and not worker.drift for worker in workers),
        desired_slots=group.slots,
        workers=workers,
        missing=tuple(replica.name for index, replica in wanted.items() if index not in present),
        system=group.system,
        paused=group.paused,
        up_to_date_replicas=sum(_is_there(worker) and not worker.drift for worker in workers),
        available_replicas=_available(seen, min_ready_seconds=group.rollout.min_ready_seconds),
    )


def _is_there(worker: WorkerStatus) -> bool:
    return worker.pid is not None or worker.state is State.COMPLETED


def _available(seen: Sequence[ObservedReplica], *, min_ready_seconds: float) -> int:
    return sum(one.is_available(min_ready_seconds=min_ready_seconds) for one in seen)


def _unknown(name: str, seen: Sequence[ObservedReplica], desired: Desired | None) -> GroupStatus:
    """A group that no manifest at hand describes: unwanted where there is a manifest, else taken as it is."""
    drift = "" if desired is None else ORPHANED
    workers = tuple(_worker(replica, drift) for replica in seen)
    spec = next((replica.spec for replica in seen if replica.spec is not None), None)
    return GroupStatus(
        name=name,
        pool=_pool(spec.kind, spec.pool.type) if spec is not None else "",
        desired_replicas=len(workers) if desired is None else 0,
        ready_replicas=sum(worker.ready and not drift for worker in workers),
        desired_slots=sum(worker.slots for worker in workers) if desired is None else 0,
        workers=workers,
        system=name.startswith(RESERVED_PREFIX),
        up_to_date_replicas=sum(worker.pid is not None and not drift for worker in workers),
        available_replicas=_available(seen, min_ready_seconds=0.0),
    )


def _drift(wanted: Replica | None, seen: ObservedReplica) -> str:
    if wanted is None:
        return UNWANTED
    if wanted.digest != seen.digest:
        return OUTDATED
    return "" if seen.follows(wanted.spec) else UNSETTLED


def _worker(seen: ObservedReplica, drift: str) -> WorkerStatus:
    return WorkerStatus(
        name=seen.name,
        pid=seen.pid,
        state=seen.state,
        digest=seen.digest,
        slots=seen.slots or _slots_of_spec(seen),
        busy=seen.busy,
        processed=seen.processed,
        failed=seen.failed,
        memory_bytes=seen.memory_bytes,
        uptime_seconds=seen.uptime_seconds,
        tasks=seen.tasks,
        held=seen.held,
        drift=drift,
        note=seen.note,
        ready=seen.is_ready,
        trouble=seen.trouble,
        cpu_seconds=seen.cpu_seconds,
    )


def _slots_of_spec(seen: ObservedReplica) -> int:
    """A worker that has no record yet has the slots it was started with; a command has none that fleet knows of."""
    return seen.spec.pool.concurrency if seen.spec is not None and seen.spec.kind != "command" else 0


def _pool(kind: str, pool: str) -> str:
    return "command" if kind == "command" else pool


def _group_document(group: GroupStatus) -> dict[str, Any]:
    return {
        "pool": group.pool,
        "replicas": {"desired": group.desired_replicas, "ready": group.ready_replicas},
        "upToDate": group.up_to_date_replicas,
        "available": group.available_replicas,
        "slots": {"desired": group.desired_slots, "busy": group.busy},
        "processed": group.processed,
        "failed": group.failed,
        "totals": group.totals.to_json(),
        "paused": group.paused,
        "missing": list(group.missing),
        "workers": [_worker_document(worker) for worker in group.workers],
    }


def _worker_document(worker: WorkerStatus) -> dict[str, Any]:
    return {
        "name": worker.name,
        "pid": worker.pid,
        "state": str(worker.state),
        "ready": worker.ready,
        "trouble": str(worker.trouble),
        "digest": worker.digest,
        "slots": worker.slots,
        "busy": worker.busy,
        "processed": worker.processed,
        "failed": worker.failed,
        "totals": worker.totals.to_json(),
        "memory": worker.memory_bytes,
        "uptime": round(worker.uptime_seconds, 3),
        "tasks": list(_task_documents(worker.tasks)),
        "held": worker.held,
        "drift": worker.drift,
        "note": worker.note,
    }


def _task_documents(tasks: Sequence[RunningTask]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield {"id": task.id, "name": task.name, "since": round(task.since_seconds, 3)}
