"""How large a group is on either side, and why it cannot be moved, from what both sides want. PURE."""

from __future__ import annotations

from urllib.parse import urlsplit

from fleet.core.desired import Desired, DesiredGroup
from fleet.core.expand.in_cluster import desired_in_cluster, is_scaled, pod_slots
from fleet.core.manifest.models import Manifest
from fleet.core.migration.positions import Size
from fleet.core.spec import resizes
from fleet.core.text.format import listed

_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0", "host.docker.internal")


def in_cluster(manifest: Manifest) -> Desired:
    """The groups as they are in the cluster, paused ones too. Raises Refused for what a cluster cannot have."""
    return desired_in_cluster(awake(manifest))


def awake(manifest: Manifest) -> Manifest:
    """The manifest without pauses: a paused group keeps its part of the budget."""
    groups = {name: group.model_copy(update={"paused": None}) for name, group in manifest.spec.groups.items()}
    return manifest.model_copy(update={"spec": manifest.spec.model_copy(update={"groups": groups})})


def only_here(here: DesiredGroup) -> Size:
    """Of a group that the cluster does not have."""
    return Size(0, 0, 0, sum(here.shape), 1, part_here=here.slots)


def size_of(here: DesiredGroup, there: DesiredGroup, manifest: Manifest) -> Size:
    """On either side at rest. A group that a scaler moves takes its part with it, and has as many pods as fit in."""
    pod = pod_slots(manifest, there)
    unit = pod if there.capacity_slots is None else there.capacity_slots
    pods, part = len(there.shape), there.slots
    if is_scaled(manifest, there) and unit:
        said = manifest.spec.groups[there.name].autoscale
        least = max(1, -(-(said.min if said is not None else 0) // unit))
        part = max(here.slots, least * unit)
        pods = part // unit
    capacity = here.capacity_slots
    return Size(
        pods=pods,
        unit=unit,
        concurrency=pod,
        here=sum(here.shape),
        full=max(1, capacity or 1) if here.spec.kind == "command" else here.spec.pool.concurrency,
        counts=here.spec.kind != "command" or bool(capacity),
        part_here=here.slots,
        part_there=part,
        stops_first=_stops_first(here, there),
        grain=1 if here.scaling != "replicas" and resizes(here.spec) else None,
    )


def _stops_first(here: DesiredGroup, there: DesiredGroup) -> str:
    """Why it must never run on both sides; empty where it may."""
    if here.spec.job or there.spec.job:
        return "a job runs once"
    if "recreate" in (here.rollout.strategy, there.rollout.strategy):
        return "rollout.strategy is recreate"
    words = {word for group in (here, there) for word in group.spec.command}
    if words & {"beat", "-B", "--beat"}:
        return "two of beat would send every task twice"
    return ""


def apart(here: DesiredGroup, there: DesiredGroup) -> str:
    """Why the two sides would not do the same work."""
    if "command" in (here.spec.kind, there.spec.kind):
        return "" if here.spec.kind == there.spec.kind else "it is a worker on one side and a command on the other"
    queues = [sorted(queue.name for queue in group.spec.queues) for group in (here, there)]
    if queues[0] != queues[1]:
        return f"it takes from {listed(queues[0])} here and from {listed(queues[1])} in the cluster: tasks would stay"
    url = urlsplit(there.spec.broker.url)
    host = url.hostname or ""
    if there.spec.broker.url and (host.startswith(_LOOPBACK) or (not host and not there.spec.broker.secret)):
        where = host or there.spec.broker.url
        return f"its broker in the cluster's manifest is at {where}: pods do not reach a broker of this host alone"
    return ""
