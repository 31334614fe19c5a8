"""What the decision divides in a cluster: the same groups and budget, in whole pods."""

from __future__ import annotations

from dataclasses import replace

from fleet.core.autoscale.groups import REPLICA_START_SECONDS, ScaledGroups, scaled_groups, without
from fleet.core.balance.divide import balance
from fleet.core.desired import Desired
from fleet.core.expand.in_cluster import pod_slots
from fleet.core.manifest.models import Manifest


def scaled_in_cluster(manifest: Manifest, desired: Desired) -> ScaledGroups:
    """The groups that a controller in the cluster moves, a unit being a pod; other budgets than slots are not counted.

    A paused group keeps its static part, and does not move. Raises Refused where the budget does not add up.
    """
    found = scaled_groups(manifest, {name: group.spec for name, group in desired.groups.items()})
    groups = tuple(
        replace(
            group,
            share=replace(group.share, unit=pod_slots(manifest, desired.groups[group.name])),
            start_seconds=max(group.start_seconds, REPLICA_START_SECONDS),
        )
        for group in found.groups
    )
    whole = replace(found, groups=groups, capacity={})
    paused = {group.name for group in groups if desired.groups[group.name].paused}
    if not paused:
        return whole
    static = static_slots(whole)
    return without(whole, {name: static[name] for name in paused})


def static_slots(found: ScaledGroups) -> dict[str, int]:
    """Group -> its static part of the budget, by weight: what it has while nothing decides."""
    return dict(balance(found.budget, [group.share for group in found.groups], tail="hold").slots)
