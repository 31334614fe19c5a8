"""How KEDA scales a group by the length of its queues, without fleet in the cluster."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from fleet.backends.kubernetes.names import secret_reference
from fleet.core.desired import Desired
from fleet.core.expand.in_cluster import pod_count, pod_slots
from fleet.core.manifest.kubernetes_models import Keda, Kubernetes
from fleet.core.manifest.models import Autoscale, Manifest
from fleet.core.spec import WorkerSpec
from fleet.errors import Refused

PRIORITY_SEPARATOR = "\x06\x16"
"""Between a queue's name and a priority in the name of kombu's list; priority 0 has the bare name."""
_TARGET_WAIT_SECONDS = 10.0
_RUNTIME_SECONDS = 1.0
_SHORTEST_CALM_SECONDS, _LONGEST_CALM_SECONDS = 300, 3600
_SCHEMES = {"redis": "redis", "rediss": "redis", "amqp": "rabbitmq", "amqps": "rabbitmq", "pyamqp": "rabbitmq"}
_PORT = 6379


@dataclass(frozen=True, slots=True)
class Scaling:
    """One group that autoscales; ``spec`` is that of each of its replicas.

    least: slots that each group of the fleet always has.  slots: of one pod.
    """

    manifest: Manifest
    least: Mapping[str, int]
    group: str
    spec: WorkerSpec
    cluster: Kubernetes
    least_together: int
    slots: int

    @property
    def said(self) -> Autoscale:
        return self.manifest.spec.groups[self.group].autoscale or Autoscale.empty()

    @property
    def keda(self) -> Keda:
        return self.cluster.keda

    @property
    def broker(self) -> str:
        """``redis`` or ``rabbitmq``. Raises Refused where neither the URL nor ``keda.broker`` tells."""
        known = self.keda.broker or _SCHEMES.get(self.url.scheme, "")
        if known:
            return known
        hint = "write spec.kubernetes.keda: {broker: redis, address: host:6379}, or {broker: rabbitmq}"
        raise Refused(f"group {self.group!r} autoscales, and nothing tells KEDA how to reach the broker", hint=hint)

    @property
    def url(self) -> SplitResult:
        return urlsplit(self.spec.broker.url)


def scaled_object(scaling: Scaling, *, target: str) -> dict[str, Any]:
    """The spec of a ScaledObject: pods for the messages in all its queues together. Raises Refused."""
    triggers = list(_triggers(scaling))
    least, most = pods_between(scaling)
    calm = _calm_seconds(scaling.spec)
    behavior = {"scaleDown": {"stabilizationWindowSeconds": calm}}
    modifiers = {
        "formula": " + ".join(trigger["name"] for trigger in triggers),
        "target": str(messages_per_pod(scaling)),
        "activationTarget": "0",
        "metricType": "AverageValue",
    }
    return {
        "scaleTargetRef": {"name": target},
        "pollingInterval": max(1, math.ceil(scaling.keda.polling)),
        "cooldownPeriod": math.ceil(scaling.said.idle_after or scaling.keda.cooldown),
        "minReplicaCount": least,
        "maxReplicaCount": most,
        "advanced": {"scalingModifiers": modifiers, "horizontalPodAutoscalerConfig": {"behavior": behavior}},
        "triggers": triggers,
    }


def messages_per_pod(scaling: Scaling) -> int:
    """As many waiting messages as one pod starts within ``targetWait``."""
    wait = scaling.said.target_wait or _TARGET_WAIT_SECONDS
    return max(1, math.floor(scaling.slots * wait / (scaling.said.expected_runtime or _RUNTIME_SECONDS)))


def pods_between(scaling: Scaling) -> tuple[int, int]:
    """Least and most pods. The most leaves every other group its minimum, so that one group fits the budget."""
    said, slots = scaling.said, scaling.slots
    least = math.ceil(said.min / slots)
    room = _room(scaling)
    most = room if said.max is None else min(room, said.max)
    return least, max(1, least, most // slots)


def _room(scaling: Scaling) -> int:
    budget = scaling.manifest.spec.concurrency or 0
    return max(0, budget - (scaling.least_together - scaling.least[scaling.group]))


def least_slots(manifest: Manifest, desired: Desired) -> dict[str, int]:
    """Slots that each group always has."""
    found = {}
    for name, group in desired.groups.items():
        said = manifest.spec.groups[name].autoscale
        fixed = pod_slots(manifest, group) * pod_count(manifest, group) if group.slots else 0
        found[name] = fixed if said is None else said.min
    return found


def _calm_seconds(spec: WorkerSpec) -> int:
    """How long the queues must have needed less before pods go: as long as a task may run, within bounds."""
    longest = math.ceil(spec.task.time_limit_seconds or 0)
    return min(max(_SHORTEST_CALM_SECONDS, longest), _LONGEST_CALM_SECONDS)


# --- triggers


def _triggers(scaling: Scaling) -> Iterator[dict[str, Any]]:
    if not scaling.spec.queues:
        hint = "write queues: [name]: KEDA must be told what to count"
        raise Refused(f"group {scaling.group!r} autoscales and leaves its queues to the app", hint=hint)
    reference = {"authenticationRef": {"name": _name(scaling)}} if authentication(scaling) is not None else {}
    make = _redis if scaling.broker == "redis" else _rabbitmq
    for number, metadata in enumerate(make(scaling)):
        yield {"type": scaling.broker, "name": f"q{number}", "metadata": metadata, **reference}


def _name(scaling: Scaling) -> str:
    return f"{scaling.manifest.name}-{scaling.group}"


def _redis(scaling: Scaling) -> Iterator[dict[str, str]]:
    said, url = scaling.keda, scaling.url
    address = said.address or (f"{url.hostname}:{url.port or _PORT}" if url.hostname else "")
    if not address:
        hint = "write spec.kubernetes.keda: {address: host:6379}; the broker's URL is a secret, and KEDA takes no URL"
        raise Refused(f"group {scaling.group!r} autoscales, and KEDA has no address of Redis", hint=hint)
    common = {"address": address, "databaseIndex": str(_database(said, url)), "listLength": "1"}
    if said.tls or (said.tls is None and url.scheme == "rediss"):
        common["enableTLS"] = "true"
    if said.username:
        common["username"] = said.username
    for queue in scaling.spec.queues:
        for step in said.priority_steps:
            suffix = f"{PRIORITY_SEPARATOR}{step}" if step else ""
            yield {**common, "listName": f"{said.key_prefix}{queue.name}{suffix}"}


def _database(said: Keda, url: SplitResult) -> int:
    if said.database is not None:
        return said.database
    path = unquote(url.path).strip("/")
    return int(path) if path.isdigit() else 0


def _rabbitmq(scaling: Scaling) -> Iterator[dict[str, str]]:
    for queue in scaling.spec.queues:
        metadata = {"protocol": "auto", "mode": "QueueLength", "value": "1", "queueName": queue.name}
        if authentication(scaling) is None:
            metadata["host"] = scaling.spec.broker.url.removeprefix("py")
        yield metadata


def authentication(scaling: Scaling) -> dict[str, Any] | None:
    """The spec of a TriggerAuthentication: which Secret holds what KEDA must know; None where nothing is secret."""
    if scaling.broker == "redis":
        parameter, secret = "password", scaling.keda.password
    else:
        parameter, secret = "host", scaling.keda.host or scaling.spec.broker.secret
    if not secret:
        return None
    reference = secret_reference(scaling.manifest.name, scaling.cluster, secret)
    return {"secretTargetRef": [{"parameter": parameter, **reference}]}
