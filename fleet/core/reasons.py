"""Why a step is in the plan, in words for people. Code never branches on them."""

from __future__ import annotations

from fleet.core.case import Case
from fleet.core.desired import CONTROLLER_GROUP
from fleet.core.difference import changes
from fleet.core.difference import reason as spec_difference
from fleet.core.observed import Stray
from fleet.core.wording import listed

HELD = "drained by hand: takes no work"
RELEASED = "takes work again"


def leaving(case: Case) -> str:
    """Why a replica goes."""
    if case.group is None:
        return "the fleet goes down" if case.going_down else _no_group(case)
    if case.group.paused:
        return "the group is paused"
    return f"scale down {case.seen_count} -> {case.group.replicas}"


def _no_group(case: Case) -> str:
    return "nothing is left to move" if case.group_name == CONTROLLER_GROUP else "not in the manifest (prune)"


def new(case: Case) -> str:
    """Why a replica comes."""
    wanted = case.group.replicas if case.group is not None else 1
    if case.seen_count == 0:
        return "none of it runs yet" if wanted == 1 else f"none of {wanted} runs yet"
    return f"scale up {case.seen_count} -> {wanted}"


def outdated(case: Case) -> str:
    """What is different in the spec."""
    assert case.wanted is not None
    assert case.seen is not None
    old, new_one = case.seen, case.wanted
    return spec_difference(old.spec, new_one.spec, old_digest=old.digest, new_digest=new_one.digest)


def resized(case: Case) -> str:
    """Which settings are to change in place."""
    assert case.wanted is not None
    assert case.seen is not None
    if case.seen.spec is None:
        return "its launch document is lost"
    if said := changes(case.seen.spec, case.wanted.spec):
        return listed(said)
    slots, wanted = case.seen.slots, case.wanted.spec.pool.concurrency
    what = f"pool.concurrency {slots} -> {wanted}" if slots != wanted else "its settings"
    return f"{what}: changed by hand, or not taken up yet"


def parked(case: Case) -> str:
    """What the launcher said when it gave up."""
    note = case.seen.note if case.seen is not None else ""
    return f"parked after too many crashes: {note}" if note else "parked after too many crashes"


def stopped(case: Case) -> str:
    """What is known of why it stopped."""
    note = case.seen.note if case.seen is not None else ""
    return note or "stopped by hand"


def stray(process: Stray) -> str:
    """Why a process is ended that no supervisor runs."""
    return f"{process.kind}: not the process its supervisor runs"
