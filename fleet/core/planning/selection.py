"""The steps of some groups out of a whole plan, and which replicas go for good."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from fleet.core.desired import RESERVED_PREFIX, Desired, group_of
from fleet.core.plan import Action, Plan, Step
from fleet.core.text.format import listed


def limited(plan: Plan, groups: Collection[str]) -> Plan:
    """The plan with steps of these groups and of fleet's own programs only; a note says what it leaves out."""
    within = tuple(step for step in plan.steps if _concerns(step.replica, groups))
    return replace(plan, steps=within, notes=(*plan.notes, *left_out(plan, within)))


def left_out(plan: Plan, within: Sequence[Step]) -> tuple[str, ...]:
    """A note on the replicas that a plan changes and these of its steps do not."""
    others = sorted({step.replica for step in plan.changes} - {step.replica for step in within})
    return (f"left out: {listed(others, most=5)} also differ; see `fleet plan`",) if others else ()


def _concerns(replica: str, groups: Collection[str]) -> bool:
    group = group_of(replica)
    return group in groups or group.startswith(RESERVED_PREFIX)


def sharing(desired: Desired) -> set[str]:
    """Groups whose slots follow from what the others take."""
    return {name for name, group in desired.groups.items() if group.scaling != "replicas"}


def leaving(plan: Plan) -> list[str]:
    """Replicas that go without another coming in their place, spares not counted."""
    goes = [step.replica for step in plan.steps if step.action in {Action.DRAIN, Action.STOP}]
    comes = {step.replica for step in plan.steps if step.action in {Action.START, Action.REPLACE}}
    return [name for name in goes if name not in comes]
