"""Slots, processes, memory, connections: what a fleet uses at rest and at its rollout's peak, against its ceilings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from fleet.core.desired import Desired, DesiredGroup, group_of
from fleet.core.observed import Observed, ObservedReplica
from fleet.core.plan import Action, Plan, Step, Usage
from fleet.core.spec import WorkerSpec
from fleet.core.text.format import listed, size
from fleet.errors import Refused
from pools.traits import TRAITS

SLOTS, PROCESSES, MEMORY = "slots", "processes", "memory"
BYTES = "bytes"
_COMES = frozenset({Action.START, Action.REPLACE, Action.RESTART, Action.RESIZE})
_GOES = frozenset({Action.DRAIN, Action.STOP, Action.FORGET})

Cost = Counter[str]


def cost(group: DesiredGroup | None, spec: WorkerSpec, slots: int) -> Cost:
    """What one replica of that many slots uses. A group that is not known any more costs its slots and processes."""
    group = group or DesiredGroup(spec.group, spec, ())
    counts = slots if spec.kind != "command" else group.capacity_slots or 0
    price = group.price
    used = Cost({SLOTS: counts, PROCESSES: _processes(group, spec, slots)})
    used[MEMORY] = price.memory_per_replica_bytes + price.memory_per_slot_bytes * slots
    for name, count in price.connections_per_replica:
        used[_link(name)] += count
    for name, count in price.connections_per_slot:
        used[_link(name)] += count * slots
    return used


def usage(desired: Desired, plan: Plan, observed: Observed) -> tuple[Usage, ...]:
    """Slots and processes always, memory and connections where used or limited. Waves run one after another."""
    now = {replica.name: _seen_cost(desired, replica) for replica in observed.replicas.values() if replica.running}
    total = _summed(now.values())
    peak = Cost(total)
    for _, wave in groupby(plan.changes, key=lambda step: step.wave):
        steps = list(wave)
        change, most = Cost(), Cost(total)
        for step in steps:
            before, after = now.get(step.replica, Cost()), _afterwards(desired, step, now)
            most.update(after - before)  # what is replaced stops first: it never uses both
            change.update(after)
            change.subtract(before)
            now[step.replica] = after
        peak |= most
        total.update(change)
    return tuple(_usages(desired, total, peak))


def excess(usages: Iterable[Usage]) -> int:
    """By how much all ceilings together are broken at the peak; 0 when everything fits."""
    return sum(used.above_at_peak for used in usages)


def slots_added(desired: Desired, step: Step, observed: Observed) -> int:
    """How many slots more the replica of this step uses when the step is done."""
    seen = observed.replicas.get(step.replica)
    now = {step.replica: _seen_cost(desired, seen)} if seen is not None and seen.running else {}
    return _afterwards(desired, step, now)[SLOTS] - now.get(step.replica, Cost())[SLOTS]


def check(desired: Desired, plan: Plan, observed: Observed) -> None:
    """Raise Refused, with every sum, when a ceiling would be broken.

    Slots are checked at rest, for the manifest's own groups: spares and replicas that drain take none of it for good.
    They are checked at the peak, too, where every group that gets more asks for that (``peak: budget``).
    Processes, memory and connections are checked at the peak, with everything that runs.
    """
    used_at_peak = plan.usage or usage(desired, plan, observed)
    peak = _peak_problems(desired, plan, observed, used_at_peak)
    problems = [*(_slot_problems(desired) or peak)]
    problems += [_too_much(desired, used) for used in used_at_peak if used.name != SLOTS and used.above_at_peak]
    if problems:
        raise Refused("; ".join(problems), hint=_hint(desired, plan, only_peak=bool(peak) and problems == peak))


def amount(count: int, unit: str) -> str:
    """``count`` with its unit, as text."""
    return size(count) if unit == BYTES else str(count)


def _slot_problems(desired: Desired) -> list[str]:
    limit = desired.budgets.slots
    total = sum(group.slots for group in desired.groups.values())
    if limit is None or total <= limit:
        return []
    return [_too_much(desired, Usage(SLOTS, total, total, limit))]


def _peak_problems(desired: Desired, plan: Plan, observed: Observed, usages: Iterable[Usage]) -> list[str]:
    """Slots above the budget while replicas come, where all that come are to stay within it. What ran before counts as
    there: a fleet above its budget may become smaller."""
    coming = {group_of(step.replica) for step in plan.changes if slots_added(desired, step, observed) > 0}
    if not coming or not all(name in desired.groups and desired.groups[name].rollout.keeps_budget for name in coming):
        return []
    before = _summed(_seen_cost(desired, one) for one in observed.replicas.values() if one.running)[SLOTS]
    return [
        _too_much(desired, used)
        for used in usages
        if used.name == SLOTS and used.limit is not None and used.at_peak > max(used.limit, before)
    ]


def _too_much(desired: Desired, used: Usage) -> str:
    assert used.limit is not None
    over, limit = amount(used.at_peak - used.limit, used.unit), amount(used.limit, used.unit)
    when = "" if used.at_rest > used.limit else f" at the rollout's peak ({amount(used.at_rest, used.unit)} at rest)"
    parts = {name: _group_cost(group)[_key(used.name)] for name, group in desired.groups.items()}
    largest = sorted((item for item in parts.items() if item[1]), key=lambda item: (-item[1], item[0]))
    who = listed(f"{name} {amount(count, used.unit)}" for name, count in largest)
    return f"{used.name}: {amount(used.at_peak, used.unit)} of {limit}{when}, {over} too many ({who})"


def _hint(desired: Desired, plan: Plan, *, only_peak: bool) -> str:
    kept = {group_of(step.replica) for step in plan.steps if step.action is Action.KEEP}
    orphans = sorted(kept - desired.groups.keys())
    if orphans:
        return f"{listed(map(repr, orphans))} still runs and is not in the manifest: add --prune to remove it"
    if only_peak:
        return "apply what gets smaller first, then the rest; or write rollout: {peak: surge}"
    return "raise the budget, lower replicas or slots, or set rollout: {maxSurge: 0, maxUnavailable: 1}"


def _group_cost(group: DesiredGroup) -> Cost:
    return _summed(cost(group, group.spec, slots) for slots in group.shape)


def _seen_cost(desired: Desired, replica: ObservedReplica) -> Cost:
    group = desired.groups.get(replica.group)
    if replica.spec is None and group is None:
        return Cost({SLOTS: replica.slots, PROCESSES: 1, MEMORY: replica.memory_bytes})
    spec = replica.spec or (group.spec if group else None)
    assert spec is not None
    used = cost(group, spec, replica.slots if replica.live else spec.pool.concurrency)
    return used if group is not None else used | Cost({MEMORY: replica.memory_bytes})


def _afterwards(desired: Desired, step: Step, now: Mapping[str, Cost]) -> Cost:
    """What the replica of this step uses when the step is done."""
    if step.action in _GOES:
        return Cost()
    if step.action not in _COMES or step.target is None:
        return now.get(step.replica, Cost())
    spec, group = step.target.spec, desired.groups.get(step.target.group)
    command = spec.kind == "command" and group is not None and group.shape
    return cost(group, spec, group.shape[0] if command and group is not None else spec.pool.concurrency)


def _processes(group: DesiredGroup, spec: WorkerSpec, slots: int) -> int:
    if spec.kind == "command":
        return group.processes_per_replica
    return slots + spec.pool.processes_beside_slots if TRAITS[spec.pool.type].own_processes else 1


def _summed(costs: Iterable[Cost]) -> Cost:
    total = Cost()
    for one in costs:
        total.update(one)
    return total


def _usages(desired: Desired, rest: Mapping[str, int], peak: Mapping[str, int]) -> Sequence[Usage]:
    limits = desired.budgets
    found = [
        Usage(SLOTS, rest.get(SLOTS, 0), peak.get(SLOTS, 0), limits.slots),
        Usage(PROCESSES, rest.get(PROCESSES, 0), peak.get(PROCESSES, 0), limits.processes),
    ]
    if limits.memory_bytes is not None or peak.get(MEMORY, 0):
        found.append(Usage(MEMORY, rest.get(MEMORY, 0), peak.get(MEMORY, 0), limits.memory_bytes, BYTES))
    ceilings = dict(limits.connections)
    priced = {key.removeprefix(_link("")) for key in peak if key.startswith(_link(""))}
    for name in sorted(ceilings.keys() | priced):
        key = _link(name)
        found.append(Usage(f"{name} connections", rest.get(key, 0), peak.get(key, 0), ceilings.get(name)))
    return found


def _link(name: str) -> str:
    """The key of a kind of connections, apart from slots, processes and memory."""
    return f"connections/{name}"


def _key(usage_name: str) -> str:
    return _link(usage_name.removesuffix(" connections")) if usage_name.endswith(" connections") else usage_name
