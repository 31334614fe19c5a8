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
from fleet.core.migration.sizes import apart, awake, in_cluster, only_here, size_of
from fleet.core.migration.state import HOST, Migration, Side
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
        desired, manifest = self._there, self.loaded.manifest
        # A job that this host does not have comes and goes with what waits for it.
        groups = {name: one for name, one in desired.groups.items() if name in migration.groups or not one.spec.job}
        sizes = {name: size_of(one, one, manifest) for name, one in groups.items()}
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
    def _there(self) -> Desired:
        """The groups as they are in the cluster, paused ones too."""
        return in_cluster(self.loaded.manifest)

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

    def facts(self, migration: Migration, *, to: Side) -> list[GroupFacts]:
        """Every group of this host, as a plan needs it. Raises Refused where nothing can be moved."""
        if self.host_manifest.spec.broker == "embedded":
            hint = "move the broker first: `broker: {url: …}` of one that pods reach"
            raise Refused("broker: embedded is a server of this host, and pods cannot share it", hint=hint)
        applied = self.local.applied()
        if applied is None or applied.down:
            hint = f"`fleet apply --fleet {self.local.name}` brings it up, without the groups that moved"
            raise Refused(f"fleet {self.local.name!r} is down on this host", hint=hint)
        host = _Host(awake(self.host_manifest), applied.desired, self.local.overrides_in_force(), migration)
        return [self._facts(name, host, to) for name in sorted(self.host_manifest.spec.groups)]

    def _facts(self, name: str, host: _Host, to: Side) -> GroupFacts:
        desired = self._there
        pods, state = desired.groups.get(name), host.migration.groups.get(name)
        here, problem = host.at_rest(name, back=state is not None and (to == HOST or bool(state.to)))
        if pods is None:
            return GroupFacts(name, only_here(here), refused="the cluster's manifest does not have it")
        size = size_of(here, pods, self.loaded.manifest)
        if (manifest := self.loaded.manifest.spec.groups[name]).paused:
            size = replace(size, pods=0)
        if name in host.overrides.paused and not manifest.paused:
            problem = f"it is paused on this host by hand: `fleet resume {name}` first"
        if state is None:
            size = replace(size, here=sum(host.applied.groups[name].shape))
        here_too = self.host_manifest.spec.groups
        after = tuple(one for one in pods.depends_on if one in here_too and desired.groups[one].spec.job)
        return GroupFacts(name, size, after, problem or apart(here, pods))


@dataclass(frozen=True)
class _Host:
    """This host's groups at rest, as exceptions by hand have them. ``manifest``: without pauses."""

    manifest: Manifest
    applied: Desired
    overrides: Overrides
    migration: Migration

    def at_rest(self, name: str, *, back: bool) -> tuple[DesiredGroup, str]:
        """A group as it would be here, and why it cannot be. ``back``: it has moved; the others stay as they are."""
        try:
            if not back:
                return self._whole.groups[name] if name in self.migration.groups else self._now.groups[name], ""
            others = {key: part for key, part in self.migration.moved().items() if key != name}
            return self._divided(others).groups[name], ""
        except Refused as error:
            return self._whole.groups[name], f"this host has no room for it: {error.message}"

    @cached_property
    def _now(self) -> Desired:
        """With what has moved."""
        return self._divided(self.migration.moved())

    @cached_property
    def _whole(self) -> Desired:
        """As if nothing had moved, by the manifest alone."""
        return divided_again(self.manifest, self.applied, overrides=NO_OVERRIDES)

    def _divided(self, moved: Mapping[str, MovedPart]) -> Desired:
        overrides = Overrides(replicas=self.overrides.replicas, moved=moved)
        return divided_again(self.manifest, self.applied, overrides=overrides)
