"""Queues that a plan leaves without anybody who takes from them. PURE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fleet.core.desired import Desired
from fleet.core.observed import Observed
from fleet.core.plan import Action, Plan
from fleet.core.planning.step_kinds import LEAVES
from fleet.core.spec import WorkerSpec
from fleet.core.text.format import counted, listed, shown

_COMES = frozenset({Action.START, Action.REPLACE, Action.RESTART, Action.RESIZE})


@dataclass(frozen=True, slots=True)
class LostQueue:
    """``groups``: take from it now.  spec: of one replica that does, which says at which broker."""

    name: str
    groups: tuple[str, ...]
    spec: WorkerSpec


def lost_queues(desired: Desired, plan: Plan, observed: Observed) -> tuple[LostQueue, ...]:
    """Queues that a running replica takes from now, and none will once the plan is done.

    A group that the controller scales is woken for its queues, also from zero. A worker that takes what its app says,
    which is not known here, may take any queue.
    """
    before = {
        one.name: one.spec
        for one in observed.replicas.values()
        if one.running and one.spec is not None and one.spec.queues
    }
    after = dict(_left(plan, observed))
    stays = {queue.name for spec in after.values() for queue in spec.queues}
    for group in desired.groups.values():
        if group.scaling == "autoscale" and not group.paused:
            stays |= {queue.name for queue in group.spec.queues}
    if any(spec.kind != "command" and not spec.queues for spec in after.values()):
        return ()
    found: dict[str, list[WorkerSpec]] = {}
    for _, spec in sorted(before.items()):
        for queue in spec.queues:
            if queue.name not in stays:
                found.setdefault(queue.name, []).append(spec)
    return tuple(
        LostQueue(name, tuple(sorted({spec.group for spec in specs})), specs[0])
        for name, specs in sorted(found.items())
    )


def _left(plan: Plan, observed: Observed) -> Iterator[tuple[str, WorkerSpec]]:
    """Name and spec of each replica that is there once the plan is done; held ones take work when they are told to."""
    for step in plan.steps:
        seen = observed.replicas.get(step.replica)
        if step.action in LEAVES or step.action is Action.REAP:
            continue
        if step.action in _COMES and step.target is not None:
            yield step.replica, step.target.spec
        elif seen is not None and seen.spec is not None:
            yield step.replica, seen.spec


def warning(lost: LostQueue, waiting: int | None, problem: str = "") -> str:
    """What to say of it; '' where nothing waits. ``waiting`` None: could not be counted, ``problem`` says why."""
    if waiting == 0:
        return ""
    head = f"queue {shown(lost.name)} loses its last consumer ({listed(lost.groups)})"
    if waiting is None:
        return f"{head}; the tasks that wait in it could not be counted: {problem or 'the broker does not say'}"
    return f"{head} while {counted(waiting, 'task')} wait{'s' if waiting == 1 else ''} in it"
