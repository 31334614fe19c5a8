"""The status of a fleet in a cluster, from its pods, its Deployments and what `fleet health` said inside: PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleet.backends.kubernetes.jobs import is_complete
from fleet.backends.kubernetes.kinds import Object, label_of, name_of
from fleet.backends.kubernetes.names import DIGEST
from fleet.backends.kubernetes.rollout_state import trouble_of
from fleet.core.desired import RESERVED_PREFIX, Desired, DesiredGroup
from fleet.core.observed import RunningTask, State, Trouble
from fleet.core.status import ORPHANED, OUTDATED, GroupStatus, Status, WorkerStatus

_STATES: Mapping[str, State] = {
    "alive": State.READY,
    "ready": State.READY,
    "busy": State.READY,
    "starting": State.STARTING,
    "draining": State.DRAINING,
    "held": State.DRAINING,
    "stopped": State.STOPPED,
}
_TROUBLES: Mapping[str, Trouble] = {"stuck": Trouble.STUCK, "not consuming": Trouble.NOT_CONSUMING}


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of a fleet at one moment.

    inside: pod -> what its worker's record says, where it was asked.  uptimes: pod -> seconds since its container
    began.  jobs: group that runs once -> its newest Job.
    """

    deployments: Mapping[str, Object]
    pods: Sequence[Object]
    inside: Mapping[str, Mapping[str, Any]]
    uptimes: Mapping[str, float]
    jobs: Mapping[str, Object] = field(default_factory=dict)


def status_of(desired: Desired | None, seen: Seen, *, fleet: str, revision: int) -> Status:
    """The same table as of a host, a pod in place of a replica."""
    wanted = desired.groups if desired is not None else {}
    names = sorted(wanted.keys() | seen.deployments.keys() | seen.jobs.keys())
    groups = {
        name: _job_group(name, wanted.get(name), seen, known=desired is not None)
        if _is_job(name, wanted, seen)
        else _group(name, wanted.get(name), seen, known=desired is not None)
        for name in names
    }
    up = bool(seen.deployments) or bool(seen.pods) or bool(seen.jobs)
    ready = bool(groups) and all(group.ready for group in groups.values())
    return Status(fleet=fleet, revision=revision, ready=ready, up=up, groups=groups)


def _is_job(name: str, wanted: Mapping[str, DesiredGroup], seen: Seen) -> bool:
    return wanted[name].spec.job if name in wanted else name not in seen.deployments


def _job_group(name: str, wanted: DesiredGroup | None, seen: Seen, *, known: bool) -> GroupStatus:
    """A group that runs once: ready when its newest Job is complete, whether the pod of it is still there or not."""
    job = seen.jobs.get(name)
    own = [one for one in seen.pods if label_of(one, "app.kubernetes.io/name") == name]
    drift = ORPHANED if known and wanted is None else ""
    template = None if job is None else job["spec"]["template"]
    is_done = job is not None and is_complete(job)
    paused = wanted is not None and wanted.paused
    return GroupStatus(
        name=name,
        pool="command",
        desired_replicas=0 if paused else 1,
        ready_replicas=int(is_done),
        desired_slots=0,
        workers=tuple(_job_worker(one, seen, template=template, drift=drift) for one in own),
        missing=() if job is not None else (name,),
        paused=paused,
        up_to_date_replicas=int(job is not None),
        available_replicas=int(is_done),
    )


_PHASES: Mapping[str, State] = {"Succeeded": State.COMPLETED, "Failed": State.FAILED}


def _job_worker(pod: Object, seen: Seen, *, template: Object | None, drift: str) -> WorkerStatus:
    shown = _worker(pod, seen, template=template, slots=0, drift=drift)
    state = _PHASES.get(str((pod.get("status") or {}).get("phase") or ""))
    if state is None:
        return replace(shown, ready=False, note=shown.note or "the job runs") if shown.state is State.READY else shown
    return replace(shown, state=state, ready=state is State.COMPLETED, note=shown.note or _exit_of(pod))


def _exit_of(pod: Object) -> str:
    """With which code it ended, where that was not 0."""
    for one in (pod.get("status") or {}).get("containerStatuses") or ():
        code = ((one.get("state") or {}).get("terminated") or {}).get("exitCode")
        if code:
            return f"exit code {code}"
    return ""


def _group(name: str, wanted: DesiredGroup | None, seen: Seen, *, known: bool) -> GroupStatus:
    deployment = seen.deployments.get(name)
    template = None if deployment is None else deployment["spec"]["template"]
    own = [one for one in seen.pods if label_of(one, "app.kubernetes.io/name") == name]
    slots = wanted.spec.pool.concurrency if wanted is not None and wanted.spec.kind != "command" else 0
    system = name.startswith(RESERVED_PREFIX)
    drift = ORPHANED if known and wanted is None and not system else ""
    workers = tuple(_worker(one, seen, template=template, slots=slots, drift=drift) for one in own)
    count = _count(deployment, wanted)
    ready = sum(one.ready and not one.drift for one in workers)
    return GroupStatus(
        name=name,
        pool="" if wanted is None else "command" if wanted.spec.kind == "command" else wanted.spec.pool.type,
        desired_replicas=count,
        ready_replicas=ready,
        desired_slots=count * slots,
        workers=workers,
        missing=() if deployment is not None else (name,),
        system=system,
        paused=wanted.paused if wanted is not None else False,
        up_to_date_replicas=sum(not one.drift for one in workers),
        available_replicas=sum(one.ready for one in workers),
    )


def _count(deployment: Object | None, wanted: DesiredGroup | None) -> int:
    """Pods that there should be: the cluster's number, which a scaler may have changed."""
    if deployment is not None:
        said = deployment["spec"].get("replicas")
        return 1 if said is None else int(said)
    return wanted.replicas if wanted is not None else 0


def _worker(pod: Object, seen: Seen, *, template: Object | None, slots: int, drift: str) -> WorkerStatus:
    status: Mapping[str, Any] = pod.get("status") or {}
    inside = seen.inside.get(name_of(pod)) or {}
    trouble, condition = trouble_of(pod), str(inside.get("condition") or "")
    ready = _has(status, "Ready")
    restarts = sum(int(one.get("restartCount") or 0) for one in status.get("containerStatuses") or ())
    notes = [trouble, str(inside.get("reason") or "") if condition in _TROUBLES else ""]
    notes += [f"{restarts} restarts"] if restarts else []
    return WorkerStatus(
        name=name_of(pod),
        pid=inside.get("pid"),
        state=_state(pod, condition, ready=ready, trouble=trouble),
        digest=_digest(pod),
        slots=int(inside.get("slots") or slots),
        busy=int(inside.get("busy") or 0),
        processed=int(inside.get("processed") or 0),
        failed=int(inside.get("failed") or 0),
        memory_bytes=int(inside.get("memory") or 0),
        uptime_seconds=seen.uptimes.get(name_of(pod), 0.0),
        tasks=tuple(
            RunningTask(str(one["id"]), str(one["name"]), float(one["since"])) for one in inside.get("tasks", ())
        ),
        held=condition == "held",
        drift=drift or (OUTDATED if _is_outdated(pod, template) else ""),
        note="; ".join(note for note in notes if note),
        ready=ready and "deletionTimestamp" not in pod["metadata"] and condition not in _TROUBLES,
        trouble=_TROUBLES.get(condition, Trouble.NONE),
    )


def _digest(pod: Object) -> str:
    return str((pod["metadata"].get("annotations") or {}).get(DIGEST) or "")


def _is_outdated(pod: Object, template: Object | None) -> bool:
    """Whether it is a pod of before: its Deployment makes others now, by their digest or their image."""
    if template is None:
        return False
    images = [[one["image"] for one in (whole.get("spec") or {}).get("containers") or ()] for whole in (pod, template)]
    return _digest(pod) != _digest(template) or (bool(images[0]) and images[0] != images[1])


def _state(pod: Object, condition: str, *, ready: bool, trouble: str) -> State:
    if "deletionTimestamp" in pod["metadata"]:
        return State.DRAINING
    if trouble or (pod.get("status") or {}).get("phase") == "Failed":
        return State.FAILED
    if condition in _STATES:
        return _STATES[condition]
    return State.READY if ready else State.STARTING


def _has(status: Mapping[str, Any], condition: str) -> bool:
    return any(one["type"] == condition and one["status"] == "True" for one in status.get("conditions") or ())


def began_at(pod: Object) -> str:
    """When its container began, as the cluster writes it; empty for one that does not run."""
    for one in (pod.get("status") or {}).get("containerStatuses") or ():
        if began := ((one.get("state") or {}).get("running") or {}).get("startedAt"):
            return str(began)
    return ""
