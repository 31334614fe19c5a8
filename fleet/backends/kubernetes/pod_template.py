"""The pods of one group: their template, with the container, its probes, its secrets and what it may use. PURE."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fleet.backends.kubernetes import jobs
from fleet.backends.kubernetes.names import DIGEST, labels_of, object_name, secret_reference, selector_of
from fleet.backends.kubernetes.packed import MANIFEST_FILE, packed_digest, packed_name
from fleet.core.desired import DesiredGroup
from fleet.core.expand.specs import secret_variable
from fleet.core.manifest.kubernetes_models import Kubernetes, KubernetesGroup
from fleet.core.spec import WorkerSpec
from fleet.errors import Refused
from fleet.replica.pod_report import METRICS_PATH
from fleet.replica.pod_report import PORT as REPORT_PORT

Object = dict[str, Any]

CONTAINER = "worker"
SPEC_FOLDER = "/etc/fleet"
SPEC_FILE = "spec.json"
STATE_FOLDER = "/run/fleet"
GRACE_BEYOND_DRAIN_SECONDS = 30
"""Beyond the drain: the worker ends itself when its drain is over, and hands back what it holds."""
PACKED_HOME = f"{STATE_FOLDER}/home"
PACKED_LOG_BYTES = 1 << 20
"""Of each replica's log in such a pod, which lies in memory; the container's own log has every line."""
_STATE_MI = 64
_PACKED_START_SECONDS = 30
"""Beyond what replicas may take to become ready: `fleet run` and supervisord start before them."""
_PROBE_SECONDS = 15
_PROBE_TIMEOUT_SECONDS = 10
_STARTUP_PERIOD_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Pods:
    """A group with what the cluster is told about it. ``spec`` is that of each replica in its pods.

    waits_for: selectors of Jobs that must be complete before a pod begins.  slots: of one pod.  asks_fleet: where the
    controller in the cluster says how many pods there are, the static part of the group, in slots.  lease: name of the
    one without which the program does not run.  count: of pods, where nobody scales them.  pack: replicas in each.
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
    count: int = 1
    pack: int = 1

    @property
    def name(self) -> str:
        return object_name(self.fleet, self.group.name)

    def given(self, field: str) -> Any:
        """What the group says itself, else what the cluster's part says for all."""
        value = getattr(self.own, field)
        return getattr(self.cluster, field) if value is None else value

    @property
    def digest(self) -> str:
        """Of what a pod must be: another one replaces it."""
        return packed_digest(self.spec, self.pack)

    @property
    def serves_metrics(self) -> bool:
        """Whether its pods can be scraped."""
        return self.cluster.metrics != "none" and not self.spec.job


def template_of(pods: Pods) -> Object:
    fleet, group = pods.fleet, pods.group.name
    own_labels = {**(pods.cluster.labels or {}), **(pods.own.labels or {})}
    scraped = _scrape_annotations() if pods.serves_metrics and pods.cluster.metrics == "annotations" else {}
    said = {**scraped, **(pods.cluster.annotations or {}), **(pods.own.annotations or {})}
    annotations = {**said, DIGEST: pods.digest}
    metadata = {"labels": {**own_labels, **labels_of(fleet, group)}, "annotations": annotations}
    return {"metadata": metadata, "spec": _pod(pods)}


def _scrape_annotations() -> dict[str, str]:
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(REPORT_PORT),
        "prometheus.io/path": METRICS_PATH,
    }


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
            {"name": "spec", "configMap": {"name": packed_name(pods.spec, pods.pack)}},
            {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": f"{_STATE_MI * pods.pack}Mi"}},
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
        "command": _command(pods),
        "env": [
            *_places(pods),
            {"name": "FLEET_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *([{"name": "FLEET_LEASE", "value": pods.lease}] if pods.lease else []),
            *([] if _port(pods) is None else [{"name": "FLEET_REPORT_PORT", "value": str(REPORT_PORT)}]),
            *_secrets(pods),
        ],
        "ports": [] if (port := _port(pods)) is None else [port],
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


def _command(pods: Pods) -> list[str]:
    if pods.pack == 1:
        return ["python3", "-P", "-m", "fleet.pod", f"{SPEC_FOLDER}/{SPEC_FILE}"]
    return ["python3", "-P", "-m", "fleet.packed_pod", f"{SPEC_FOLDER}/{MANIFEST_FILE}"]


def _places(pods: Pods) -> list[Object]:
    """Where what runs inside keeps its files, and which replicas are meant where none is named."""
    if pods.pack == 1:
        return [
            {"name": "FLEET_HOME", "value": STATE_FOLDER},
            {"name": "FLEET_RECORD", "value": record_path(pods.group.name)},
        ]
    return [
        {"name": "FLEET_HOME", "value": PACKED_HOME},
        {"name": "FLEET_RECORDS", "value": f"{PACKED_HOME}/{pods.fleet}/run/records/{pods.group.name}"},
        {"name": "FLEET_LOG_BYTES", "value": str(PACKED_LOG_BYTES)},
    ]


def _port(pods: Pods) -> Object | None:
    """Where the scaler and Prometheus ask the pod; None where neither does."""
    if pods.asks_fleet is None and not pods.serves_metrics:
        return None
    name = "metrics" if pods.serves_metrics else "report"
    return {"name": name, "containerPort": REPORT_PORT, "protocol": "TCP"}


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
    memory = (price.memory_per_replica_bytes + price.memory_per_slot_bytes * slots) * pods.pack
    if memory and "memory" not in requests and "memory" not in limits:
        requests["memory"] = f"{math.ceil(memory / (1 << 20))}Mi"
    found = {"requests": dict(sorted(requests.items())), "limits": dict(sorted(limits.items()))}
    return {name: values for name, values in found.items() if values}


def _probes(pods: Pods) -> Object:
    if pods.pack > 1:
        return _packed_probes(pods)
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


def _packed_probes(pods: Pods) -> Object:
    """It has started when all replicas are ready. From then on fleet in the pod looks after each of them, its health
    checks included, and the pod is as good as its best one: a restart would end what the others run."""

    def probe(kind: str, *how: str, **times: int) -> Object:
        command = ["python3", "-P", "-m", "fleet", "health", "--probe", kind, *how]
        return {"exec": {"command": command}, "timeoutSeconds": _PROBE_TIMEOUT_SECONDS, **times}

    seconds = pods.group.ready_timeout_seconds + _PACKED_START_SECONDS
    tries = math.ceil(seconds / _STARTUP_PERIOD_SECONDS)
    return {
        "startupProbe": probe(
            "ready", "--least", str(pods.pack), periodSeconds=_STARTUP_PERIOD_SECONDS, failureThreshold=tries
        ),
        "livenessProbe": probe("live", "--least", "1", periodSeconds=_PROBE_SECONDS, failureThreshold=4),
        "readinessProbe": probe("ready", "--least", "1", periodSeconds=_PROBE_SECONDS, failureThreshold=2),
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
