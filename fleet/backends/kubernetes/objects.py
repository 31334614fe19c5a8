"""The Kubernetes objects of a fleet, as plain values: no status, no nulls, no value of a secret."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from fleet.backends.kubernetes import jobs, keda
from fleet.backends.kubernetes.kinds import JOB, LEASE
from fleet.backends.kubernetes.names import (
    CONTROLLER,
    labels_of,
    object_name,
    selector_of,
)
from fleet.backends.kubernetes.packed import MANIFEST_FILE, manifest_of_pod, packed_name
from fleet.backends.kubernetes.pod_template import SPEC_FILE, Pods, template_of
from fleet.backends.kubernetes.scaler_objects import controller_objects, let_in, scaled_object
from fleet.core.autoscale.in_cluster import scaled_in_cluster, static_slots
from fleet.core.desired import Desired, DesiredGroup
from fleet.core.expand.expand import moves_slots
from fleet.core.expand.in_cluster import (
    cluster_of,
    desired_in_cluster,
    is_scaled,
    pack_of,
    pod_count,
    pod_slots,
    replica_slots,
)
from fleet.core.expand.specs import rollout
from fleet.core.manifest.kubernetes_models import Kubernetes, KubernetesGroup
from fleet.core.manifest.models import Manifest
from fleet.core.spec import JOB_TIMEOUT_SECONDS, given_fields
from fleet.errors import Refused
from fleet.replica.pod_report import PORT as REPORT_PORT

Object = dict[str, Any]

KUSTOMIZATION = "kustomization.yaml"
_LEAST_PROGRESS_SECONDS = 600
_JOBS_SECONDS = math.ceil(JOB_TIMEOUT_SECONDS)
"""Of a rollout whose pods wait for Jobs: so much longer may it take."""
_RBAC = "rbac.authorization.k8s.io/v1"


def files(manifest: Manifest, document: Mapping[str, Any] | None = None) -> Mapping[str, tuple[Object, ...]]:
    """File name -> its objects: one file per group, one for what they share, and Kustomize's. Raises Refused.

    document: the manifest as it was read, for a controller in the cluster.
    """
    return objects_of(manifest, desired_in_cluster(manifest), document)


def objects_of(
    manifest: Manifest, desired: Desired, document: Mapping[str, Any] | None = None
) -> Mapping[str, tuple[Object, ...]]:
    """As :func:`files`, of a fleet that was expanded before."""
    cluster, least = cluster_of(manifest), keda.least_slots(manifest, desired)
    together = sum(least.values())
    made: dict[str, tuple[Object, ...]] = {"fleet.yaml": tuple(_shared(manifest, desired, cluster))}
    static = static_slots(scaled_in_cluster(manifest, desired)) if has_scaler(manifest) else {}
    every = {name: _pods(manifest, cluster, group, static) for name, group in desired.groups.items()}
    marks = {name: jobs.version_mark(pods.spec, pods.given("image") or "") for name, pods in every.items()}
    for name, pods in every.items():
        if pods.spec.job:
            made[f"group-{name}.yaml"] = tuple(_job(_waiting(pods, every, marks), _marks_after(name, every, marks)))
        else:
            found = _group(manifest, _waiting(pods, every, marks), least, together, document)
            made[f"group-{name}.yaml"] = tuple(found)
    if has_scaler(manifest):
        if document is None:
            raise ValueError("a controller in the cluster needs the manifest as it was read")
        made["controller.yaml"] = tuple(_controller(manifest, desired, document, cluster))
    made = {name: objects for name, objects in made.items() if objects}
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": sorted(made),
    }
    return {**made, KUSTOMIZATION: (kustomization,)}


def _pods(manifest: Manifest, cluster: Kubernetes, group: DesiredGroup, static: Mapping[str, int]) -> Pods:
    moves = is_scaled(manifest, group)
    spec = group.spec
    if spec.kind != "command":
        spec = replace(spec, pool=replace(spec.pool, concurrency=replica_slots(manifest, group)))
    own, pack, count = _own(cluster, group.name), pack_of(manifest, group.name), pod_count(manifest, group)
    if pack > 1:  # its bounds are of pods, and so of fewer
        group = replace(group, rollout=rollout(manifest.spec.groups[group.name], count))
    asks = static.get(group.name, 0) if moves and has_scaler(manifest) else None
    return Pods(
        manifest.name,
        group,
        spec,
        cluster,
        own,
        moves,
        slots=pod_slots(manifest, group),
        asks_fleet=asks,
        lease=_lease(manifest, group, own),
        count=count,
        pack=pack,
    )


def has_scaler(manifest: Manifest) -> bool:
    """Whether fleet's own controller in the cluster says how many slots groups have."""
    said = manifest.spec.kubernetes
    return said is not None and said.scaler == "fleet" and moves_slots(manifest)


def _controller(
    manifest: Manifest, desired: Desired, document: Mapping[str, Any], cluster: Kubernetes
) -> Iterator[Object]:
    def head(api: str, kind: str, name: str) -> Object:
        made = _head(api, kind, name, manifest.name, cluster=cluster, group=CONTROLLER)
        made["metadata"]["labels"]["app.kubernetes.io/component"] = "controller"
        return made

    secrets = {secret for group in desired.groups.values() for secret in group.spec.secret_marks()}
    yield from controller_objects(document, cluster, fleet=manifest.name, secrets=secrets, head=head)


def waits_for_jobs(group: DesiredGroup, desired: Desired) -> tuple[str, ...]:
    """The groups that are Jobs and must be complete before the pods of this one begin."""
    return tuple(name for name in group.depends_on if name in desired.groups and desired.groups[name].spec.job)


def _waiting(pods: Pods, every: Mapping[str, Pods], marks: Mapping[str, str]) -> Pods:
    own = pods.group.name
    after = [name for name in pods.group.depends_on if name in every and every[name].spec.job]
    selectors = tuple(jobs.job_selector(pods.fleet, name, group=own, mark=marks[own]) for name in after)
    return replace(pods, waits_for=selectors)


def _marks_after(job: str, every: Mapping[str, Pods], marks: Mapping[str, str]) -> dict[str, str]:
    """The groups that wait for a job, with the marks of their versions."""
    return {name: marks[name] for name, pods in every.items() if job in pods.group.depends_on}


def _lease(manifest: Manifest, group: DesiredGroup, own: KubernetesGroup) -> str:
    """Of a program that must never run twice: a node that the cluster has lost may still run the pod of before."""
    is_one = group.spec.kind == "command" and not group.spec.job and group.replicas <= 1
    usual = is_one and group.rollout.strategy == "recreate" and not is_scaled(manifest, group)
    return object_name(manifest.name, f"{group.name}-one") if (usual if own.lease is None else own.lease) else ""


def _head(api: str, kind: str, name: str, fleet: str, *, cluster: Kubernetes, group: str = "") -> Object:
    metadata: Object = {"name": name}
    if cluster.namespace:
        metadata["namespace"] = cluster.namespace
    return {"apiVersion": api, "kind": kind, "metadata": {**metadata, "labels": labels_of(fleet, group)}}


# --- what all groups share


def _shared(manifest: Manifest, desired: Desired, cluster: Kubernetes) -> Iterator[Object]:
    fleet = manifest.name
    account_name = cluster.service_account or fleet
    if cluster.service_account is None:
        account = _head("v1", "ServiceAccount", fleet, fleet, cluster=cluster)
        yield {**account, "automountServiceAccountToken": False}
    if cluster.network_policy == "deny-ingress":
        policy = _head("networking.k8s.io/v1", "NetworkPolicy", fleet, fleet, cluster=cluster)
        yield {**policy, "spec": {"podSelector": {"matchLabels": selector_of(fleet)}, "policyTypes": ["Ingress"]}}
    if cluster.network_policy == "deny-ingress" and cluster.metrics != "none":
        policy = _head("networking.k8s.io/v1", "NetworkPolicy", f"{fleet}-metrics", fleet, cluster=cluster)
        yield {**policy, "spec": let_in({"app.kubernetes.io/component": "worker", **selector_of(fleet)}, REPORT_PORT)}
    rights = []
    if any(waits_for_jobs(group, desired) for group in desired.groups.values()):
        rights.append(("sees-jobs", JOB, ["list"]))
    if any(_lease(manifest, group, _own(cluster, name)) for name, group in desired.groups.items()):
        rights.append(("keeps-leases", LEASE, ["get", "create", "update"]))
    for word, kind, verbs in rights:
        name = object_name(fleet, word)
        rules = [{"apiGroups": [kind.group], "resources": [kind.plural], "verbs": verbs}]
        yield {**_head(_RBAC, "Role", name, fleet, cluster=cluster), "rules": rules}
        yield {
            **_head(_RBAC, "RoleBinding", name, fleet, cluster=cluster),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account_name}],
        }


def _own(cluster: Kubernetes, group: str) -> KubernetesGroup:
    return cluster.groups.get(group, KubernetesGroup.empty())


# --- one group


def _group(
    manifest: Manifest, pods: Pods, least: Mapping[str, int], together: int, document: Mapping[str, Any] | None
) -> Iterator[Object]:
    group, fleet = pods.group, pods.fleet

    def head(api: str, kind: str, name: str) -> Object:
        return _head(api, kind, name, fleet, cluster=pods.cluster, group=group.name)

    yield _config_map(pods, document)
    deployment = {**head("apps/v1", "Deployment", pods.name), "spec": _deployment(pods)}
    yield _patched(deployment, pods)
    if (pods.moves or pods.count > 1) and group.rollout.strategy == "rolling":
        spec = {
            "maxUnavailable": max(1, group.rollout.max_unavailable),
            "selector": {"matchLabels": selector_of(fleet, group.name)},
        }
        yield {**head("policy/v1", "PodDisruptionBudget", pods.name), "spec": spec}
    if pods.moves:
        scaling = keda.Scaling(manifest, least, group.name, pods.spec, pods.cluster, together, pods.slots)
        if pods.asks_fleet is not None:
            spec = scaled_object(scaling, target=pods.name, slots=pods.slots, static=pods.asks_fleet)
            yield _paused({**head("keda.sh/v1alpha1", "ScaledObject", pods.name), "spec": spec}, pods)
            return
        if (authentication := keda.authentication(scaling)) is not None:
            yield {**head("keda.sh/v1alpha1", "TriggerAuthentication", pods.name), "spec": authentication}
        scaled = head("keda.sh/v1alpha1", "ScaledObject", pods.name)
        yield _paused({**scaled, "spec": keda.scaled_object(scaling, target=pods.name)}, pods)


def _paused(scaled: Object, pods: Pods) -> Object:
    """KEDA keeps a paused group at no pods."""
    if pods.group.paused:
        scaled["metadata"]["annotations"] = {"autoscaling.keda.sh/paused-replicas": "0"}
    return scaled


def _config_map(pods: Pods, document: Mapping[str, Any] | None = None) -> Object:
    """What the worker in each pod must be, or the manifest of the workers in it."""
    name = packed_name(pods.spec, pods.pack)
    head = _head("v1", "ConfigMap", name, pods.fleet, cluster=pods.cluster, group=pods.group.name)
    if pods.pack == 1:
        return {**head, "data": {SPEC_FILE: json.dumps(given_fields(pods.spec), indent=1, sort_keys=True) + "\n"}}
    if document is None:
        raise ValueError("pods with several replicas need the manifest as it was read")
    text = manifest_of_pod(document, pods.spec, pods.pack, workdir=pods.cluster.workdir)
    return {**head, "data": {MANIFEST_FILE: text}}


def _job(pods: Pods, after: Mapping[str, str]) -> Iterator[Object]:
    """A group that runs to its end. ``after``: group that waits for it -> mark of that group's version."""
    yield _config_map(pods)
    labels, template = jobs.before_labels(after), template_of(pods)
    name = jobs.job_name(pods.fleet, pods.group.name, {"template": template, "patch": pods.own.patch}, labels)
    job = _head(JOB.api, JOB.name, name, pods.fleet, cluster=pods.cluster, group=pods.group.name)
    job["metadata"]["labels"] |= labels
    yield _patched({**job, "spec": jobs.job_spec(template, pods.spec.restart, paused=pods.group.paused)}, pods)


def _deployment(pods: Pods) -> Object:
    group, rollout = pods.group, pods.group.rollout
    spec: Object = {} if pods.moves else {"replicas": pods.count}
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
    spec["progressDeadlineSeconds"] = max(deadline, ready + 1) + (_JOBS_SECONDS if pods.waits_for else 0)
    spec["template"] = template_of(pods)
    return spec


# --- what is not modelled


def _patched(made: Object, pods: Pods) -> Object:
    patched: Object = _merged(made, pods.own.patch)
    for path in (("apiVersion",), ("kind",), ("metadata", "name"), ("spec", "selector")):
        if _at(patched, path) != _at(made, path):
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
