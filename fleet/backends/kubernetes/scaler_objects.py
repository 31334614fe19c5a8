"""The objects of fleet's own controller in a cluster, and how KEDA asks it. PURE.

Two pods, of which one leads and carries the label that the Service asks for. They may see and mark the fleet's pods,
hold the workers in them, and keep one Lease; the workers' own pods may do nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from fleet.backends.kubernetes.keda import Scaling, pods_between
from fleet.backends.kubernetes.kinds import LEASE, POD
from fleet.backends.kubernetes.names import CONTROLLER, LEADS, labels_of, object_name, secret_reference, selector_of
from fleet.core.expand.specs import secret_variable
from fleet.core.manifest.kubernetes_models import Kubernetes
from fleet.errors import Refused
from fleet.replica.pod_report import PORT as REPORT_PORT

SCALER_PORT = 9464
MANIFEST_FOLDER = "/etc/fleet"
MANIFEST_FILE = "manifest.json"
REPLICAS = 2
_FAILURES = 3
"""Times in a row that KEDA gets no number before it falls back to the static shares."""
_HPA_PERIOD_SECONDS = 15
_RBAC = "rbac.authorization.k8s.io/v1"

Object = dict[str, Any]
Head = Callable[[str, str, str], Object]
"""From api, kind and name to an object with metadata."""


def controller_name(fleet: str) -> str:
    """Of the Deployment, the Service, the account, the Role and the Lease."""
    return object_name(fleet, CONTROLLER)


def scaled_object(scaling: Scaling, *, target: str, slots: int, static: int) -> dict[str, Any]:
    """The spec of a ScaledObject that asks fleet's controller. ``slots``: of one pod; ``static``: the group's static
    part, which it falls back to. The controller has waited already before it asks for less, so nothing waits here."""
    least, most = pods_between(scaling)
    quick = {"type": "Pods", "value": max(1, most), "periodSeconds": _HPA_PERIOD_SECONDS}
    behavior = {
        direction: {"stabilizationWindowSeconds": 0, "policies": [quick], "selectPolicy": "Max"}
        for direction in ("scaleUp", "scaleDown")
    }
    return {
        "scaleTargetRef": {"name": target},
        "pollingInterval": max(1, round(scaling.keda.polling)),
        "cooldownPeriod": 1,
        "minReplicaCount": least,
        "maxReplicaCount": most,
        "fallback": {"failureThreshold": _FAILURES, "replicas": min(most, max(least, static // slots))},
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
        "triggers": [
            {
                "type": "metrics-api",
                "name": "fleet",
                "metricType": "AverageValue",
                "metadata": {
                    "url": f"http://{controller_name(scaling.manifest.name)}.{_namespace(scaling.cluster)}"
                    f".svc:{SCALER_PORT}/slots?group={scaling.group}",
                    "valueLocation": "slots",
                    "targetValue": str(slots),
                },
            }
        ],
    }


def _namespace(cluster: Kubernetes) -> str:
    if cluster.namespace:
        return cluster.namespace
    hint = "write spec.kubernetes.namespace: KEDA asks the controller from a namespace of its own"
    raise Refused("scaler: fleet needs to know the namespace", hint=hint)


def controller_objects(
    document: Mapping[str, Any], cluster: Kubernetes, *, fleet: str, secrets: Iterable[str], head: Head
) -> Iterator[Object]:
    """Everything of the controller. ``document``: the manifest as it was read; ``secrets``: names that it needs."""
    name = controller_name(fleet)
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    config = f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    yield {**head("v1", "ServiceAccount", name), "automountServiceAccountToken": False}
    yield {**head(_RBAC, "Role", name), "rules": _rules()}
    yield {
        **head(_RBAC, "RoleBinding", name),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name}],
    }
    yield {**head("v1", "ConfigMap", config), "data": {MANIFEST_FILE: text}}
    own = selector_of(fleet, CONTROLLER)
    service = {
        "selector": {**own, LEADS: "true"},
        "ports": [{"name": "http", "port": SCALER_PORT, "targetPort": SCALER_PORT, "protocol": "TCP"}],
    }
    yield {**head("v1", "Service", name), "spec": service}
    if cluster.network_policy == "deny-ingress":
        yield {**head("networking.k8s.io/v1", "NetworkPolicy", name), "spec": _let_in(own, SCALER_PORT)}
        reports = _let_in({"app.kubernetes.io/component": "worker", **selector_of(fleet)}, REPORT_PORT, own)
        yield {**head("networking.k8s.io/v1", "NetworkPolicy", f"{name}-asks"), "spec": reports}
    yield {**head("apps/v1", "Deployment", name), "spec": _deployment(cluster, fleet, config, secrets)}
    budget = {"maxUnavailable": 1, "selector": {"matchLabels": own}}
    yield {**head("policy/v1", "PodDisruptionBudget", name), "spec": budget}


def _rules() -> list[dict[str, Any]]:
    return [
        {"apiGroups": [""], "resources": [POD.plural], "verbs": ["list", "patch"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create", "get"]},
        {"apiGroups": [LEASE.group], "resources": [LEASE.plural], "verbs": ["get", "create", "update"]},
    ]


def _let_in(pods: Mapping[str, str], port: int, who: Mapping[str, str] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"ports": [{"port": port, "protocol": "TCP"}]}
    if who is not None:
        rule["from"] = [{"podSelector": {"matchLabels": dict(who)}}]
    return {"podSelector": {"matchLabels": dict(pods)}, "policyTypes": ["Ingress"], "ingress": [rule]}


def _deployment(cluster: Kubernetes, fleet: str, config: str, secrets: Iterable[str]) -> dict[str, Any]:
    own = selector_of(fleet, CONTROLLER)
    pod = {
        "serviceAccountName": controller_name(fleet),
        "automountServiceAccountToken": True,
        "imagePullSecrets": [{"name": name} for name in cluster.pull_secrets],
        "priorityClassName": cluster.priority_class,
        "nodeSelector": cluster.node_selector,
        "tolerations": cluster.tolerations,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": own},
            }
        ],
        "terminationGracePeriodSeconds": 30,
        "containers": [_container(cluster, fleet, secrets)],
        "volumes": [{"name": "manifest", "configMap": {"name": config}}],
    }
    labels = {**(cluster.labels or {}), **labels_of(fleet, CONTROLLER), "app.kubernetes.io/component": "controller"}
    template = {
        "metadata": {"labels": labels},
        "spec": {key: value for key, value in pod.items() if value not in (None, [], {})},
    }
    return {
        "replicas": REPLICAS,
        "selector": {"matchLabels": own},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
        "template": template,
    }


def _container(cluster: Kubernetes, fleet: str, secrets: Iterable[str]) -> dict[str, Any]:
    if not cluster.image:
        hint = "write spec.kubernetes.image: the controller asks the app how its queues are laid out"
        raise Refused("scaler: fleet needs an image for the controller", hint=hint)

    def probe(path: str, **times: int) -> dict[str, Any]:
        return {"httpGet": {"path": path, "port": SCALER_PORT}, "timeoutSeconds": 5, **times}

    references = [
        {"name": secret_variable(one), "valueFrom": {"secretKeyRef": secret_reference(fleet, cluster, one)}}
        for one in sorted(secrets)
    ]
    container = {
        "name": "controller",
        "image": cluster.image,
        "imagePullPolicy": cluster.pull_policy,
        "command": ["python3", "-P", "-m", "fleet.operate.scaler", f"{MANIFEST_FOLDER}/{MANIFEST_FILE}"],
        "env": [
            {"name": "FLEET_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *references,
        ],
        "ports": [{"name": "http", "containerPort": SCALER_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
        "livenessProbe": probe("/live", periodSeconds=20, failureThreshold=3),
        "readinessProbe": probe("/ready", periodSeconds=5, failureThreshold=3),
        "securityContext": {"allowPrivilegeEscalation": False},
        "volumeMounts": [{"name": "manifest", "mountPath": MANIFEST_FOLDER, "readOnly": True}],
    }
    return {key: value for key, value in container.items() if value not in (None, [], {})}
