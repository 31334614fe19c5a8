"""Which replicas of a group get the new revision first, and after which of them it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fleet.core.desired import CanaryPolicy, RolloutPolicy
from fleet.core.plan import Action, Step


@dataclass(frozen=True, slots=True)
class Canaries:
    """The steps that replace working replicas, parted.

    spares: come first; they have the new revision, and so are part of each share.  batches: of the canary, one after
    another, each as large as it may be.  rest: everything else. A step that is judged is alone in its batch, so that
    the others are ready by then.
    """

    spares: tuple[list[Step], ...]
    batches: tuple[list[Step], ...]
    rest: list[Step]


def parted(
    policy: RolloutPolicy, working: Sequence[Step], *, spares: Sequence[Step] = (), fresh: int = 0, at_once: int = 1
) -> Canaries:
    """Part the steps of working replicas. At least one old replica stays to be compared with.

    fresh: replicas that have the new revision already; they are part of each share, too.
    """
    replaced = [step for step in working if step.action is Action.REPLACE]
    most = min(len(working) - 1, len(replaced))
    if not policy.canaries or not replaced or not (most or spares):
        return Canaries((list(spares),), (), list(working))
    first, batches, begin = [list(spares)], [], 0
    for end, policies in _shares(policy.canaries, there=fresh + len(spares), least=0 if spares else 1, most=most):
        if not end:
            first = [list(spares[:-1]), [judged_by(spares[-1], policies)]]
            continue
        *others, last = replaced[begin:end]
        batches += [others[start : start + at_once] for start in range(0, len(others), at_once)]
        batches.append([judged_by(last, policies)])
        begin = end
    done = {step.id for step in replaced[:begin]}
    return Canaries(tuple(first), tuple(batches), [step for step in working if step.id not in done])


def judged_by(step: Step, policies: Sequence[CanaryPolicy]) -> Step:
    """The step, compared once it is ready: by the first policy, then by the next."""
    return replace(step, canary=policies[0], later_canaries=tuple(policies[1:]))


def _shares(
    policies: Sequence[CanaryPolicy], *, there: int, least: int, most: int
) -> list[tuple[int, list[CanaryPolicy]]]:
    """How many replicas have been replaced when these policies judge, in order. ``there``: new ones besides.

    Shares that come to as many replicas judge the same ones, one after another.
    """
    found: list[tuple[int, list[CanaryPolicy]]] = []
    for policy in policies:
        end = max(found[-1][0] if found else least, min(policy.replicas - there, most))
        if found and found[-1][0] == end:
            found[-1][1].append(policy)
        else:
            found.append((end, [policy]))
    return found
