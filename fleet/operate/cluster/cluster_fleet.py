"""One fleet in a cluster as a verb works on it: what is there, what is wanted, and the plan between."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from fleet.backends.kubernetes import jobs, object_plan
from fleet.backends.kubernetes.client import Cluster, Place
from fleet.backends.kubernetes.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    JOB,
    LEASE,
    OWNED,
    POD,
    REPLICA_SET,
    SCALED_OBJECT,
    label_of,
    name_of,
    place_in_order,
    reference,
)
from fleet.backends.kubernetes.names import KEEPS, object_name, selector_of
from fleet.backends.kubernetes.object_plan import Deed, ObjectChange, ObjectPlan, change_of
from fleet.backends.kubernetes.objects import KUSTOMIZATION, objects_of
from fleet.core.desired import RESERVED_PREFIX, Desired
from fleet.core.expand.in_cluster import cluster_of, desired_in_cluster, untranslated
from fleet.core.manifest.parse import from_document
from fleet.core.migration.split import document_there, slots_there
from fleet.core.migration.state import Migration
from fleet.core.text.format import listed
from fleet.errors import ManifestError, Refused
from fleet.inputs.manifest import LoadedManifest
from fleet.operate.cluster.compare import Object, compared, config_maps, explained
from fleet.operate.cluster.history import ClusterHistory
from fleet.operate.cluster.lock import ClusterLock
from fleet.operate.cluster.migration import read_migration

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Look:
    """What is there and what is wanted. ``forced``: references of objects whose conflicts are fleet's own business.

    keeps_count: references of Deployments whose number of pods goes over to a scaler and must not drop meanwhile.
    """

    plan: ObjectPlan
    wanted: Mapping[str, Object]
    live: Mapping[str, Object]
    manifest: LoadedManifest | None = None
    desired: Desired | None = None
    forced: frozenset[str] = frozenset()
    keeps_count: frozenset[str] = frozenset()


class ClusterFleet:
    """One fleet. Connects with the first look."""

    def __init__(self, name: str, place: Place, *, timeout_seconds: float = 30.0, now: Callable[[], float] = time.time):
        self.name = name
        self.place = place
        self.now = now
        self.cluster = Cluster(place, timeout_seconds=timeout_seconds)
        self.history = ClusterHistory(name, self.cluster, now=now)

    def lock(self, command: str) -> ClusterLock:
        """The lock of a command that changes the fleet."""
        return ClusterLock(self.name, self.cluster, command, now=self.now)

    # --- what is there

    def owned(self) -> dict[str, Object]:
        """Everything in the cluster that carries the fleet's labels, by reference."""
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            labels = {**selector_of(self.name), "app.kubernetes.io/managed-by": "fleet"}
            found = list(threads.map(lambda kind: self.cluster.objects(kind, labels), OWNED))
        return {reference(one): one for objects in found for one in objects if not label_of(one, KEEPS)}

    def deployments(self) -> dict[str, Object]:
        """Group -> its Deployment."""
        found = self.cluster.objects(DEPLOYMENT, self._labels())
        return {label_of(one, "app.kubernetes.io/name"): one for one in found}

    def jobs(self) -> dict[str, Object]:
        """Group that runs once -> the Job that was made for it last."""
        found: dict[str, list[Object]] = {}
        for one in self.cluster.objects(JOB, self._labels()):
            found.setdefault(label_of(one, "app.kubernetes.io/name"), []).append(one)
        return {group: max(every, key=jobs.age_key) for group, every in found.items()}

    def pods(self, group: str = "") -> list[Object]:
        """The pods of the fleet, or of one group, by name."""
        return sorted(self.cluster.objects(POD, selector_of(self.name, group)), key=name_of)

    def _labels(self) -> dict[str, str]:
        return {**selector_of(self.name), "app.kubernetes.io/managed-by": "fleet"}

    # --- what is wanted

    def planned(self, loaded: LoadedManifest, *, prune: bool = False) -> Look:
        """Compare the manifest with the cluster, by a dry run on the server. Changes nothing.

        While groups move between a host and the cluster, only those that live here are looked at.
        """
        return self.planned_as(loaded, self.migration(), prune=prune)

    def migration(self) -> Migration | None:
        """Which groups moved here so far; None where none is on its way: then all of them live here."""
        return read_migration(self.name, self.cluster)

    def here(self, loaded: LoadedManifest) -> LoadedManifest:
        """The part of a manifest that is here now."""
        return _part_here(loaded, self.migration())

    def planned_as(self, loaded: LoadedManifest, migration: Migration | None, *, prune: bool = False) -> Look:
        """As :meth:`planned`, as if the migration were so far."""
        placed = self._placed(loaded)
        part = _part_here(placed, migration)
        desired = desired_in_cluster(part.manifest) if part.manifest.spec.groups else Desired(self.name)
        made = objects_of(part.manifest, desired, part.document) if desired.groups else {}
        objects = [one for name, documents in made.items() if name != KUSTOMIZATION for one in documents]
        wanted = {reference(one): one for one in sorted(objects, key=lambda one: place_in_order(one["kind"]))}
        live = self.owned()
        elsewhere = placed.manifest.spec.groups.keys() - part.manifest.spec.groups.keys()
        leaving = [*self._leaving(live, wanted, desired, prune=prune, elsewhere=elsewhere)]
        goes = {one.reference for one in leaving if one.deed is Deed.REMOVE}
        goes |= {f"{SCALED_OBJECT.name}/{object_name(self.name, name)}" for name in _counted(migration)}
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            found = list(threads.map(lambda one: compared(self.cluster, one, live, goes), wanted.values()))
        changes = tuple(explained(one.change, live, wanted) for one in found)
        notes = tuple(untranslated(part.manifest, desired))
        if migration is not None and elsewhere:
            whose = f"{listed(sorted(elsewhere))}: on host {migration.host}"
            notes = (*notes, f"{whose} while groups move; `fleet migrate` moves them, there")
        return Look(
            plan=ObjectPlan(self.name, str(self.place), (*changes, *leaving), notes),
            wanted=wanted,
            live=live,
            manifest=placed,
            desired=desired,
            forced=frozenset(one.change.reference for one in found if one.is_forced),
            keeps_count=frozenset(one.change.reference for one in found if one.keeps_count),
        )

    def _placed(self, loaded: LoadedManifest) -> LoadedManifest:
        """The manifest with this namespace, whatever it says itself."""
        spec = loaded.manifest.spec
        cluster = cluster_of(loaded.manifest).model_copy(update={"namespace": self.place.namespace})
        spec = spec.model_copy(update={"kubernetes": cluster})
        return replace(loaded, manifest=loaded.manifest.model_copy(update={"spec": spec}))

    def removed(self) -> Look:
        """A plan that removes everything the fleet owns."""
        live = self.owned()
        order = sorted(live.values(), key=lambda one: -place_in_order(one["kind"]))
        plan = ObjectPlan(self.name, str(self.place), tuple(self._removal(one, "the fleet goes down") for one in order))
        return Look(plan=plan, wanted={}, live=live)

    def _removal(self, one: Object, reason: str) -> ObjectChange:
        owner = object_plan.gitops_owner(one)
        return change_of(Deed.REMOVE, one, reason=reason, conflicts=(f"{owner} keeps it",) if owner else ())

    # --- objects that are no longer wanted

    def _leaving(
        self,
        live: Mapping[str, Object],
        wanted: Mapping[str, Object],
        desired: Desired,
        *,
        prune: bool,
        elsewhere: Collection[str],
    ) -> Iterator[ObjectChange]:
        surplus = [one for name, one in live.items() if name not in wanted]
        needed = self._waited_for(wanted, live) if any(one["kind"] == JOB.name for one in surplus) else frozenset()
        read = self._read_by_pods() if any(one["kind"] == CONFIG_MAP.name for one in surplus) else frozenset()
        for one in sorted(surplus, key=lambda one: -place_in_order(one["kind"])):
            group = label_of(one, "app.kubernetes.io/name")
            if group in elsewhere:
                yield self._removal(one, f"group {group} is on a host")
            elif group and group not in desired.groups and not group.startswith(RESERVED_PREFIX):
                reason = f"group {group} is not in the manifest"
                yield self._removal(one, reason) if prune else change_of(Deed.LEAVE, one, reason=f"{reason}; --prune")
            elif one["kind"] == JOB.name and jobs.is_complete(one) and any(jobs.is_selected(one, it) for it in needed):
                yield change_of(Deed.KEEP, one, reason="pods wait for it, or would if they were gone back to")
            elif one["kind"] == CONFIG_MAP.name and name_of(one) in read:
                yield change_of(Deed.KEEP, one, reason="pods of before, or a ReplicaSet to go back to, read it")
            else:
                yield self._removal(one, "no longer needed")

    def _read_by_pods(self) -> frozenset[str]:
        """The ConfigMaps that the pods of any ReplicaSet read."""
        sets = self.cluster.objects(REPLICA_SET, selector_of(self.name))
        return frozenset(name for one in sets for name in config_maps(one))

    def _waited_for(self, wanted: Mapping[str, Object], live: Mapping[str, Object]) -> frozenset[str]:
        """Selectors that pods of any ReplicaSet, and those that are wanted, have, and that no wanted Job meets yet."""
        sets = self.cluster.objects(REPLICA_SET, selector_of(self.name))
        makers = [*sets, *(one for one in wanted.values() if one["kind"] in (DEPLOYMENT.name, JOB.name))]
        every = {selector for one in makers for selector in jobs.selectors_in(one)}
        done = [
            one for name, one in live.items() if name in wanted and one["kind"] == JOB.name and jobs.is_complete(one)
        ]
        return frozenset(selector for selector in every if not any(jobs.is_selected(one, selector) for one in done))

    def remove_kept(self) -> None:
        """Forget revisions and the lock: nothing of the fleet is left in the cluster then."""
        for kind in (CONFIG_MAP, LEASE):
            for one in self.cluster.objects(kind, self._labels()):
                if label_of(one, KEEPS):
                    self.cluster.delete(kind, name_of(one))


def _counted(migration: Migration | None) -> tuple[str, ...]:
    """Groups on their way: how many pods they have is fleet's to say, whoever said so before."""
    return () if migration is None else migration.on_the_way()


def _part_here(loaded: LoadedManifest, migration: Migration | None) -> LoadedManifest:
    """What of a manifest is in the cluster while groups move. Raises Refused where that does not fit."""
    if migration is None:
        return loaded
    document = document_there(loaded.manifest, loaded.document, migration)
    if not document["spec"]["groups"]:
        spec = loaded.manifest.spec.model_copy(update={"groups": {}})
        return replace(loaded, manifest=loaded.manifest.model_copy(update={"spec": spec}), document=document)
    try:
        parsed = from_document(document, name="the manifest")
    except ManifestError as error:
        whole = f"the part of fleet {migration.fleet} that is in the cluster has {slots_there(migration)} slots"
        hint = f"the rest belongs to host {migration.host} until all groups have moved: `fleet migrate status` there"
        raise Refused(f"{whole}, and this does not fit: {error.problems[0].message}", hint=hint) from error
    return replace(loaded, manifest=parsed.manifest, document=parsed.document)
