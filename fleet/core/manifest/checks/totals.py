"""How large a fleet may be: more replicas or processes than any machine holds are a mistake or an attack."""

from __future__ import annotations

from fleet.core.manifest.models import Group, Manifest, Pool
from fleet.core.manifest.tree import Findings, Node

MOST_REPLICAS = 20_000
_CHILDREN_PER_REPLICA = 10
_ONE_SLOT = "solo"
_PROCESSES = "prefork"


def check_totals(manifest: Manifest, tree: Node, findings: Findings, most: int) -> None:
    """Note a problem where replicas may be more than ``most``, or they and their children more than ten times that."""
    groups, budget = manifest.spec.groups, manifest.spec.concurrency or 0
    replicas = {name: _replicas(group, budget) for name, group in groups.items()}
    processes = {name: count * (1 + _children(groups[name])) for name, count in replicas.items()}
    parts = {name for name, group in groups.items() if group.share or group.autoscale}
    for what, counts, limit in (("replicas", replicas, most), ("processes", processes, most * _CHILDREN_PER_REPLICA)):
        total = sum(count for name, count in counts.items() if name not in parts)
        total += max((counts[name] for name in parts), default=0)  # together they get spec.concurrency
        if total > limit:
            node = tree.get("spec", "groups")
            message = f"the fleet may have {total:,} {what}, and {limit:,} are allowed"
            hint = "lower replicas, pool.concurrency or spec.concurrency; FLEET_MAX_REPLICAS sets another limit"
            findings.add((node or tree).place, ("spec", "groups"), message, hint)
            return


def _replicas(group: Group, budget: int) -> int:
    """At most; those of a part of the budget as if it got all that its bounds allow."""
    part = group.share or group.autoscale
    if part is None:
        return group.replicas or 0
    pool = group.pool or Pool.empty()
    slots = max(1, pool.concurrency or 1) if pool.type != _ONE_SLOT else 1
    return -(-(budget if part.max is None else min(budget, part.max)) // slots)


def _children(group: Group) -> int:
    pool = group.pool or Pool.empty()
    return max(1, pool.concurrency or 1) if pool.type == _PROCESSES else 0
