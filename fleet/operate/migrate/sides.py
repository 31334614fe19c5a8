"""Both sides of a migration: the fleet as it was applied on this host, and the manifest that the cluster gets."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from fleet.core.desired import Desired, DesiredGroup
from fleet.core.expand.expand import divided_again
from fleet.core.expand.facts import NO_OVERRIDES, MovedPart, Overrides
from fleet.core.manifest.models import Broker, Manifest
from fleet.core.migration.order import GroupFacts, arrived
from fleet.core.migration.sizes import apart, awake, only_here, size_of, there
from fleet.core.migration.state import Migration
from fleet.core.text.format import listed
from fleet.errors import Refused
from fleet.inputs.manifest import LoadedManifest
from fleet.operate.cluster.cluster_fleet import ClusterFleet
from fleet.operate.local_fleet import LocalFleet
from fleet.state.audit import who


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
        # A job that this host does not have comes and goes with what waits for it.
        groups = {name: one for name, one in desired.groups.items() if name in migration.groups or not one.spec.job}
        sizes = {name: size_of(one, one, manifest, static.get(name)) for name, one in groups.items()}
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
        return there(self.loaded.manifest)

    @property
    def budget(self) -> int | None:
        """``spec.concurrency``, the same on both sides. Raises Refused where it is not."""
        here, there = self.host_manifest.spec.concurrency, self.loaded.manifest.spec.concurrency
        if here != there:
            hint = "apply the new number on this host first, then move"
            raise Refused(f"spec.concurrency is {here} on this host and {there} in the cluster's manifest", hint=hint)
        return here

    def also_changed(self, group: str) -> list[str]:
        """Other groups in the cluster that this manifest changes, so that a step would as well."""
        migration = self.cluster.migration()
        if migration is None or not migration.groups:
            return []
        changes = self.cluster.planned_as(self.loaded, migration).plan.changes
        return sorted({one.group for one in changes if one.group in migration.groups and one.group != group})

    def notes(self) -> Iterator[str]:
        """What an operator should look at."""
        here, there = self.host_manifest.spec, self.loaded.manifest.spec
        if only := sorted(there.groups.keys() - here.groups.keys()):
            when = "starts in the cluster with what waits for it, at the latest once every group has moved"
            yield f"{listed(only)}: not on this host; {when}"
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
            hint = f"`fleet apply --fleet {self.local.name}` brings it up, without the groups that moved"
            raise Refused(f"fleet {self.local.name!r} is down on this host", hint=hint)
        return [self._facts(name, applied.desired, migration) for name in sorted(self.host_manifest.spec.groups)]

    def _facts(self, name: str, applied: Desired, migration: Migration) -> GroupFacts:
        desired, static = self._there
        pods = desired.groups.get(name)
        others = {key: part for key, part in migration.moved().items() if key != name}
        here, problem = self._here(name, applied, others)
        if pods is None:
            return GroupFacts(name, only_here(here), refused="the cluster's manifest does not have it")
        size = size_of(here, pods, self.loaded.manifest, static.get(name))
        if (manifest := self.loaded.manifest.spec.groups[name]).paused:
            size = replace(size, pods=0)
        overrides = self.local.overrides_in_force()
        if name in overrides.paused and not manifest.paused:
            problem = f"it is paused on this host by hand: `fleet resume {name}` first"
        here_too = self.host_manifest.spec.groups
        after = tuple(one for one in pods.depends_on if one in here_too and desired.groups[one].spec.job)
        if name not in migration.groups:
            now = applied.groups[name]
            size = replace(size, here=sum(now.shape))
        return GroupFacts(name, size, after, problem or apart(here, pods))

    def _here(self, name: str, applied: Desired, others: Mapping[str, MovedPart]) -> tuple[DesiredGroup, str]:
        """The group as it is on this host at rest, while the others are where they are; or why it cannot be."""
        manifest = awake(self.host_manifest)
        try:
            return divided_again(manifest, applied, overrides=Overrides(moved=others)).groups[name], ""
        except Refused as error:
            whole = divided_again(manifest, applied, overrides=NO_OVERRIDES).groups[name]
            return whole, f"this host has no room for it: {error.message}"
