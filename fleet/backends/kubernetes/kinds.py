"""The kinds of objects that fleet makes: where the API has them, and in which order they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. ``api``: group and version; ``plural``: its name in paths and in rights."""

    api: str
    name: str
    plural: str

    @property
    def group(self) -> str:
        """Of the API; empty for the core."""
        return self.api.partition("/")[0] if "/" in self.api else ""

    def path(self, namespace: str, name: str = "") -> str:
        """Of one object, or of all in the namespace."""
        root = f"/apis/{self.api}" if self.group else f"/api/{self.api}"
        return f"{root}/namespaces/{namespace}/{self.plural}" + (f"/{name}" if name else "")


SERVICE_ACCOUNT = Kind("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP = Kind("v1", "ConfigMap", "configmaps")
POD = Kind("v1", "Pod", "pods")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
REPLICA_SET = Kind("apps/v1", "ReplicaSet", "replicasets")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
JOB = Kind("batch/v1", "Job", "jobs")
DISRUPTION_BUDGET = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
SCALED_OBJECT = Kind("keda.sh/v1alpha1", "ScaledObject", "scaledobjects")

OWNED: tuple[Kind, ...] = (
    SERVICE_ACCOUNT,
    Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    CONFIG_MAP,
    Kind("v1", "Service", "services"),
    Kind("keda.sh/v1alpha1", "TriggerAuthentication", "triggerauthentications"),
    JOB,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    SCALED_OBJECT,
)
"""In the order in which they are applied: what pods read is there before the pods."""

_BY_NAME: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in OWNED})
_ORDER: Mapping[str, int] = MappingProxyType({kind.name: number for number, kind in enumerate(OWNED)})


def kind_of(one: Object) -> Kind:
    """The kind of an object that fleet rendered."""
    return _BY_NAME[one["kind"]]


def name_of(one: Object) -> str:
    """The object's name."""
    return str(one["metadata"]["name"])


def reference(one: Object) -> str:
    """``Deployment/shop-mail``: how an object is called where people read."""
    return f"{one['kind']}/{name_of(one)}"


def place_in_order(kind: str) -> int:
    """The position of a kind among all that are applied."""
    return _ORDER[kind]


def label_of(one: Object, label: str) -> str:
    """The value of a label, empty for none."""
    return str((one["metadata"].get("labels") or {}).get(label) or "")
