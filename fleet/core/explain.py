"""Why each group has its slots, replicas and concurrency: as table rows for people and as a document for scripts."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fleet.core.desired import Desired, DesiredGroup

HEAD = ("GROUP", "POOL", "SCALING", "SLOTS", "SHAPE", "WHY")


def document(desired: Desired) -> dict[str, Any]:
    """The budget, what of it is given out, and each group with its reason. Fleet's own programs are left out."""
    groups = _own_groups(desired)
    return {
        "budget": desired.budgets.slots,
        "allocated": allocated(desired),
        "groups": {
            group.name: {
                "slots": group.slots,
                "replicas": group.replicas,
                "concurrency": concurrency(group),
                "reason": group.reason,
            }
            for group in groups
        },
    }


def rows(desired: Desired) -> list[tuple[str, ...]]:
    """The table of ``fleet explain``, its head first."""
    return [HEAD, *(_row(group) for group in _own_groups(desired))]


def text(desired: Desired) -> str:
    """The table, the sums and the notes."""
    table = rows(desired)
    widths = [max(len(row[column]) for row in table) for column in range(len(HEAD))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([*lines, "", _sums(desired), *(f"note: {note}" for note in desired.notes)]) + "\n"


def allocated(desired: Desired) -> int:
    """Slots given out."""
    return sum(group.slots for group in desired.groups.values())


def concurrency(group: DesiredGroup) -> int:
    """Slots of a full replica; of a command, what its capacity says."""
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


def _sums(desired: Desired) -> str:
    budget, given = desired.budgets.slots, allocated(desired)
    return f"budget {budget}, allocated {given}, left {budget - given}" if budget is not None else f"allocated {given}"
