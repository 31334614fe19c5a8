"""Manifest to the fleet as it must be in a cluster: nothing of this machine is in it, and no value of a secret."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from fleet.core.desired import RESERVED_PREFIX, Desired, DesiredGroup
from fleet.core.expand.expand import expand, moves_slots
from fleet.core.expand.facts import Facts
from fleet.core.expand.specs import kind_of
from fleet.core.manifest.kubernetes_models import Kubernetes
from fleet.core.manifest.models import Broker, Group, Manifest, Pool, Release
from fleet.core.text.format import listed
from fleet.errors import Refused
from pools.traits import TRAITS


def desired_in_cluster(manifest: Manifest) -> Desired:
    """The groups of the manifest with the specs of their pods. Raises Refused for what a cluster cannot have.

    The image brings interpreter, code and working folder; secrets have names and no fingerprints.
    """
    cluster = cluster_of(manifest)
    _check(manifest)
    release = Release.empty().model_copy(update={"revision": manifest.spec.release.revision})
    groups = {name: group.model_copy(update={"release": None}) for name, group in manifest.spec.groups.items()}
    spec = manifest.spec.model_copy(update={"release": release, "groups": groups})
    there = manifest.model_copy(update={"spec": spec})
    desired = expand(there, facts=Facts(python="", own_python="", workdir=cluster.workdir))
    own = {name: group for name, group in desired.groups.items() if not group.system}
    return Desired(fleet=desired.fleet, groups=own, budgets=desired.budgets, notes=desired.notes)


def cluster_of(manifest: Manifest) -> Kubernetes:
    """What the manifest says about the cluster. Raises Refused where it says nothing."""
    if manifest.spec.kubernetes is None:
        hint = "add an overlay with `spec: {kubernetes: {image: registry/app:tag}}`"
        raise Refused("the manifest has no spec.kubernetes", hint=hint)
    return manifest.spec.kubernetes


def untranslated(manifest: Manifest, desired: Desired) -> Iterator[str]:
    """What the manifest says and a cluster does not do, one sentence each."""
    groups = desired.groups.values()
    said = manifest.spec.groups

    def those(names: Iterable[str]) -> str:
        return listed(sorted(names))

    if waiting := [group.name for group in groups if any(not desired.groups[name].spec.job for name in _own(group))]:
        yield f"dependsOn of {those(waiting)} is kept for jobs only: Kubernetes starts everything else at once"
    if compared := [group.name for group in groups if group.rollout.canary is not None]:
        yield f"rollout.canary of {those(compared)} is not kept: a Deployment compares nothing"
    if two := [group.name for group in groups if group.rollout.blue_green is not None]:
        yield f"rollout.blueGreen of {those(two)} is not kept: a Deployment replaces a few pods at a time"
    if bound := [group.name for group in groups if group.rollout.keeps_budget]:
        yield f"rollout.peak: budget of {those(bound)} is not kept: a Deployment knows no slots"
    spec = manifest.spec
    if owned := [name for name, group in said.items() if group.user or group.group or spec.user or spec.group]:
        yield f"user and group of {those(owned)} are not kept: the image says who runs in its pods"
    if spec.metrics.listen is not None:
        yield "metrics.listen is not kept: no program of a host reads what pods count"
    if spec.metrics.otlp is not None:
        yield "metrics.otlp is not kept: no program of a host reads what pods count"
    for group in groups:
        if is_scaled(manifest, group) or not group.replicas:
            continue
        pods, size = pod_count(manifest, group), pod_slots(manifest, group)
        if pack_of(manifest, group.name) > 1:
            yield from _surplus(manifest, group)
        elif len(set(group.shape)) > 1:
            yield f"the {group.slots} slots of {group.name} become {pods} pods of {size}: pods of one group are alike"


def _own(group: DesiredGroup) -> Iterator[str]:
    """What it depends on, of the manifest's own groups."""
    return (name for name in group.depends_on if not name.startswith(RESERVED_PREFIX))


def is_scaled(manifest: Manifest, group: DesiredGroup) -> bool:
    """Whether the number of its pods is not fleet's to say."""
    return group.scaling == "autoscale" and moves_slots(manifest)


def _surplus(manifest: Manifest, group: DesiredGroup) -> Iterator[str]:
    """What whole pods make of a number of replicas that they do not divide."""
    pack, pods = pack_of(manifest, group.name), pod_count(manifest, group)
    count = pods * pack
    if count != group.replicas:
        more = count - group.replicas
        word = f"{more} more" if more > 0 else f"{-more} fewer"
        plural = "pod" if pods == 1 else "pods"
        yield f"the {group.replicas} replicas of {group.name} become {pods} {plural} of {pack}: {word} than written"


def pack_of(manifest: Manifest, group: str) -> int:
    """Replicas in each pod of a group."""
    said = manifest.spec.kubernetes
    own = said.groups.get(group) if said is not None else None
    return own.pack or 1 if own is not None else 1


def pod_count(manifest: Manifest, group: DesiredGroup) -> int:
    """Pods of a group that nobody scales. Replicas that are written are all there, in pods that may hold a few more; a
    static share is a part of a budget, and never more than it, unless that is less than one pod."""
    pack, replicas = pack_of(manifest, group.name), group.replicas
    if group.scaling == "replicas":
        return -(-replicas // pack)
    return max(1, replicas // pack) if replicas else 0


def pod_slots(manifest: Manifest, group: DesiredGroup) -> int:
    """Slots of each pod: those of the replicas in it."""
    return replica_slots(manifest, group) * pack_of(manifest, group.name)


def _shared_slots(group: DesiredGroup) -> int:
    """Slots of each replica: pods are alike, and together never have more than the group's part."""
    if not group.shape:
        return group.spec.pool.concurrency
    return max(1, sum(group.shape) // len(group.shape))


def replica_slots(manifest: Manifest, group: DesiredGroup) -> int:
    """Slots of each replica in pods, of a group that is scaled never more than it may have at all."""
    if group.capacity_slots is not None:
        return max(1, group.capacity_slots)
    slots = group.spec.pool.concurrency if is_scaled(manifest, group) else _shared_slots(group)
    scale = manifest.spec.groups[group.name].autoscale
    if is_scaled(manifest, group) and scale is not None and scale.max is not None:
        return min(slots, max(1, scale.max))
    return slots


def _check(manifest: Manifest) -> None:
    broker = manifest.spec.broker
    if broker == "embedded":
        hint = "add `broker: {url: {secret: broker-url}}`, or a plain URL, to the overlay for the cluster"
        raise Refused("broker: embedded is a server on one host; pods need one that all of them reach", hint=hint)
    if isinstance(broker, Broker) and isinstance(broker.url, str) and _has_password(broker.url):
        hint = "declare it under spec.secrets and write `url: {secret: name}`"
        raise Refused("the broker's URL holds a password, which would be in a ConfigMap", hint=hint)
    for name, group in sorted(manifest.spec.groups.items()):
        _check_group(manifest.name, name, group)


def _has_password(url: str) -> bool:
    return urlsplit(url).password is not None


def _check_group(fleet: str, name: str, group: Group) -> None:
    if name.endswith("-") or fleet.endswith("-"):
        which = f"group {name!r}" if name.endswith("-") else f"fleet {fleet!r}"
        raise Refused(f"{which}: a name in Kubernetes ends with a letter or a digit", hint="rename it")
    if kind_of(group) == "command":
        return
    pool = group.pool or Pool.empty()
    if pool.type is None:
        hint = "write the pool: a cluster's objects do not depend on what this machine finds in the app"
        raise Refused(f"group {name!r} leaves its pool to the app", hint=hint)
    if pool.concurrency is None and not TRAITS[pool.type].fixed_slots:
        hint = "write pool: {concurrency: N}: the default is the number of this machine's cores, and pods run elsewhere"
        raise Refused(f"group {name!r} leaves its slots to this machine", hint=hint)
