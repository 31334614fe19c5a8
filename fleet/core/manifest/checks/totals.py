"""How large a fleet may be: more replicas or processes than any machine holds are a mistake or an attack."""

from __future__ import annotations

from fleet.core.manifest.models import Group, Manifest, Pool
from fleet.core.manifest.tree import Findings, Node

MOST_PROCESSES = 20_000
_ONE_SLOT = "solo"
_PROCESSES = "prefork"


def check_totals(manifest: Manifest, tree: Node, findings: Findings, most: int) -> None:
    """Note a problem where replicas and their children together may be more than ``most``."""
    counts = {name: _processes(group, manifest.spec.concurrency or 0) for name, group in manifest.spec.groups.items()}
    parts = [name for name, group in manifest.spec.groups.items() if group.share or group.autoscale]
    total = sum(count for name, count in counts.items() if name not in parts)
    total += max((counts[name] for name in parts), default=0)  # together they get spec.concurrency, whoever gets more
    if total > most:
        node = tree.get("spec", "groups")
        message = f"the fleet may have {total:,} processes, and {most:,} are allowed"
        hint = "lower replicas, pool.concurrency or spec.concurrency; FLEET_MAX_PROCESSES sets another limit"
        findings.add((node or tree).place, ("spec", "groups"), message, hint)


def _processes(group: Group, budget: int) -> int:
    """Replicas with the child processes of their pools, at most."""
    pool = group.pool or Pool()
    slots = max(1, pool.concurrency or 1) if pool.type != _ONE_SLOT else 1
    if group.share or group.autoscale:
        part = group.share or group.autoscale
        most = min(budget, part.max) if part is not None and part.max is not None else budget
        replicas = -(-most // slots)
    else:
        replicas = group.replicas or 0
    return replicas * (1 + slots if pool.type == _PROCESSES else 1)
