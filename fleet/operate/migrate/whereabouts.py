"""Which side each group is on, and what runs there now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.core.migration.state import CLUSTER, Migration
from fleet.core.observed import GONE, State
from fleet.errors import FleetError
from fleet.operate.cluster.cluster_fleet import ClusterFleet
from fleet.operate.local_fleet import LocalFleet


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """One group. ``lives``: on which side, or where it goes.

    replicas, ready: on the host.  pods, pods_ready: in the cluster; None: not known.  slots_here, slots_there: of the
    budget, as each side may use them.
    """

    group: str
    lives: str
    replicas: int = 0
    ready: int = 0
    pods: int | None = None
    pods_ready: int | None = None
    slots_here: int = 0
    slots_there: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """Both sides. ``note``: what could not be seen."""

    fleet: str
    migration: Migration | None
    budget: int | None
    groups: tuple[Whereabouts, ...]
    note: str = ""


def look(local: LocalFleet, cluster: ClusterFleet | None) -> Seen:
    """What runs on either side. ``cluster`` None: nothing was ever moved."""
    migration = local.migration()
    applied, manifest = local.applied(), local.applied_manifest().manifest
    desired = applied.desired.groups if applied is not None else {}
    observed = local.backend.observe().replicas.values()
    deployments, note = _there(cluster)
    groups = []
    for name in sorted(manifest.spec.groups.keys() | (migration.groups.keys() if migration is not None else set())):
        own = [one for one in observed if one.group == name and one.state not in GONE]
        state = migration.groups.get(name) if migration is not None else None
        there = None if deployments is None else deployments.get(name, {})
        status: Mapping[str, Any] = {} if there is None else there.get("status") or {}
        groups.append(
            Whereabouts(
                name,
                _lives(name, migration),
                len(own),
                sum(one.state is State.READY for one in own),
                None if there is None else int((there.get("spec") or {}).get("replicas") or 0),
                None if there is None else int(status.get("availableReplicas") or 0),
                desired[name].slots if name in desired else 0,
                state.slots_there if state is not None else 0,
            )
        )
    return Seen(local.name, migration, manifest.spec.concurrency, tuple(groups), note)


def _there(cluster: ClusterFleet | None) -> tuple[Mapping[str, Any] | None, str]:
    if cluster is None:
        return {}, ""
    try:
        return cluster.deployments(), ""
    except FleetError as error:
        return None, f"what runs in the cluster is not known: {error.message}"


def _lives(name: str, migration: Migration | None) -> str:
    state = migration.groups.get(name) if migration is not None else None
    if state is None:
        return "host"
    if not state.to:
        return "cluster"
    return "host -> cluster" if state.to == CLUSTER else "cluster -> host"
