"""Manifest to what moves: the groups that autoscale as the decision knows them, and the slots they divide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fleet.core.autoscale.parameters import (
    DEFAULT_IDLE_AFTER_SECONDS,
    DEFAULT_RUNTIME_SECONDS,
    DEFAULT_TARGET_WAIT_SECONDS,
    Parameters,
    ScaledGroup,
    tick_seconds,
)
from fleet.core.balance.shares import Share
from fleet.core.expand.expand import what_moves
from fleet.core.expand.facts import NO_OVERRIDES, Overrides
from fleet.core.manifest.models import Autoscale, Group, Manifest
from fleet.core.spec import WorkerSpec, resizes
from pools.traits import TRAITS

REPLICA_START_SECONDS = 3.0
"""How long a new replica takes where its pool does not say."""

_SHORTEST_TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class ScaledGroups:
    """What one decision is about, apart from the samples.

    budget: the slots these groups have together; fixed groups and static shares are taken off.
    """

    groups: tuple[ScaledGroup, ...]
    budget: int
    capacity: Mapping[str, int]
    parameters: Parameters


def scaled_groups(
    manifest: Manifest, specs: Mapping[str, WorkerSpec], *, overrides: Overrides = NO_OVERRIDES
) -> ScaledGroups:
    """The groups that a controller of this manifest moves. ``specs``: of a full replica of each group.

    Raises Refused where the budget does not add up.
    """
    found = what_moves(manifest, specs, overrides=overrides)
    groups = tuple(scaled_group(manifest.spec.groups[share.name], share, specs[share.name]) for share in found.shares)
    said = manifest.spec.balance
    tick = tick_seconds(groups) if said.tick == "auto" else max(_SHORTEST_TICK_SECONDS, float(said.tick))
    parameters = Parameters(tick_seconds=tick, surplus=said.surplus, squeeze_seconds=said.squeeze)
    return ScaledGroups(groups, found.slots, found.capacity, parameters)


def without(found: ScaledGroups, kept: Mapping[str, int]) -> ScaledGroups:
    """The same without some groups, which keep that many slots."""
    gone = [group.share for group in found.groups if group.name in kept]
    return replace(
        found,
        groups=tuple(group for group in found.groups if group.name not in kept),
        budget=found.budget - sum(kept.values()),
        capacity={
            name: there - sum(share.used(name, kept[share.name]) for share in gone)
            for name, there in found.capacity.items()
        },
    )


def scaled_group(group: Group, share: Share, spec: WorkerSpec) -> ScaledGroup:
    """A group with what it promises and what its slots cost to start; what the manifest leaves out has a default."""
    said = group.autoscale or Autoscale.empty()
    return ScaledGroup(
        share,
        target_wait_seconds=said.target_wait or DEFAULT_TARGET_WAIT_SECONDS,
        expected_runtime_seconds=said.expected_runtime or DEFAULT_RUNTIME_SECONDS,
        start_seconds=start_seconds(spec),
        idle_after_seconds=said.idle_after or DEFAULT_IDLE_AFTER_SECONDS,
        loans=said.loans is not False,
        on_missing_metrics=said.on_missing_metrics,
    )


def start_seconds(spec: WorkerSpec) -> float:
    """Until one more slot takes its first task."""
    if spec.kind == "command":
        return max(REPLICA_START_SECONDS, spec.ready_after_seconds)
    return TRAITS[spec.pool.type].start_seconds if resizes(spec) else REPLICA_START_SECONDS
