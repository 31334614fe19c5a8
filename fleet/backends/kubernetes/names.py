"""Names, labels and annotations of a fleet's objects."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from fleet.core.spec import WorkerSpec, digest

if TYPE_CHECKING:
    from fleet.core.manifest.kubernetes_models import Kubernetes

MOST_CHARACTERS = 63
DIGEST = "workerfleet.dev/digest"
"""Annotation of a pod: the digest of what its worker must be; another one replaces the pod."""
KEEPS = "workerfleet.dev/keeps"
"""Label of what fleet keeps for itself in a cluster (revisions, its lock) and no manifest asks for."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""Annotation of a pod, known to Kubernetes: when a ReplicaSet shrinks, the pods that cost least go first."""
LEADS = "workerfleet.dev/leads"
"""Label of the one pod of the controller that KEDA asks."""
CONTROLLER = "fleet-controller"
"""In place of a group's name: the controller of a fleet in a cluster."""
RESTARTED = "workerfleet.dev/restarted-at"
"""Annotation of a pod: when somebody asked for new pods of the same spec."""


def object_name(fleet: str, group: str) -> str:
    """At most 63 characters, as label values may have: a longer one ends in a hash of the whole."""
    whole = f"{fleet}-{group}"
    if len(whole) <= MOST_CHARACTERS:
        return whole
    mark = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole[: MOST_CHARACTERS - 9].rstrip('-')}-{mark}"


def spec_name(spec: WorkerSpec) -> str:
    """The ConfigMap that pods read their spec from. It changes in place with what a running worker can apply; anything
    else makes another one, so that an old pod that starts again is still an old one."""
    return f"{object_name(spec.fleet, spec.group)}-{digest(spec)}"


def labels_of(fleet: str, group: str = "") -> dict[str, str]:
    """The recommended labels; those of the whole fleet without a group."""
    own = {**selector_of(fleet, group), "app.kubernetes.io/managed-by": "fleet"}
    return {**own, "app.kubernetes.io/component": "worker"} if group else own


def selector_of(fleet: str, group: str = "") -> dict[str, str]:
    """The labels that tell the pods of a fleet, or of one group, from all others. They never change."""
    own = {"app.kubernetes.io/part-of": fleet}
    return (
        {"app.kubernetes.io/name": group, "app.kubernetes.io/instance": object_name(fleet, group), **own}
        if group
        else own
    )


def secret_reference(fleet: str, cluster: Kubernetes, secret: str) -> dict[str, str]:
    """Name and key of the Secret that holds a declared secret."""
    said = cluster.secrets.get(secret)
    return {"name": f"{fleet}-secrets", "key": secret} if said is None else {"name": said.name, "key": said.key}
