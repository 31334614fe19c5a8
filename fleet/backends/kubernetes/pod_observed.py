"""The pods of a fleet as the controller's decision sees replicas: from their conditions and what they report. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fleet.backends.kubernetes.kinds import Object, label_of, name_of
from fleet.backends.kubernetes.names import DIGEST
from fleet.core.desired import Desired
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.replica.pod_report import PodReport, pod_index

GROUP = "app.kubernetes.io/name"


def observed_pods(desired: Desired, pods: Iterable[Object], reports: Mapping[str, PodReport]) -> Observed:
    """``reports``: pod -> what it told. A pod that drains is one that the cluster has begun to remove; one that a
    person holds counts as one that works, because the cluster counts it as well."""
    found = {}
    for pod in pods:
        group = label_of(pod, GROUP)
        if group in desired.groups:
            one = _observed(desired, group, pod, reports.get(name_of(pod)))
            found[one.name] = one
    return Observed(fleet=desired.fleet, up=True, replicas=found)


def _observed(desired: Desired, group: str, pod: Object, report: PodReport | None) -> ObservedReplica:
    spec, state = desired.groups[group].spec, state_of(pod, report)
    size = spec.pool.concurrency if spec.kind != "command" else 0
    gone = state is State.STOPPED
    return ObservedReplica(
        group=group,
        index=pod_index(name_of(pod)),
        digest=str((pod["metadata"].get("annotations") or {}).get(DIGEST) or ""),
        state=state,
        pid=None if gone or state is State.STARTING else report.pid if report is not None else 0,
        spec=spec,
        slots=report.slots if report is not None else size,
        busy=report.busy if report is not None else 0,
        processed=report.ended if report is not None else 0,
        busy_seconds=report.busy_seconds if report is not None else 0.0,
        reserved=report.reserved if report is not None else 0,
        counts=report is not None and report.counts and not gone,
    )


def state_of(pod: Object, report: PodReport | None) -> State:
    """What a pod is good for now."""
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return State.STOPPED
    if "deletionTimestamp" in pod["metadata"]:
        return State.DRAINING
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions") or ())
    return State.READY if ready and (report is None or report.state != "starting") else State.STARTING


def is_present(pod: Object) -> bool:
    """Whether the cluster counts it when it decides how many more or fewer there must be."""
    finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not finished and "deletionTimestamp" not in pod["metadata"]
