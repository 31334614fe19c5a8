"""How far a Deployment is, and what keeps its pods from being ready: what the cluster's own conditions say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fleet.backends.kubernetes.kinds import Object, label_of, name_of

_HOPELESS = frozenset({"InvalidImageName", "CreateContainerConfigError", "CreateContainerError"})


@dataclass(frozen=True, slots=True)
class RolloutState:
    """One Deployment at one moment.

    failed: why the cluster gave it up, empty while it has not.  verdict: that condition with its time; the one of an
    earlier rollout stays for a moment after the next has begun.
    """

    name: str
    wanted: int
    updated: int
    available: int
    total: int
    seen: bool
    failed: str = ""
    verdict: str = ""
    group: str = ""

    @property
    def is_done(self) -> bool:
        """All wanted pods are of the new spec and available, and no old one is left."""
        enough = self.updated >= self.wanted and self.available >= self.wanted
        return self.seen and enough and self.total <= max(self.updated, self.wanted)

    def __str__(self) -> str:
        old = self.total - self.updated
        rest = f", {old} old" if old > 0 else ""
        return f"{self.available} of {self.wanted} available, {self.updated} new{rest}"


def rollout_state(deployment: Object) -> RolloutState:
    """Of a Deployment with its status."""
    status: dict[str, Any] = deployment.get("status") or {}
    wanted = deployment["spec"].get("replicas")
    given_up = _given_up(status.get("conditions") or ())
    return RolloutState(
        name=name_of(deployment),
        group=label_of(deployment, "app.kubernetes.io/name"),
        wanted=1 if wanted is None else int(wanted),
        updated=int(status.get("updatedReplicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        total=int(status.get("replicas") or 0),
        seen=int(status.get("observedGeneration") or 0) >= int(deployment["metadata"].get("generation") or 0),
        failed=str(given_up.get("message") or given_up.get("reason") or ""),
        verdict=f"{given_up.get('lastUpdateTime')} {given_up.get('message')}" if given_up else "",
    )


def _given_up(conditions: Iterable[Object]) -> Object:
    """The condition that says so; empty without one."""
    return next((one for one in conditions if one["type"] == "Progressing" and one["status"] == "False"), {})


def troubles(pods: Iterable[Object]) -> Iterator[str]:
    """One sentence for each pod that does not run, or runs and is not ready although it ran before."""
    for pod in pods:
        if reason := trouble_of(pod):
            yield f"pod {name_of(pod)}: {reason}"


def trouble_of(pod: Object) -> str:
    """Why a pod does not work, empty where nothing is wrong."""
    status = pod.get("status") or {}
    for one in status.get("conditions") or ():
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return f"not on any node: {one.get('message') or one.get('reason')}"
    for one in status.get("containerStatuses") or ():
        waiting = (one.get("state") or {}).get("waiting") or {}
        reason = str(waiting.get("reason") or "")
        if reason and (reason in _HOPELESS or reason.endswith("BackOff") or reason.startswith("Err")):
            last = ((one.get("lastState") or {}).get("terminated") or {}).get("exitCode")
            told = str(waiting.get("message") or "") or (f"exit code {last}" if last is not None else "")
            return f"{reason}: {told}" if told else reason
    return ""
