"""Manifest to desired fleet: every group with its spec, its shape and the reason for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from fleet.core.balance.costs import MEMORY, PROCESSES, Prices
from fleet.core.desired import (
    BROKER_GROUP,
    CONTROLLER_GROUP,
    HEALTH_GROUP,
    METRICS_GROUP,
    Budgets,
    Desired,
    DesiredGroup,
    RolloutPolicy,
    group_of,
)
from fleet.core.expand import specs
from fleet.core.expand.facts import NO_OVERRIDES, Facts, Overrides
from fleet.core.expand.sizing import Division, GroupRequest, Movable, Rules, Sized, divide, division, movable
from fleet.core.manifest.models import Capacity, Group, Health, Manifest
from fleet.core.spec import JOB_TIMEOUT_SECONDS, READY_TIMEOUT_SECONDS, WorkerSpec, digest, resizes
from fleet.core.text.format import listed
from fleet.errors import Refused
from pools.traits import TRAITS


def expand(manifest: Manifest, *, facts: Facts, overrides: Overrides = NO_OVERRIDES) -> Desired:
    """The whole fleet as it must be. Raises Refused, with the numbers, where it cannot be.

    Groups are taken as they are: :mod:`fleet.core.manifest.parse` has merged ``spec.defaults`` into them.
    """
    made = _expanded(manifest, full_specs(manifest, facts), _own_programs(manifest, facts), overrides)
    return _numbered(made, facts.first_index)


def divided_again(manifest: Manifest, applied: Desired, *, overrides: Overrides) -> Desired:
    """The applied fleet with its slots divided again: what ``expand`` would make, without facts of the machine.

    Only shapes, reasons and what follows from them are new; what replicas must be is not.
    """
    own = {name: group for name, group in applied.groups.items() if group.system}
    made = _expanded(manifest, applied_specs(manifest, applied), own, overrides)
    return _numbered(made, max((group.first_index for group in applied.groups.values()), default=0))


def _numbered(desired: Desired, first_index: int) -> Desired:
    """The same with replicas that are counted from there; fleet's own programs are not."""
    if not first_index:
        return desired
    groups = {
        name: group if group.system else replace(group, first_index=first_index)
        for name, group in desired.groups.items()
    }
    return replace(desired, groups=groups)


def applied_specs(manifest: Manifest, applied: Desired) -> dict[str, WorkerSpec]:
    """The specs of a manifest's groups as they were made when it was applied."""
    return {name: applied.groups[name].spec for name in sorted(manifest.spec.groups)}


def has_controller(manifest: Manifest) -> bool:
    """Whether a controller looks after this fleet: it moves slots, heals, or sends notifications again."""
    heals = any(mode != "off" for mode in manifest.spec.heal.modes().values())
    return moves_slots(manifest) or heals or bool(manifest.spec.notify)


def has_health_check(group: Group) -> bool:
    """Whether a command or a request tells how its replicas are."""
    return group.health is not None and (group.health.command is not None or group.health.http is not None)


def moves_slots(manifest: Manifest) -> bool:
    """Whether a controller moves slots of this fleet."""
    autoscales = any(group.autoscale is not None for group in manifest.spec.groups.values())
    return autoscales and manifest.spec.balance.mode == "dynamic"


def _own_programs(manifest: Manifest, facts: Facts) -> dict[str, DesiredGroup]:
    """Fleet's own programs beside the groups of the manifest."""
    own = {}
    if manifest.spec.broker == "embedded":
        own[BROKER_GROUP] = specs.embedded_broker(manifest.name, facts)
    if has_controller(manifest):
        own[CONTROLLER_GROUP] = specs.controller(manifest, facts)
    if manifest.spec.metrics.has_program:
        own[METRICS_GROUP] = specs.metrics(manifest, facts)
    if any(has_health_check(group) for group in manifest.spec.groups.values()):
        own[HEALTH_GROUP] = specs.health_checker(manifest, facts)
    return own


def _expanded(
    manifest: Manifest, full: Mapping[str, WorkerSpec], own: Mapping[str, DesiredGroup], overrides: Overrides
) -> Desired:
    written = dict(sorted(manifest.spec.groups.items()))
    requests = [_request(name, group, full[name]) for name, group in written.items()]
    shapes, notes = divide(requests, _rules(manifest), overrides=overrides)
    groups = {name: _group(manifest, name, full[name], shapes[name]) for name in written}
    return Desired(
        fleet=manifest.name,
        groups={**groups, **own},
        budgets=_budgets(manifest, overrides),
        drained=_drained(overrides.drained, groups),
        notes=(*_exceptions(overrides), *notes, *_unpriced(manifest, groups.values())),
    )


def full_specs(manifest: Manifest, facts: Facts) -> dict[str, WorkerSpec]:
    """The spec of a full replica of each group."""
    full = {name: specs.worker_spec(manifest, name, facts) for name in sorted(manifest.spec.groups)}
    return {
        name: replace(spec, followers=_followers(manifest, name, full)) if spec.job else spec
        for name, spec in full.items()
    }


def _followers(manifest: Manifest, job: str, full: Mapping[str, WorkerSpec]) -> str:
    """A mark of the groups that wait for a job: when they change, it runs again before them."""
    after = [name for name, group in sorted(manifest.spec.groups.items()) if job in (group.depends_on or {})]
    text = " ".join(f"{name}@{digest(full[name])}" for name in after)
    return hashlib.sha256(text.encode()).hexdigest()[:8] if text else ""


def what_moves(manifest: Manifest, full: Mapping[str, WorkerSpec], *, overrides: Overrides = NO_OVERRIDES) -> Movable:
    """What a controller divides among the groups that autoscale. ``full``: spec of a full replica by group."""
    requests = [_request(name, manifest.spec.groups[name], spec) for name, spec in sorted(full.items())]
    return movable(requests, _rules(manifest), overrides=overrides)


def static_division(manifest: Manifest, desired: Desired, *, overrides: Overrides = NO_OVERRIDES) -> Division | None:
    """How the groups of a desired fleet that share came by their slots; None where no group does."""
    groups = sorted(manifest.spec.groups.items())
    requests = [_request(name, group, desired.groups[name].spec) for name, group in groups]
    return division(requests, _rules(manifest), overrides=overrides)


def _request(name: str, group: Group, spec: WorkerSpec) -> GroupRequest:
    """What the group asks for. What the controller moves is never replaced for it, so a pool that cannot change its
    slots while it runs moves by whole replicas."""
    prices = _prices(group, spec)
    if spec.kind != "command":
        size = spec.pool.concurrency
        return GroupRequest(name, group, size, size, prices, whole=group.autoscale is not None and not resizes(spec))
    slots = (group.capacity or Capacity.empty()).slots
    return GroupRequest(name, group, max(1, slots), slots, prices, whole=True)


def _prices(group: Group, spec: WorkerSpec) -> Prices:
    """What replicas and slots take of the other budgets, as :mod:`fleet.core.planning.budget` counts them."""
    price = specs.price(group, spec.pool)
    own = spec.kind != "command" and TRAITS[spec.pool.type].own_processes
    whole = (group.capacity or Capacity.empty()).processes if spec.kind == "command" else 1
    return Prices(
        replica={PROCESSES: whole, MEMORY: price.memory_per_replica_bytes, **_links(price.connections_per_replica)},
        slot={PROCESSES: int(own), MEMORY: price.memory_per_slot_bytes, **_links(price.connections_per_slot)},
    )


def _links(connections: Iterable[tuple[str, int]]) -> dict[str, int]:
    return {f"{name} connections": count for name, count in connections}


def _rules(manifest: Manifest) -> Rules:
    balance, limits = manifest.spec.balance, manifest.spec.budgets
    capacity = _links((limits.connections or {}).items())
    if limits.processes is not None:
        checks = any(has_health_check(group) for group in manifest.spec.groups.values())
        own = (manifest.spec.broker == "embedded", moves_slots(manifest), manifest.spec.metrics.has_program, checks)
        capacity[PROCESSES] = limits.processes - sum(own)
    if limits.memory is not None:
        capacity[MEMORY] = limits.memory
    return Rules(manifest.spec.concurrency, balance.tail, moving=balance.mode == "dynamic", capacity=capacity)


def _group(manifest: Manifest, name: str, spec: WorkerSpec, sized: Sized) -> DesiredGroup:
    group = manifest.spec.groups[name]
    health = group.health or Health.empty()
    usual = JOB_TIMEOUT_SECONDS if spec.job else READY_TIMEOUT_SECONDS
    ready_timeout = usual if health.ready_timeout is None else health.ready_timeout
    ready_timeout += spec.wait_for.timeout_seconds if spec.wait_for.urls else 0.0
    return DesiredGroup(
        name=name,
        spec=spec,
        shape=sized.shape,
        rollout=_rollout(name, group, len(sized.shape)),
        depends_on=_depends_on(manifest, group),
        price=specs.price(group, spec.pool),
        capacity_slots=(group.capacity or Capacity.empty()).slots if spec.kind == "command" else None,
        processes_per_replica=specs.processes(spec, group.capacity),
        ready_timeout_seconds=ready_timeout,
        scaling="autoscale" if group.autoscale else "share" if group.share else "replicas",
        paused=sized.paused,
        reason=sized.reason,
    )


def _rollout(name: str, group: Group, replicas: int) -> RolloutPolicy:
    try:
        return specs.rollout(group, replicas)
    except Refused as error:
        raise Refused(f"group {name!r}: {error.message}", hint=error.hint) from None


def _depends_on(manifest: Manifest, group: Group) -> tuple[str, ...]:
    """What must be ready first: as written, the fleet's own broker before everything."""
    own = (BROKER_GROUP,) if manifest.spec.broker == "embedded" else ()
    return (*own, *sorted(group.depends_on or ()))


def _budgets(manifest: Manifest, overrides: Overrides) -> Budgets:
    said, slots = manifest.spec.budgets, manifest.spec.concurrency
    return Budgets(
        slots=None if slots is None else max(0, slots - sum(moved.there for moved in overrides.moved.values())),
        processes=said.processes,
        memory_bytes=said.memory,
        connections=tuple(sorted((said.connections or {}).items())),
    )


def _drained(names: Iterable[str], groups: dict[str, DesiredGroup]) -> frozenset[str]:
    """Replicas (or whole groups) that take no work, as far as their group is still there."""
    return frozenset(name for name in names if name in groups or group_of(name) in groups)


def _exceptions(overrides: Overrides) -> Iterator[str]:
    """Every plan names the overrides in force, which explain why it differs from the manifest."""
    for target in sorted(overrides.reasons):
        yield f"override: {overrides.reasons[target]} (`fleet resume {target}` ends it)"
    for name, moved in sorted(overrides.moved.items()):
        yield f"{name}: {moved.why}; `fleet migrate` moves it"


def _unpriced(manifest: Manifest, groups: Iterable[DesiredGroup]) -> tuple[str, ...]:
    """A memory budget is only as good as the prices: name the groups without one."""
    if manifest.spec.budgets.memory is None:
        return ()
    unpriced = [
        group.name
        for group in groups
        if group.replicas and not (group.price.memory_per_slot_bytes or group.price.memory_per_replica_bytes)
        if not group.system
    ]
    if not unpriced:
        return ()
    names = listed(map(repr, sorted(unpriced)))
    return (f"the memory budget does not include {names}: no perSlot.memory or perReplica.memory",)
