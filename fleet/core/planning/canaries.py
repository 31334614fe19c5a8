"""Which replicas of a group get the new revision first, and after which of them it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fleet.core.desired import CanaryPolicy, RolloutPolicy
from fleet.core.plan import Action, Step


@dataclass(frozen=True, slots=True)
class Canaries:
    """The steps that replace working replicas, parted.

    batches: of the canary, one after another, each as large as it may be; the step that is judged is alone, so that the
    others are ready by then.  rest: everything else.  spares: as they were, or judged themselves.
    """

    batches: tuple[list[Step], ...]
    rest: list[Step]
    spares: list[Step]


def parted(
    policy: RolloutPolicy, working: Sequence[Step], *, spares: Sequence[Step] = (), fresh: int = 0, at_once: int = 1
) -> Canaries:
    """Part the steps of working replicas.

    At least one old replica stays to be compared with; where there is only one, its spare is judged.
    fresh: replicas that have the new revision already; they count as part of each share.
    """
    replaced = [step for step in working if step.action is Action.REPLACE]
    if not policy.canaries or not replaced:
        return Canaries((), list(working), list(spares))
    most = min(len(working) - 1, len(replaced))
    if not most:
        judged = [judged_by(spare, policy.canaries) for spare in spares[:1]]
        return Canaries((), list(working), [*judged, *spares[1:]])
    batches, begin = [], 0
    for end, policies in _shares(policy.canaries, fresh=fresh, most=most):
        *others, last = replaced[begin:end]
        batches += [others[start : start + at_once] for start in range(0, len(others), at_once)]
        batches.append([judged_by(last, policies)])
        begin = end
    first = {step.id for step in replaced[:begin]}
    return Canaries(tuple(batches), [step for step in working if step.id not in first], list(spares))


def judged_by(step: Step, policies: Sequence[CanaryPolicy]) -> Step:
    """The step, compared once it is ready: by the first policy, then by the next."""
    return replace(step, canary=policies[0], later_canaries=tuple(policies[1:]))


def _shares(policies: Sequence[CanaryPolicy], *, fresh: int, most: int) -> list[tuple[int, list[CanaryPolicy]]]:
    """How many replicas have been replaced when these policies judge, in order. Shares that come to as many replicas
    judge the same ones, one after another."""
    found: list[tuple[int, list[CanaryPolicy]]] = []
    for policy in policies:
        end = max(found[-1][0] if found else 1, min(policy.replicas - fresh, most))
        if found and found[-1][0] == end:
            found[-1][1].append(policy)
        else:
            found.append((end, [policy]))
    return found
