"""Both sides of a migration: the fleet as it was applied on this host, and the manifest that the cluster gets."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from urllib.parse import urlsplit

from fleet.core.autoscale.in_cluster import scaled_in_cluster, static_slots
from fleet.core.desired import Desired, DesiredGroup
from fleet.core.expand.expand import divided_again, moves_slots
from fleet.core.expand.facts import NO_OVERRIDES, MovedPart, Overrides
from fleet.core.expand.in_cluster import desired_in_cluster, is_scaled, pod_slots
from fleet.core.manifest.models import Broker, Manifest
from fleet.core.migration.order import GroupFacts, arrived
from fleet.core.migration.positions import Size
from fleet.core.migration.state import Migration
from fleet.core.text.format import listed
from fleet.errors import Refused
from fleet.inputs.manifest import LoadedManifest
from fleet.operate.cluster.cluster_fleet import ClusterFleet
from fleet.operate.local_fleet import LocalFleet
from fleet.state.audit import who

_LOOPBACK = ("localhost", "127.", "::1", "0.0.0.0", "host.docker.internal")


@dataclass(frozen=True)
class Sides:
    """The two. ``loaded``: what the cluster gets, complete."""

    local: LocalFleet
    cluster: ClusterFleet
    loaded: LoadedManifest

    def migration(self) -> Migration:
        """How far it is; one that has not begun where nothing is kept."""
        kept, place = self.local.migration(), self.cluster.place
        if kept is None:
            began = self.local.now()
            return Migration(self.local.name, place.context, place.namespace, socket.gethostname(), began, who())
        if (kept.context, kept.namespace) != (place.context, place.namespace):
            hint = "bring its groups back first: `fleet migrate step --back`"
            raise Refused(f"fleet {self.local.name!r} moves to {kept.place} already, not to {place}", hint=hint)
        return self._as_it_is_now(kept) if kept.is_complete else kept

    def _as_it_is_now(self, migration: Migration) -> Migration:
        """A fleet that lives in the cluster as a whole may have other sizes and more groups by now."""
        desired, static = self._there
        manifest = self.loaded.manifest
        sizes = {name: _size(one, one, manifest, static.get(name)) for name, one in desired.groups.items()}
        return replace(migration, groups={**migration.groups, **{name: arrived(one) for name, one in sizes.items()}})

    def refuse_second_home(self) -> None:
        """Raise Refused where nothing was moved, and the cluster runs the fleet all the same."""
        if self.local.migration() is not None:
            return
        there = self.cluster.migration()
        if there is not None and there.groups:
            hint = f"go on there; or, if that host is gone, remove the ConfigMap {self.local.name}-migration"
            raise Refused(f"host {there.host} moves groups to {self.cluster.place} already", hint=hint)
        if running := sorted({*self.cluster.deployments(), *self.cluster.jobs()}):
            hint = "take one of the two down first: `fleet down`, or `fleet down --target kubernetes`"
            where = f"fleet {self.local.name!r} runs in {self.cluster.place} already"
            raise Refused(f"{where}: {listed(running)}", hint=hint)

    # --- what both say

    @cached_property
    def host_manifest(self) -> Manifest:
        """What was applied on this host last. Raises UsageError where nothing was."""
        applied = self.local.applied()
        latest = self.local.applied_manifest()
        if applied is None or applied.revision not in self.local.history.numbers():
            return latest.manifest
        return self.local.manifest_of(applied.revision).manifest

    @cached_property
    def _there(self) -> tuple[Desired, Mapping[str, int]]:
        """The groups as they are in the cluster, paused ones too, and the static parts of those that autoscale."""
        awake = _awake(self.loaded.manifest)
        desired = desired_in_cluster(awake)
        return desired, static_slots(scaled_in_cluster(awake, desired)) if moves_slots(awake) else {}

    @property
    def budget(self) -> int | None:
        """``spec.concurrency``, the same on both sides. Raises Refused where it is not."""
        here, there = self.host_manifest.spec.concurrency, self.loaded.manifest.spec.concurrency
        if here != there:
            hint = "apply the new number on this host first, then move"
            raise Refused(f"spec.concurrency is {here} on this host and {there} in the cluster's manifest", hint=hint)
        return here

    def notes(self) -> Iterator[str]:
        """What an operator should look at."""
        here, there = self.host_manifest.spec, self.loaded.manifest.spec
        if only := sorted(there.groups.keys() - here.groups.keys()):
            yield f"{listed(only)}: not on this host; starts in the cluster once every group has moved"
        urls = [one.url for one in (here.broker, there.broker) if isinstance(one, Broker) and isinstance(one.url, str)]
        if len(urls) == 2 and urls[0] != urls[1]:
            yield "the broker's URL is another one in the cluster: tasks flow on only if both are the same server"

    def facts(self, migration: Migration) -> list[GroupFacts]:
        """Every group of this host, as a plan needs it. Raises Refused where nothing can be moved."""
        if self.host_manifest.spec.broker == "embedded":
            hint = "move the broker first: `broker: {url: …}` of one that pods reach"
            raise Refused("broker: embedded is a server of this host, and pods cannot share it", hint=hint)
        applied = self.local.applied()
        if applied is None or applied.down:
            raise Refused(f"fleet {self.local.name!r} is down on this host", hint="bring it up, or apply it there")
        return [self._facts(name, applied.desired, migration) for name in sorted(self.host_manifest.spec.groups)]

    def _facts(self, name: str, applied: Desired, migration: Migration) -> GroupFacts:
        desired, static = self._there
        there = desired.groups.get(name)
        others = {key: part for key, part in migration.moved().items() if key != name}
        here, problem = self._here(name, applied, others)
        if there is None:
            return GroupFacts(name, _only_here(here), refused="the cluster's manifest does not have it")
        size = _size(here, there, self.loaded.manifest, static.get(name))
        if (manifest := self.loaded.manifest.spec.groups[name]).paused:
            size = replace(size, pods=0)
        overrides = self.local.overrides_in_force()
        if name in overrides.paused and not manifest.paused:
            problem = f"it is paused on this host by hand: `fleet resume {name}` first"
        after = tuple(one for one in there.depends_on if one in desired.groups and desired.groups[one].spec.job)
        if name not in migration.groups:
            now = applied.groups[name]
            size = replace(size, here=sum(now.shape))
        return GroupFacts(name, size, after, problem or _apart(here, there))

    def _here(self, name: str, applied: Desired, others: Mapping[str, MovedPart]) -> tuple[DesiredGroup, str]:
        """The group as it is on this host at rest, while the others are where they are; or why it cannot be."""
        awake = _awake(self.host_manifest)
        try:
            return divided_again(awake, applied, overrides=Overrides(moved=others)).groups[name], ""
        except Refused as error:
            whole = divided_again(awake, applied, overrides=NO_OVERRIDES).groups[name]
            return whole, f"this host has no room for it: {error.message}"


def _awake(manifest: Manifest) -> Manifest:
    """The manifest without pauses: a paused group keeps its part of the budget."""
    groups = {name: group.model_copy(update={"paused": None}) for name, group in manifest.spec.groups.items()}
    return manifest.model_copy(update={"spec": manifest.spec.model_copy(update={"groups": groups})})


def _only_here(here: DesiredGroup) -> Size:
    return Size(0, 0, 0, sum(here.shape), 1, part_here=here.slots)


def _size(here: DesiredGroup, there: DesiredGroup, manifest: Manifest, static: int | None) -> Size:
    """``static``: the part of a group that a scaler moves, in the cluster."""
    pod = pod_slots(manifest, there)
    unit = pod if there.capacity_slots is None else there.capacity_slots
    pods, part = len(there.shape), there.slots
    if static is not None and is_scaled(manifest, there) and unit:
        said = manifest.spec.groups[there.name].autoscale
        least = max(1, -(-(said.min if said is not None else 0) // unit))
        pods = max(least, static // unit)
        part = max(static, pods * unit)
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


def _apart(here: DesiredGroup, there: DesiredGroup) -> str:
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
