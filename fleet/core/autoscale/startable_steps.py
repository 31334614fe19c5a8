"""What one look of the controller may do of a plan: steps that begin at once, cut no task and wait for nothing.

The rest is left to the next look, which plans again: so a walk that never waits ends where a patient one would.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from fleet.core.desired import group_of
from fleet.core.observed import Observed, ObservedReplica, State, Trouble, leaving
from fleet.core.plan import Action, Plan, Step

_AT_ONCE = frozenset({Action.RESIZE, Action.RELEASE, Action.FORGET})
_OF_A_ROLLOUT = frozenset({Action.REPLACE, Action.REAP})
_UNFINISHED = _OF_A_ROLLOUT | {Action.START, Action.RESTART}


def in_rollout(plan: Plan, *, has_ended: bool) -> frozenset[str]:
    """Groups that are not what was applied: no slots move during a rollout. ``plan``: to what is applied now.

    has_ended: the last apply got to its end; then what is missing is an earlier look's to start. Else it was not begun
    on purpose: a rollout that failed is paused.
    """
    amiss = _OF_A_ROLLOUT if has_ended else _UNFINISHED
    return frozenset(group_of(step.replica) for step in plan.steps if step.action in amiss)


def starting(plan: Plan, groups: Collection[str]) -> int:
    """How many replicas of these ``groups`` the plan starts."""
    return sum(step.action is Action.START and group_of(step.replica) in groups for step in plan.steps)


def begun(plan: Plan, observed: Observed, *, groups: Collection[str], starts: int) -> Plan:
    """The plan with the steps of these groups that can be begun now. ``starts``: how many replicas may be on their way
    up at once, those that are already included."""
    room = starts - sum(_comes_up(replica) for replica in observed.replicas.values())
    steps = []
    for step in plan.steps:
        if group_of(step.replica) not in groups:
            continue
        if step.action is Action.START:
            room -= 1
            steps += [step] if room >= 0 else []
        elif step.action in _AT_ONCE:
            steps.append(step)
        elif step.action is Action.DRAIN:
            steps += _parting(step, observed.replicas[step.replica])
    return replace(plan, steps=tuple(replace(step, wave=0, after=()) for step in steps), notes=())


def _parting(step: Step, replica: ObservedReplica) -> Iterator[Step]:
    """How a replica goes without a task being cut: first it takes nothing new, and when it has nothing left, it goes.

    Between a look and a stop it could take a task that lasts longer than its grace. Other programs do not know how to
    take nothing; they get their grace, as in every drain.
    """
    if leaving(replica):
        return
    listens = replica.state is State.READY or replica.trouble is Trouble.NOT_CONSUMING or replica.held
    if not replica.can_hold or not listens:
        yield step
    elif not replica.held:
        yield replace(step, action=Action.HOLD, reason=f"{step.reason}: takes no new task, and goes when it is done")
    elif replica.state is State.DRAINING and not replica.busy:
        yield step


def _comes_up(replica: ObservedReplica) -> bool:
    return replica.state is State.STARTING and replica.running
