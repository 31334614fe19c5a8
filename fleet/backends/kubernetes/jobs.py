"""Groups that run to their end, as Jobs, and pods that wait until one has run for the version of themselves. PURE.

A Job carries a mark for every group that waits for it: a hash of what makes that group's workers. The pods of such a
group ask for a Job with their own mark, so another version of the group needs another run, and another version of the
Job alone leaves them as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fleet.backends.kubernetes.kinds import Object
from fleet.backends.kubernetes.names import object_name, selector_of
from fleet.core.spec import RestartPolicy, WorkerSpec, digest

WAITING = "wait-for-jobs"
"""Name of the container that runs before the worker's, until the Jobs are complete."""
TOKEN_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN = "api-token"
"""The volume with which a container may ask the API server; the worker's own container has none."""
_TOKEN_SECONDS = 3600
_BEFORE = "before.workerfleet.dev/"
_MODULE = "fleet.wait_for_jobs"
_MARK_CHARACTERS = 10


def version_mark(spec: WorkerSpec, image: str) -> str:
    """Of what makes the workers of a group: their spec and their image."""
    return _hash([digest(spec), image])


def before_labels(waiting: Mapping[str, str]) -> dict[str, str]:
    """Labels of a Job: which versions of which groups it runs before. ``waiting``: group -> its mark."""
    return {f"{_BEFORE}{group}": mark for group, mark in sorted(waiting.items())}


def job_selector(fleet: str, job: str, *, group: str, mark: str) -> str:
    """The Jobs of group ``job`` that ran, or run, for one version of ``group``."""
    labels = {**selector_of(fleet, job), f"{_BEFORE}{group}": mark}
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def job_name(fleet: str, group: str, template: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Another template, or other groups that wait, make another Job: a cluster changes none that has begun."""
    return object_name(fleet, f"{group}-{_hash([template, sorted(labels.items())])}")


def _hash(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_MARK_CHARACTERS]


def job_spec(template: Mapping[str, Any], restart: RestartPolicy, *, paused: bool) -> dict[str, Any]:
    """One pod that is tried once, or as often as ``restart`` allows."""
    pod = {**template["spec"], "restartPolicy": "Never"}
    spec = {
        "backoffLimit": restart.max_crashes if restart.policy == "onFailure" else 0,
        "template": {**template, "spec": pod},
    }
    return {**spec, "suspend": True} if paused else spec


def waiting_container(selectors: Iterable[str], image: str, pull_policy: str | None) -> dict[str, Any]:
    """Runs until each selector has a Job that is complete."""
    policy = {"imagePullPolicy": pull_policy} if pull_policy else {}
    return {
        "name": WAITING,
        "image": image,
        **policy,
        "command": ["python3", "-P", "-m", _MODULE, *selectors],
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [token_mount()],
    }


def token_mount() -> dict[str, Any]:
    """Where the client of the API looks for its token."""
    return {"name": TOKEN, "mountPath": TOKEN_FOLDER, "readOnly": True}


def token_volume() -> dict[str, Any]:
    """The token of the pod's account, and how the API server is known: as Kubernetes mounts it by itself elsewhere."""
    namespace = {"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]
    return {"name": TOKEN, "projected": {"sources": sources}}


def selectors_in(owner: Object) -> Iterator[str]:
    """Which Jobs the pods of a Deployment, ReplicaSet or Job wait for."""
    for container in owner["spec"]["template"]["spec"].get("initContainers") or ():
        if container["name"] == WAITING:
            yield from container["command"][container["command"].index(_MODULE) + 1 :]


def is_selected(job: Object, selector: str) -> bool:
    """Whether a Job is one of those that a selector means."""
    labels = job["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, _, value in (one.partition("=") for one in selector.split(",")))


def verdict(job: Object) -> str:
    """``complete``, why it failed, or empty while it runs."""
    for one in (job.get("status") or {}).get("conditions") or ():
        if one["status"] == "True" and one["type"] in ("Complete", "Failed"):
            return "complete" if one["type"] == "Complete" else f"failed: {one.get('message') or one.get('reason')}"
    return ""


def is_complete(job: Object) -> bool:
    """Whether it has ended well."""
    return verdict(job) == "complete"


def failure(job: Object) -> str:
    """Why it failed; empty for one that has not."""
    said = verdict(job)
    return "" if said == "complete" else said.removeprefix("failed: ")


def age_key(job: Object) -> str:
    """Jobs in the order of this were made one after the other."""
    return str(job["metadata"].get("creationTimestamp") or "")
