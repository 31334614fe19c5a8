"""One fleet in a cluster as a verb works on it: what is there, what is wanted, and the plan between."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from fleet.backends.kubernetes import object_plan
from fleet.backends.kubernetes.client import FIELD_MANAGER, ApiRefused, Cluster, Place
from fleet.backends.kubernetes.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    LEASE,
    OWNED,
    POD,
    REPLICA_SET,
    SCALED_OBJECT,
    kind_of,
    label_of,
    name_of,
    place_in_order,
    reference,
)
from fleet.backends.kubernetes.names import DIGEST, KEEPS, selector_of
from fleet.backends.kubernetes.object_plan import Deed, Difference, ObjectChange, ObjectPlan, change_of
from fleet.backends.kubernetes.objects import KUSTOMIZATION, SPEC_FILE, objects_of
from fleet.core.desired import Desired
from fleet.core.expand.in_cluster import cluster_of, desired_in_cluster, untranslated
from fleet.errors import FleetError, Refused
from fleet.inputs.manifest import LoadedManifest
from fleet.operate.cluster.history import ClusterHistory
from fleet.operate.cluster.lock import ClusterLock

Object = dict[str, Any]

HANDOVER_MANAGER, RESTART_MANAGER, SCALE_MANAGER = "fleet-handover", "fleet-restart", "fleet-scale"
_OWN_MANAGERS = frozenset({FIELD_MANAGER, HANDOVER_MANAGER, RESTART_MANAGER, SCALE_MANAGER})
_AT_ONCE = 8
_REPLICAS = ("spec", "replicas")
_REPLICAS_PATH = "spec.replicas"


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


@dataclass(frozen=True, slots=True)
class _Compared:
    change: ObjectChange
    is_forced: bool = False
    keeps_count: bool = False


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

    def pods(self, group: str = "") -> list[Object]:
        """The pods of the fleet, or of one group, by name."""
        return sorted(self.cluster.objects(POD, selector_of(self.name, group)), key=name_of)

    def _labels(self) -> dict[str, str]:
        return {**selector_of(self.name), "app.kubernetes.io/managed-by": "fleet"}

    # --- what is wanted

    def planned(self, loaded: LoadedManifest, *, prune: bool = False) -> Look:
        """Compare the manifest with the cluster, by a dry run on the server. Changes nothing."""
        placed = self._placed(loaded)
        desired = desired_in_cluster(placed.manifest)
        made = objects_of(placed.manifest, desired)
        objects = [one for name, documents in made.items() if name != KUSTOMIZATION for one in documents]
        wanted = {reference(one): one for one in sorted(objects, key=lambda one: place_in_order(one["kind"]))}
        live = self.owned()
        leaving = [*self._leaving(live, wanted, desired, prune=prune)]
        goes = {one.reference for one in leaving if one.deed is Deed.REMOVE}
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            compared = list(threads.map(lambda one: self._compared(one, live, goes), wanted.values()))
        changes = tuple(self._explained(one.change, live, wanted) for one in compared)
        notes = tuple(untranslated(placed.manifest, desired))
        return Look(
            plan=ObjectPlan(self.name, str(self.place), (*changes, *leaving), notes),
            wanted=wanted,
            live=live,
            manifest=placed,
            desired=desired,
            forced=frozenset(one.change.reference for one in compared if one.is_forced),
            keeps_count=frozenset(one.change.reference for one in compared if one.keeps_count),
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

    # --- one object

    def _compared(self, wanted: Object, owned: Mapping[str, Object], goes: set[str]) -> _Compared:
        live = owned.get(reference(wanted)) or self.cluster.get(kind_of(wanted), name_of(wanted))
        if live is None:
            self._tried(wanted, force=False)
            return _Compared(change_of(Deed.CREATE, wanted, reason="not there yet"))
        moves = self._moves_to_scaler(wanted, live)
        asked = _with_count(wanted, live["spec"]["replicas"]) if moves else wanted
        foreign = () if reference(wanted) in owned else (f"it is not fleet's, but {_managers(live)}'s",)
        owner = object_plan.gitops_owner(live)
        conflicts = [*foreign, *([f"{owner} keeps it"] if owner else [])]
        forced = False
        try:
            after = self._tried(asked, force=False)
        except ApiRefused as error:
            if error.status != 409:
                raise
            others = _of_others(object_plan.conflicts_of(error.details), freed=_scaler(wanted) in goes)
            conflicts += others
            forced = not others
            after = self._tried(asked, force=True)
        fields = object_plan.differences(live, after)
        deed = Deed.CHANGE if fields or moves else Deed.KEEP
        if moves:
            fields = (*fields, Difference(_REPLICAS_PATH, str(live["spec"]["replicas"]), ""))
        why = object_plan.reason_of(wanted["kind"], fields) if fields else "as wanted"
        change = change_of(deed, wanted, reason=why, fields=fields, conflicts=tuple(conflicts))
        return _Compared(change, forced, moves)

    def _moves_to_scaler(self, wanted: Object, live: Object) -> bool:
        if wanted["kind"] != DEPLOYMENT.name or "replicas" in wanted["spec"]:
            return False
        return object_plan.owns(live, FIELD_MANAGER, _REPLICAS)

    def _tried(self, one: Object, *, force: bool) -> Object:
        """The object as the server would make it. Raises Refused for what it does not know or take."""
        try:
            return self.cluster.apply(kind_of(one), one, dry_run=True, force=force)
        except ApiRefused as error:
            if (told := self._told(error, one)) is None:
                raise
            raise told from error

    def _told(self, error: ApiRefused, one: Object) -> FleetError | None:
        """The refusal in words that say what to do; None where the server's own words do."""
        if error.status == 404:
            hint = "install KEDA, or write `replicas` instead of `autoscale`" if "keda" in one["apiVersion"] else ""
            return Refused(
                f"the cluster of context {self.place.context!r} does not know {one['kind']} of {one['apiVersion']}",
                hint=hint or "use a newer cluster",
            )
        if error.status in (400, 422):
            return Refused(f"the cluster refuses {reference(one)}: {error.message}", hint="look at the group's `patch`")
        return None

    # --- objects that are no longer wanted

    def _leaving(
        self, live: Mapping[str, Object], wanted: Mapping[str, Object], desired: Desired, *, prune: bool
    ) -> Iterator[ObjectChange]:
        surplus = [one for name, one in live.items() if name not in wanted]
        read = self._read_by_pods() if any(one["kind"] == CONFIG_MAP.name for one in surplus) else frozenset()
        for one in sorted(surplus, key=lambda one: -place_in_order(one["kind"])):
            group = label_of(one, "app.kubernetes.io/name")
            if group and group not in desired.groups:
                reason = f"group {group} is not in the manifest"
                yield self._removal(one, reason) if prune else change_of(Deed.LEAVE, one, reason=f"{reason}; --prune")
            elif one["kind"] == CONFIG_MAP.name and name_of(one) in read:
                yield change_of(Deed.KEEP, one, reason="pods of before, or a ReplicaSet to go back to, read it")
            else:
                yield self._removal(one, "no longer needed")

    def _read_by_pods(self) -> frozenset[str]:
        """The ConfigMaps that the pods of any ReplicaSet read."""
        sets = self.cluster.objects(REPLICA_SET, selector_of(self.name))
        return frozenset(name for one in sets for name in _config_maps(one))

    # --- why

    def _explained(
        self, change: ObjectChange, live: Mapping[str, Object], wanted: Mapping[str, Object]
    ) -> ObjectChange:
        """A Deployment whose pods are replaced says which fields of its workers differ."""
        before, after = live.get(change.reference), wanted[change.reference]
        if change.kind != DEPLOYMENT.name or change.deed is not Deed.CHANGE or before is None:
            return change
        names = [next(iter(_config_maps(one)), "") for one in (before, after)]
        old, new = (source.get(f"{CONFIG_MAP.name}/{name}") for source, name in zip((live, wanted), names, strict=True))
        if names[0] == names[1] or old is None or new is None:
            return change
        specs = [{"metadata": {}, "worker": json.loads(one["data"][SPEC_FILE])} for one in (old, new)]
        fields = object_plan.differences(*specs)
        rest = [one for one in change.fields if not _follows_spec(one)]
        return replace(change, fields=(*fields, *rest))

    def remove_kept(self) -> None:
        """Forget revisions and the lock: nothing of the fleet is left in the cluster then."""
        for kind in (CONFIG_MAP, LEASE):
            for one in self.cluster.objects(kind, self._labels()):
                if label_of(one, KEEPS):
                    self.cluster.delete(kind, name_of(one))


def _of_others(conflicts: Sequence[str], *, freed: bool) -> list[str]:
    """Conflicts with anybody but fleet itself; ``freed``: the scaler that owned the number of pods goes."""
    others = [one for one in conflicts if one.rpartition(" is ")[2].removesuffix("'s") not in _OWN_MANAGERS]
    return [one for one in others if not (freed and one.startswith(f"{_REPLICAS_PATH} is "))]


def _scaler(wanted: Object) -> str:
    return f"{SCALED_OBJECT.name}/{name_of(wanted)}" if wanted["kind"] == DEPLOYMENT.name else ""


def _with_count(deployment: Object, replicas: int) -> Object:
    return {**deployment, "spec": {**deployment["spec"], "replicas": replicas}}


def _managers(live: Object) -> str:
    return ", ".join(sorted({name for name in object_plan.managers_of(live) if name})) or "somebody else"


def _config_maps(owner: Object) -> Iterator[str]:
    """The ConfigMaps that the pods of a Deployment or ReplicaSet read."""
    for volume in owner["spec"]["template"]["spec"].get("volumes") or ():
        if (source := volume.get("configMap")) is not None:
            yield str(source["name"])


def _follows_spec(field: Difference) -> bool:
    """What differs only because the spec does: its digest, and the name of the ConfigMap."""
    return field.path.endswith(DIGEST) or field.path.endswith("spec.configMap.name")
