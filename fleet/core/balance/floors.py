"""Whether every group's minimum fits: in slots, and in each other resource."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.core.balance.costs import amount_of, overdrawn
from fleet.core.balance.shares import NormalShare
from fleet.core.text.format import counted, listed
from fleet.errors import Refused


def check_floors(budget: int, parts: Sequence[NormalShare], capacity: Mapping[str, int]) -> None:
    """Raise Refused, with every number, unless all minimums fit in slots and in every other resource."""
    used = {resource: sum(part.share.used(resource, part.floor) for part in parts) for resource in capacity}
    need = sum(part.floor for part in parts)
    problems = [_too_few(need, budget, parts)] if need > budget else []
    problems += [_too_little(resource, used[resource], capacity, parts) for resource in overdrawn(used, capacity)]
    if not problems:
        return
    raised = [f"the budget by {need - budget}"] if need > budget else []
    raised += [f"{name} by {amount_of(name, used[name] - capacity[name])}" for name in overdrawn(used, capacity)]
    hint = f"raise {' and '.join(raised)}, lower a min, or let a group go to zero with min: 0"
    raise Refused("; ".join(problems), hint=hint)


def _too_few(need: int, budget: int, parts: Sequence[NormalShare]) -> str:
    largest = sorted(parts, key=lambda part: (-part.floor, part.share.name))
    names = listed((f"{part.share.name} {part.floor}" for part in largest), most=3)
    return f"the groups' minimums need {counted(need, 'slot')} and {budget} are there: {need - budget} short ({names})"


def _too_little(resource: str, need: int, capacity: Mapping[str, int], parts: Sequence[NormalShare]) -> str:
    there = capacity[resource]
    costs = {part.share.name: part.share.used(resource, part.floor) for part in parts}
    largest = sorted(costs.items(), key=lambda item: (-item[1], item[0]))
    names = listed((f"{name} {amount_of(resource, cost)}" for name, cost in largest if cost), most=3)
    wanted, short = f"{amount_of(resource, need)} {resource}", amount_of(resource, need - there)
    return f"the groups' minimums need {wanted} and {amount_of(resource, there)} are there: {short} short ({names})"
