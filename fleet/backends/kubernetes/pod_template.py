"""The pods of one group: their template, with the container, its probes, its secrets and what it may use. PURE."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fleet.backends.kubernetes import jobs
from fleet.backends.kubernetes.names import DIGEST, labels_of, object_name, secret_reference, selector_of, spec_name
from fleet.core.desired import DesiredGroup
from fleet.core.expand.specs import secret_variable
from fleet.core.manifest.kubernetes_models import Kubernetes, KubernetesGroup
from fleet.core.spec import WorkerSpec, digest
from fleet.errors import Refused
from fleet.replica.pod_report import PORT as REPORT_PORT

Object = dict[str, Any]

CONTAINER = "worker"
SPEC_FOLDER = "/etc/fleet"
SPEC_FILE = "spec.json"
STATE_FOLDER = "/run/fleet"
GRACE_BEYOND_DRAIN_SECONDS = 30
"""Beyond the drain: the worker ends itself when its drain is over, and hands back what it holds."""
_PROBE_SECONDS = 15
_PROBE_TIMEOUT_SECONDS = 10
_STARTUP_PERIOD_SECONDS = 2
_REPORTS = {"name": "report", "containerPort": REPORT_PORT, "protocol": "TCP"}


@dataclass(frozen=True, slots=True)
class Pods:
    """A group with what the cluster is told about it. ``spec`` is that of each of its pods.

    waits_for: selectors of Jobs that must be complete before a pod begins.  slots: of one pod.  asks_fleet: where the
    controller in the cluster says how many pods there are, the static part of the group, in slots.  lease: name of the
    one without which the program does not run.
    """

    fleet: str
    group: DesiredGroup
    spec: WorkerSpec
    cluster: Kubernetes
    own: KubernetesGroup
    moves: bool
    waits_for: tuple[str, ...] = ()
    slots: int = 1
    asks_fleet: int | None = None
    lease: str = ""

    @property
    def name(self) -> str:
        return object_name(self.fleet, self.group.name)

    def given(self, field: str) -> Any:
        """What the group says itself, else what the cluster's part says for all."""
        value = getattr(self.own, field)
        return getattr(self.cluster, field) if value is None else value


def template_of(pods: Pods) -> Object:
    fleet, group = pods.fleet, pods.group.name
    own_labels = {**(pods.cluster.labels or {}), **(pods.own.labels or {})}
    annotations = {**(pods.cluster.annotations or {}), **(pods.own.annotations or {}), DIGEST: digest(pods.spec)}
    metadata = {"labels": {**own_labels, **labels_of(fleet, group)}, "annotations": annotations}
    return {"metadata": metadata, "spec": _pod(pods)}


def _pod(pods: Pods) -> Object:
    cluster, image, waits = pods.cluster, _image(pods), bool(pods.waits_for)
    spread = [
        {"labelSelector": {"matchLabels": selector_of(pods.fleet, pods.group.name)}, **one}
        for one in pods.given("topology_spread") or ()
    ]
    pod = {
        "serviceAccountName": cluster.service_account or pods.fleet,
        "automountServiceAccountToken": False,
        "imagePullSecrets": [{"name": name} for name in cluster.pull_secrets],
        "priorityClassName": pods.given("priority_class"),
        "nodeSelector": pods.given("node_selector"),
        "tolerations": pods.given("tolerations"),
        "topologySpreadConstraints": spread,
        "terminationGracePeriodSeconds": math.ceil(pods.spec.drain_timeout_seconds) + GRACE_BEYOND_DRAIN_SECONDS,
        "initContainers": [jobs.waiting_container(pods.waits_for, image, cluster.pull_policy)] if waits else [],
        "containers": [_container(pods, image)],
        "volumes": [
            {"name": "spec", "configMap": {"name": spec_name(pods.spec)}},
            {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            *([jobs.token_volume()] if waits or pods.lease else []),
        ],
    }
    return {key: value for key, value in pod.items() if value not in (None, [], {})}


def _image(pods: Pods) -> str:
    image = pods.given("image")
    if not image:
        hint = "write spec.kubernetes.image: registry/app:tag"
        raise Refused(f"group {pods.group.name!r} has no image", hint=hint)
    return str(image)


def _container(pods: Pods, image: str) -> Object:
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": pods.cluster.pull_policy,
        "command": ["python3", "-P", "-m", "fleet.pod", f"{SPEC_FOLDER}/{SPEC_FILE}"],
        "env": [
            {"name": "FLEET_HOME", "value": STATE_FOLDER},
            {"name": "FLEET_RECORD", "value": record_path(pods.group.name)},
            {"name": "FLEET_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *([{"name": "FLEET_LEASE", "value": pods.lease}] if pods.lease else []),
            *([] if pods.asks_fleet is None else [{"name": "FLEET_REPORT_PORT", "value": str(REPORT_PORT)}]),
            *_secrets(pods),
        ],
        "ports": [] if pods.asks_fleet is None else [_REPORTS],
        "resources": _resources(pods),
        **({} if pods.spec.job else _probes(pods)),
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [
            {"name": "spec", "mountPath": SPEC_FOLDER, "readOnly": True},
            {"name": "state", "mountPath": STATE_FOLDER},
            *([jobs.token_mount()] if pods.lease else []),
        ],
    }
    return {key: value for key, value in container.items() if value not in (None, [], {})}


def record_path(group: str) -> str:
    """Where a worker in a pod keeps its record: ``kubectl exec POD -- fleet health`` reads it."""
    return f"{STATE_FOLDER}/{group}.rec"


def _secrets(pods: Pods) -> Iterator[Object]:
    for secret in sorted(pods.spec.secret_marks()):
        reference = secret_reference(pods.fleet, pods.cluster, secret)
        yield {"name": secret_variable(secret), "valueFrom": {"secretKeyRef": reference}}


def _resources(pods: Pods) -> Object:
    """As written; the memory that the budgets count is requested unless something else is."""
    said: Any = pods.given("resources")
    requests, limits = (dict(said.requests), dict(said.limits)) if said is not None else ({}, {})
    price, slots = pods.group.price, pods.spec.pool.concurrency if pods.spec.kind != "command" else 0
    memory = price.memory_per_replica_bytes + price.memory_per_slot_bytes * slots
    if memory and "memory" not in requests and "memory" not in limits:
        requests["memory"] = f"{math.ceil(memory / (1 << 20))}Mi"
    found = {"requests": dict(sorted(requests.items())), "limits": dict(sorted(limits.items()))}
    return {name: values for name, values in found.items() if values}


def _probes(pods: Pods) -> Object:
    check = pods.spec.health_check

    def probe(kind: str, **times: int) -> Object:
        if check.is_given:
            return {**_check(pods, kind), **times}
        command = ["python3", "-P", "-m", "fleet", "health", "--probe", kind]
        return {"exec": {"command": command}, "timeoutSeconds": _PROBE_TIMEOUT_SECONDS, **times}

    tries = max(1, math.ceil(pods.group.ready_timeout_seconds / _STARTUP_PERIOD_SECONDS))
    startup = probe("ready", periodSeconds=_STARTUP_PERIOD_SECONDS, failureThreshold=tries)
    if pods.spec.kind != "worker" and (wait := math.ceil(pods.spec.ready_after_seconds)):
        startup["initialDelaySeconds"] = wait
    if check.is_given:
        period = max(1, math.ceil(check.interval_seconds))
        each = {"periodSeconds": period, "failureThreshold": check.failures}
        return {
            "startupProbe": startup,
            "livenessProbe": probe("live", **each),
            "readinessProbe": probe("ready", **each),
        }
    return {
        "startupProbe": startup,
        "livenessProbe": probe("live", periodSeconds=_PROBE_SECONDS, failureThreshold=4),
        "readinessProbe": probe("ready", periodSeconds=_PROBE_SECONDS, failureThreshold=2),
    }


def _check(pods: Pods, kind: str) -> Object:
    """The health check as a probe. The kubelet makes a request itself; a command needs the replica's environment, and
    a worker must be well by its record, too."""
    check, spec = pods.spec.health_check, pods.spec
    seconds = math.ceil(check.timeout_seconds)
    if check.port and spec.kind == "command":
        headers = [{"name": "Host", "value": check.host}]
        request = {"path": check.path, "port": check.port, "httpHeaders": headers}
        return {"httpGet": request, "timeoutSeconds": seconds}
    document = f"{STATE_FOLDER}/{spec.fleet}/run/specs/{spec.group}.json"
    command = ["python3", "-P", "-m", "fleet.replica.health_check", document, kind]
    return {"exec": {"command": command}, "timeoutSeconds": seconds + _PROBE_TIMEOUT_SECONDS}
