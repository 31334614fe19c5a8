"""The manifest that the cluster has while a migration lasts: the groups that live there, and their part of the budget.

PURE. Groups on their way have as many pods as they may have now. A group with a `share` keeps the pods it came with:
its slots must not follow from who else is there already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from fleet.core.expand.in_cluster import pack_of
from fleet.core.manifest.models import Manifest, Pool
from fleet.core.migration.state import GroupState, Migration
from pools.traits import TRAITS

Document = dict[str, Any]


def groups_there(manifest: Manifest, migration: Migration) -> frozenset[str]:
    """Groups of the manifest that have objects in the cluster now: with jobs that they wait for and no host has."""
    groups = manifest.spec.groups
    there = {name for name, state in migration.groups.items() if name in groups and (not state.to or state.pods > 0)}
    jobs = there
    while jobs:
        needed = {one for name in jobs for one in groups[name].depends_on or () if groups[one].job}
        jobs = needed - there - migration.groups.keys()
        there |= jobs
    return frozenset(there)


def slots_there(migration: Migration) -> int:
    """Slots of the budget that are the cluster's now."""
    return sum(state.slots_there for state in migration.groups.values())


def document_there(manifest: Manifest, document: Mapping[str, Any], migration: Migration) -> Document:
    """A valid document of the groups that are there. ``document``: the whole manifest, as it was read."""
    there = groups_there(manifest, migration)
    spec = dict(document["spec"])
    spec["groups"] = {
        name: _group(manifest, name, group, migration.groups.get(name), there)
        for name, group in document["spec"]["groups"].items()
        if name in there
    }
    if manifest.spec.concurrency is not None:
        spec["concurrency"] = max(1, slots_there(migration))
    if isinstance(cluster := spec.get("kubernetes"), Mapping) and isinstance(own := cluster.get("groups"), Mapping):
        spec["kubernetes"] = {**cluster, "groups": {name: said for name, said in own.items() if name in there}}
    return {**document, "spec": spec}


def _group(
    manifest: Manifest, name: str, group: Mapping[str, Any] | None, state: GroupState | None, there: Collection[str]
) -> Document:
    made = dict(group or {})
    if (needs := made.get("dependsOn")) is not None:
        made["dependsOn"] = _only(needs, there)
    model = manifest.spec.groups[name]
    moves = model.autoscale is not None and manifest.spec.balance.mode == "dynamic"
    shares = model.share is not None or (model.autoscale is not None and not moves)
    if model.job or state is None or not (state.to or shares):
        return made
    for field in ("autoscale", "share", "replicas"):
        made.pop(field, None)
    made["replicas"] = state.pods * pack_of(manifest, name)
    pool = model.pool or Pool.empty()
    if model.command is None and pool.type is not None and not TRAITS[pool.type].fixed_slots:
        made["pool"] = {**(made.get("pool") or {}), "type": pool.type, "concurrency": state.concurrency}
    return made


def _only(needs: Any, there: Collection[str]) -> Any:
    """``dependsOn`` without groups that are elsewhere."""
    if isinstance(needs, Mapping):
        return {name: said for name, said in needs.items() if name in there}
    return [name for name in ([needs] if isinstance(needs, str) else needs) if name in there]
