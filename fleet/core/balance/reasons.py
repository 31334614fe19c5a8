"""Why each group got its slots, for people."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.core.balance.shares import Allocation, NormalShare, exact
from fleet.core.text.format import counted


def explained(budget: int, parts: Sequence[NormalShare], left: int) -> Allocation:
    growing = [part for part in parts if part.is_open]
    shrinking = [part for part in parts if part.slots > part.floor]
    first = min(growing, key=lambda part: part.due(part.slots), default=None)
    last = max(shrinking, key=lambda part: part.due(part.slots - part.share.unit), default=None)
    following = first.share.name if first else None
    giving = last.share.name if last else None
    return Allocation(
        budget=budget,
        slots={part.share.name: part.slots for part in parts},
        left=left,
        reasons=_reasons(budget, parts, last, following),
        next_in_line=following,
        gives_first=giving,
        stopped={part.share.name: part.stopped for part in parts if part.stopped},
    )


def _reasons(
    budget: int, parts: Sequence[NormalShare], last: NormalShare | None, following: str | None
) -> dict[str, str]:
    level = last.due(last.slots - last.share.unit) if last else None
    bound = {part.share.name: _bound(part, level) for part in parts}
    sharing = [part for part in parts if not bound[part.share.name]]
    shared = f"{float(sum(exact(part.share.weight) for part in sharing)):g}"
    slots = counted(sum(part.slots for part in sharing), "slot")
    total = sum(part.weight for part in parts)
    reasons = {}
    for part in parts:
        share = part.share
        match bound[share.name]:
            case "":
                text = f"weight {float(share.weight):g} of {shared} in the {slots} shared by weight"
            case "pinned":
                text = f"min = max = {share.min}"
            case "max":
                text = f"capped at max {share.max}; its share went to the others"
            case "stopped":
                text = f"no {part.stopped} left; its share went to the others"
            case _:
                ideal = part.weight * budget / total
                text = f"raised to min {share.min}; its share alone is {ideal:.1f}"
        text += "; next slot goes here" if share.name == following else ""
        text += "; gives first if the budget shrinks" if last is part else ""
        reasons[share.name] = text
    return reasons


def _bound(part: NormalShare, level: tuple[int, int, str] | None) -> str:
    """What keeps this group from having just its share: nothing, its ceiling, a resource, its floor, or both bounds."""
    if part.floor == part.ceiling:
        return "pinned"
    if part.slots == part.ceiling:
        return "max"
    if part.stopped:
        return "stopped"
    raised = part.slots == part.floor > 0 and (level is None or part.due(part.slots - part.share.unit) > level)
    return "min" if raised else ""
