"""Which groups moved to the cluster so far, kept there: every machine that applies the manifest must know."""

from __future__ import annotations

import json
from typing import Any

from fleet.backends.kubernetes.client import Cluster
from fleet.backends.kubernetes.kinds import CONFIG_MAP
from fleet.backends.kubernetes.names import KEEPS, labels_of, object_name
from fleet.core.migration.state import Migration, from_json, to_json
from fleet.errors import Damaged

_DATA = "migration.json"


def _name(fleet: str) -> str:
    return object_name(fleet, "migration")


def read_migration(fleet: str, cluster: Cluster) -> Migration | None:
    """What is kept; None where nothing is. Raises Damaged."""
    kept = cluster.get(CONFIG_MAP, _name(fleet))
    if kept is None:
        return None
    try:
        return from_json(json.loads(kept["data"][_DATA]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        hint = "`fleet migrate step` on the host that the groups come from writes it again"
        what = f"the ConfigMap {_name(fleet)} in {cluster.place}"
        raise Damaged(f"{what} makes no sense: {error!r}", hint=hint) from error


def write_migration(cluster: Cluster, migration: Migration) -> None:
    """Keep it; the caller holds the lock of the fleet in the cluster."""
    document: dict[str, Any] = {
        "apiVersion": CONFIG_MAP.api,
        "kind": CONFIG_MAP.name,
        "metadata": {"name": _name(migration.fleet), "labels": {**labels_of(migration.fleet), KEEPS: "migration"}},
        "data": {_DATA: json.dumps(to_json(migration), indent=1, sort_keys=True)},
    }
    cluster.apply(CONFIG_MAP, document)


def forget_migration(fleet: str, cluster: Cluster) -> None:
    """All groups of the manifest live in the cluster, or none."""
    cluster.delete(CONFIG_MAP, _name(fleet))
