"""The Kubernetes objects of a fleet, as plain values: no status, no nulls, no value of a secret."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from fleet.backends.kubernetes import keda
from fleet.backends.kubernetes.names import DIGEST, labels_of, object_name, secret_reference, selector_of, spec_name
from fleet.core.desired import Desired, DesiredGroup
from fleet.core.expand.in_cluster import cluster_of, desired_in_cluster, is_scaled, slots_per_pod
from fleet.core.expand.specs import secret_variable
from fleet.core.manifest.kubernetes_models import Kubernetes, KubernetesGroup
from fleet.core.manifest.models import Manifest
from fleet.core.spec import WorkerSpec, digest, given_fields
from fleet.errors import Refused

Object = dict[str, Any]

CONTAINER = "worker"
KUSTOMIZATION = "kustomization.yaml"
SPEC_FOLDER = "/etc/fleet"
SPEC_FILE = "spec.json"
STATE_FOLDER = "/run/fleet"
GRACE_BEYOND_DRAIN_SECONDS = 30
"""Beyond the drain: the worker ends itself when its drain is over, and hands back what it holds."""
_PROBE_SECONDS = 15
_PROBE_TIMEOUT_SECONDS = 10
_STARTUP_PERIOD_SECONDS = 2
_LEAST_PROGRESS_SECONDS = 600


@dataclass(frozen=True, slots=True)
class _Pods:
    """A group with what the cluster is told about it. ``spec`` is that of each of its pods."""

    fleet: str
    group: DesiredGroup
    spec: WorkerSpec
    cluster: Kubernetes
    own: KubernetesGroup
    moves: bool

    @property
    def name(self) -> str:
        return object_name(self.fleet, self.group.name)

    def given(self, field: str) -> Any:
        """What the group says itself, else what the cluster's part says for all."""
        value = getattr(self.own, field)
        return getattr(self.cluster, field) if value is None else value


def files(manifest: Manifest) -> Mapping[str, tuple[Object, ...]]:
    """File name -> its objects: one file per group, one for what they share, and Kustomize's. Raises Refused."""
    return objects_of(manifest, desired_in_cluster(manifest))


def objects_of(manifest: Manifest, desired: Desired) -> Mapping[str, tuple[Object, ...]]:
    """As :func:`files`, of a fleet that was expanded before."""
    cluster, least = cluster_of(manifest), keda.least_slots(manifest, desired)
    together = sum(least.values())
    made: dict[str, tuple[Object, ...]] = {"fleet.yaml": tuple(_shared(manifest, cluster))}
    for name, group in desired.groups.items():
        made[f"group-{name}.yaml"] = tuple(_group(manifest, _pods(manifest, cluster, group), least, together))
    made = {name: objects for name, objects in made.items() if objects}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(made),
    }
    return {**made, KUSTOMIZATION: (kustomization,)}


def _pods(manifest: Manifest, cluster: Kubernetes, group: DesiredGroup) -> _Pods:
    moves = is_scaled(manifest, group)
    slots = group.spec.pool.concurrency if moves else slots_per_pod(group)
    scale = manifest.spec.groups[group.name].autoscale
    if moves and scale is not None and scale.max is not None:
        slots = min(slots, max(1, scale.max))
    spec = group.spec
    if spec.kind != "command":
        spec = replace(spec, pool=replace(spec.pool, concurrency=slots))
    own = cluster.groups.get(group.name, KubernetesGroup())
    return _Pods(manifest.name, group, spec, cluster, own, moves)


def _head(api: str, kind: str, name: str, fleet: str, *, cluster: Kubernetes, group: str = "") -> Object:
    metadata: Object = {"name": name}
    if cluster.namespace:
        metadata["namespace"] = cluster.namespace
    return {"apiVersion": api, "kind": kind, "metadata": {**metadata, "labels": labels_of(fleet, group)}}


# --- what all groups share


def _shared(manifest: Manifest, cluster: Kubernetes) -> Iterator[Object]:
    fleet = manifest.name
    if cluster.service_account is None:
        account = _head("v1", "ServiceAccount", fleet, fleet, cluster=cluster)
        yield {**account, "automountServiceAccountToken": False}
    if cluster.network_policy == "deny-ingress":
        policy = _head("networking.k8s.io/v1", "NetworkPolicy", fleet, fleet, cluster=cluster)
        yield {**policy, "spec": {"podSelector": {"matchLabels": selector_of(fleet)}, "policyTypes": ["Ingress"]}}


# --- one group


def _group(manifest: Manifest, pods: _Pods, least: Mapping[str, int], together: int) -> Iterator[Object]:
    group, fleet = pods.group, pods.fleet

    def head(api: str, kind: str, name: str) -> Object:
        return _head(api, kind, name, fleet, cluster=pods.cluster, group=group.name)

    document = json.dumps(given_fields(pods.spec), indent=1, sort_keys=True) + "\n"
    yield {**head("v1", "ConfigMap", spec_name(pods.spec)), "data": {SPEC_FILE: document}}
    deployment = {**head("apps/v1", "Deployment", pods.name), "spec": _deployment(pods)}
    yield _patched(deployment, pods)
    if (pods.moves or group.replicas > 1) and group.rollout.strategy == "rolling":
        spec = {
            "maxUnavailable": max(1, group.rollout.max_unavailable),
            "selector": {"matchLabels": selector_of(fleet, group.name)},
        }
        yield {**head("policy/v1", "PodDisruptionBudget", pods.name), "spec": spec}
    if pods.moves:
        scaling = keda.Scaling(manifest, least, group.name, pods.spec, pods.cluster, together)
        if (authentication := keda.authentication(scaling)) is not None:
            yield {**head("keda.sh/v1alpha1", "TriggerAuthentication", pods.name), "spec": authentication}
        scaled = head("keda.sh/v1alpha1", "ScaledObject", pods.name)
        if group.paused:
            scaled["metadata"]["annotations"] = {"autoscaling.keda.sh/paused-replicas": "0"}
        yield {**scaled, "spec": keda.scaled_object(scaling, target=pods.name)}


def _deployment(pods: _Pods) -> Object:
    group, rollout = pods.group, pods.group.rollout
    spec: Object = {} if pods.moves else {"replicas": group.replicas}
    spec["selector"] = {"matchLabels": selector_of(pods.fleet, group.name)}
    if rollout.strategy == "recreate":
        spec["strategy"] = {"type": "Recreate"}
    else:
        bounds = {"maxSurge": rollout.max_surge, "maxUnavailable": rollout.max_unavailable}
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": bounds}
    ready = math.ceil(rollout.min_ready_seconds)
    if ready:
        spec["minReadySeconds"] = ready
    least = max(_LEAST_PROGRESS_SECONDS, math.ceil(group.ready_timeout_seconds) + 60)
    deadline = least if rollout.deadline_seconds is None else math.ceil(rollout.deadline_seconds)
    spec["progressDeadlineSeconds"] = max(deadline, ready + 1)
    spec["template"] = _template(pods)
    return spec


def _template(pods: _Pods) -> Object:
    fleet, group = pods.fleet, pods.group.name
    own_labels = {**(pods.cluster.labels or {}), **(pods.own.labels or {})}
    annotations = {**(pods.cluster.annotations or {}), **(pods.own.annotations or {}), DIGEST: digest(pods.spec)}
    metadata = {"labels": {**own_labels, **labels_of(fleet, group)}, "annotations": annotations}
    return {"metadata": metadata, "spec": _pod(pods)}


def _pod(pods: _Pods) -> Object:
    cluster = pods.cluster
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
        "containers": [_container(pods)],
        "volumes": [
            {"name": "spec", "configMap": {"name": spec_name(pods.spec)}},
            {"name": "state", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
        ],
    }
    return {key: value for key, value in pod.items() if value not in (None, [], {})}


def _container(pods: _Pods) -> Object:
    image = pods.given("image")
    if not image:
        hint = "write spec.kubernetes.image: registry/app:tag"
        raise Refused(f"group {pods.group.name!r} has no image", hint=hint)
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": pods.cluster.pull_policy,
        "command": ["python3", "-P", "-m", "fleet.pod", f"{SPEC_FOLDER}/{SPEC_FILE}"],
        "env": [
            {"name": "FLEET_HOME", "value": STATE_FOLDER},
            {"name": "FLEET_RECORD", "value": record_path(pods.group.name)},
            {"name": "FLEET_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *_secrets(pods),
        ],
        "resources": _resources(pods),
        **_probes(pods),
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [
            {"name": "spec", "mountPath": SPEC_FOLDER, "readOnly": True},
            {"name": "state", "mountPath": STATE_FOLDER},
        ],
    }
    return {key: value for key, value in container.items() if value not in (None, [], {})}


def record_path(group: str) -> str:
    """Where a worker in a pod keeps its record: ``kubectl exec POD -- fleet health`` reads it."""
    return f"{STATE_FOLDER}/{group}.rec"


def _secrets(pods: _Pods) -> Iterator[Object]:
    for secret in sorted(pods.spec.secret_marks()):
        reference = secret_reference(pods.fleet, pods.cluster, secret)
        yield {"name": secret_variable(secret), "valueFrom": {"secretKeyRef": reference}}


def _resources(pods: _Pods) -> Object:
    """As written; the memory that the budgets count is requested unless something else is."""
    said: Any = pods.given("resources")
    requests, limits = (dict(said.requests), dict(said.limits)) if said is not None else ({}, {})
    price, slots = pods.group.price, pods.spec.pool.concurrency if pods.spec.kind != "command" else 0
    memory = price.memory_per_replica_bytes + price.memory_per_slot_bytes * slots
    if memory and "memory" not in requests and "memory" not in limits:
        requests["memory"] = f"{math.ceil(memory / (1 << 20))}Mi"
    found = {"requests": dict(sorted(requests.items())), "limits": dict(sorted(limits.items()))}
    return {name: values for name, values in found.items() if values}


def _probes(pods: _Pods) -> Object:
    def probe(kind: str, **times: int) -> Object:
        command = ["python3", "-P", "-m", "fleet", "health", "--probe", kind]
        return {"exec": {"command": command}, "timeoutSeconds": _PROBE_TIMEOUT_SECONDS, **times}

    tries = max(1, math.ceil(pods.group.ready_timeout_seconds / _STARTUP_PERIOD_SECONDS))
    startup = probe("ready", periodSeconds=_STARTUP_PERIOD_SECONDS, failureThreshold=tries)
    if pods.spec.kind != "worker" and (wait := math.ceil(pods.spec.ready_after_seconds)):
        startup["initialDelaySeconds"] = wait
    return {
        "startupProbe": startup,
        "livenessProbe": probe("live", periodSeconds=_PROBE_SECONDS, failureThreshold=4),
        "readinessProbe": probe("ready", periodSeconds=_PROBE_SECONDS, failureThreshold=2),
    }


# --- what is not modelled


def _patched(deployment: Object, pods: _Pods) -> Object:
    patched: Object = _merged(deployment, pods.own.patch)
    for path in (("apiVersion",), ("kind",), ("metadata", "name"), ("spec", "selector")):
        if _at(patched, path) != _at(deployment, path):
            hint = "leave it out of the patch: fleet finds its objects and pods by it"
            where = f"spec.kubernetes.groups.{pods.group.name}.patch.{'.'.join(path)}"
            raise Refused(f"{where} cannot be changed", hint=hint)
    return patched


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(target, dict) or not isinstance(patch, dict):
        return patch
    return {**target, **{key: _merged(target.get(key), value) for key, value in patch.items()}}
