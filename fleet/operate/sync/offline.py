"""What a manifest comes to without a machine: sums that must add up, and what one manifest makes of another.

Nothing runs, nothing is read: no secret, no app, no fleet. What only a machine knows counts as the default.
"""

from __future__ import annotations

import sys

from fleet.core.desired import Desired
from fleet.core.expand.expand import expand
from fleet.core.expand.facts import Facts
from fleet.core.manifest.models import Manifest
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.plan import Plan
from fleet.core.planning import budget
from fleet.core.planning.assignment import assign
from fleet.core.planning.planner import plan
from fleet.core.planning.rollout import in_waves

CPUS = 4
"""Of the machine that is imagined, so that the same manifests give the same text everywhere."""


def desired_of(manifest: Manifest, *, cpus: int = CPUS, workdir: str = "") -> Desired:
    """The fleet that a manifest describes. Raises Refused where no machine could run it."""
    facts = Facts(
        cpus=cpus,
        python=sys.executable,
        own_python=sys.executable,
        workdir=workdir,
        embedded_url="redis+socket:///",
        embedded_command=("redis-server",),
    )
    return expand(manifest, facts=facts)


def check_sums(manifest: Manifest, *, cpus: int = CPUS) -> None:
    """Raise Refused where the budgets do not add up for a fleet that starts from nothing."""
    desired = desired_of(manifest, cpus=cpus)
    empty = Observed(manifest.name)
    budget.check(desired, in_waves(plan(desired, empty), desired, empty), empty)


def running(desired: Desired) -> Observed:
    """The fleet as it is once this was applied and everything is ready."""
    replicas = {}
    for group in desired.groups.values():
        for one in assign(group, ()).wanted.values():
            replicas[one.name] = ObservedReplica(
                one.group,
                one.index,
                one.digest,
                State.READY,
                pid=1,
                spec=one.spec,
                slots=one.spec.pool.concurrency,
                live=one.live if one.spec.kind == "worker" else "",
            )
    return Observed(desired.fleet, up=True, replicas=replicas)


def change(base: Manifest | None, head: Manifest | None, *, prune: bool = True) -> Plan:
    """What applying ``head`` does to a fleet at ``base``; None: there is no fleet before, or none after."""
    known = head or base
    if known is None:
        raise ValueError("neither a base nor a head")
    before = running(desired_of(base)) if base is not None else Observed(known.name)
    after = desired_of(head) if head is not None else Desired(known.name)
    return in_waves(plan(after, before, prune=prune), after, before)
