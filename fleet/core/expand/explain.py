"""Why each group has its slots, replicas and concurrency: as table rows for people and as a document for scripts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any

from fleet.core.balance.shares import Share
from fleet.core.desired import Desired, DesiredGroup
from fleet.core.expand.sizing import Division
from fleet.core.text.format import listed
from pools.traits import TRAITS

HEAD = ("GROUP", "POOL", "SCALING", "SLOTS", "SHAPE", "WHY")


def document(desired: Desired, division: Division | None = None) -> dict[str, Any]:
    """The budget, what of it is given out, and each group with its reason. Fleet's own programs are left out.

    With the division of what is shared also which group is next, which gives first, and each group's part of it.
    """
    groups = {group.name: _facts(group) for group in _own_groups(desired)}
    found = {"budget": desired.budgets.slots, "allocated": allocated(desired), "groups": groups}
    if division is None:
        return found
    allocation = division.allocation
    total = sum(float(share.weight) for share in division.shares)
    for share in division.shares:
        groups[share.name] |= _part(share, allocation.budget, total)
    return {
        **found,
        "left": allocation.left,
        "nextInLine": allocation.next_in_line,
        "givesFirst": allocation.gives_first,
    }


def _facts(group: DesiredGroup) -> dict[str, Any]:
    return {
        "slots": group.slots,
        "replicas": group.replicas,
        "concurrency": slots_per_replica(group),
        "cpuParallelism": cpu_parallelism(group),
        "reason": group.reason,
    }


def _part(share: Share, budget: int, total: float) -> dict[str, Any]:
    """``ideal``: what its weight alone would give it."""
    ideal = round(float(share.weight) * budget / total, 2)
    return {"weight": float(share.weight), "min": share.min, "max": share.max, "ideal": ideal}


def rows(desired: Desired) -> list[tuple[str, ...]]:
    """The table of ``fleet explain``, its head first."""
    return [HEAD, *(_row(group) for group in _own_groups(desired))]


def text(desired: Desired, division: Division | None = None, *, moved: Collection[str] = ()) -> str:
    """The table, the totals and the notes; with a ``division`` also which group is next and which gives first.

    moved: groups whose slots the controller has decided about; what comes or goes there is its business too.
    """
    table = rows(desired)
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    notes = [*desired.notes, *([] if division is None else _computing(desired))]
    return (
        "\n".join([*lines, "", _totals(desired) + _turns(division, moved), *(f"note: {note}" for note in notes)]) + "\n"
    )


def _turns(division: Division | None, moved: Collection[str]) -> str:
    if division is None or division.allocation.next_in_line is None:
        return ""
    if division.allocation.next_in_line in moved:
        return "; one slot more would go where the controller puts it"
    gives = division.allocation.gives_first
    giving = f", and {gives} gives first" if gives else ""
    return f"; one slot more would go to {division.allocation.next_in_line}{giving}"


def _computing(desired: Desired) -> list[str]:
    """Slots that share one core: more of them help tasks that wait, and do nothing for tasks that compute."""
    sharing = [group for group in _own_groups(desired) if cpu_parallelism(group) < group.slots]
    if not sharing:
        return []
    parts = listed((f"{one.name} {cpu_parallelism(one)} in {one.slots} slots" for one in sharing), most=6)
    return [f"slots of one process share a core; tasks that compute run at a time: {parts} (prefork and solo use more)"]


def cpu_parallelism(group: DesiredGroup) -> int:
    """How many tasks that only compute run at a time: one per process, except in pools whose slots are processes."""
    if group.capacity_slots is not None or TRAITS[group.spec.pool.type].parallel_cpu:
        return group.slots
    return group.replicas


def allocated(desired: Desired) -> int:
    """Slots of all groups."""
    return sum(group.slots for group in desired.groups.values())


def slots_per_replica(group: DesiredGroup) -> int:
    """Slots of a full replica; of a command, its ``capacity.slots``."""
    return group.spec.pool.concurrency if group.capacity_slots is None else group.capacity_slots


def shape(group: DesiredGroup) -> str:
    """``3x20`` or ``3x20 + 1x5``: replicas times slots."""
    if group.capacity_slots is not None:
        return f"{group.replicas}x{group.capacity_slots}"
    return " + ".join(f"{count}x{slots}" for slots, count in sorted(Counter(group.shape).items(), reverse=True)) or "0"


def _own_groups(desired: Desired) -> list[DesiredGroup]:
    return [group for _, group in sorted(desired.groups.items()) if not group.system]


def _row(group: DesiredGroup) -> tuple[str, ...]:
    pool = "command" if group.spec.kind == "command" else group.spec.pool.type
    return group.name, pool, group.scaling, str(group.slots), shape(group), group.reason


def _totals(desired: Desired) -> str:
    budget, given = desired.budgets.slots, allocated(desired)
    return f"budget {budget}, allocated {given}, left {budget - given}" if budget is not None else f"allocated {given}"
