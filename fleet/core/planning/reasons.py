"""Why a step is in the plan, in words for people. Code never branches on them."""

from __future__ import annotations

from fleet.core.desired import CONTROLLER_GROUP, HEALTH_GROUP, METRICS_GROUP
from fleet.core.observed import Stray
from fleet.core.planning.pair import Pair
from fleet.core.planning.spec_diff import changes
from fleet.core.planning.spec_diff import reason as spec_difference
from fleet.core.text.format import listed

HELD = "drained by hand: takes no work"
RELEASED = "takes work again"


def leaving(pair: Pair) -> str:
    if pair.group is None:
        return "the fleet goes down" if pair.going_down else _no_group(pair)
    if pair.group.paused:
        return "the group is paused"
    return f"scale down {pair.seen_count} -> {pair.group.replicas}"


def _no_group(pair: Pair) -> str:
    return _NO_MORE.get(pair.group_name, "not in the manifest (prune)")


_NO_MORE = {
    CONTROLLER_GROUP: "nothing is left to heal or move",
    METRICS_GROUP: "spec.metrics has neither listen nor otlp",
    HEALTH_GROUP: "no group has a health check",
}


def new(pair: Pair) -> str:
    if pair.wanted is not None and pair.wanted.spec.job:
        return "job: has not run yet"
    wanted = pair.group.replicas if pair.group is not None else 1
    if pair.seen_count == 0:
        return "not running yet" if wanted == 1 else f"none of {wanted} is running yet"
    return f"scale up {pair.seen_count} -> {wanted}"


def outdated(pair: Pair) -> str:
    """The differences between its spec and the wanted one."""
    assert pair.wanted is not None
    assert pair.seen is not None
    old, new_one = pair.seen, pair.wanted
    return spec_difference(old.spec, new_one.spec, old_digest=old.digest, new_digest=new_one.digest)


def resized(pair: Pair) -> str:
    """Which settings are to change in place."""
    assert pair.wanted is not None
    assert pair.seen is not None
    if pair.seen.spec is None:
        return "its launch document is lost"
    if said := changes(pair.seen.spec, pair.wanted.spec):
        return listed(said)
    slots, wanted = pair.seen.slots, pair.wanted.spec.pool.concurrency
    what = f"pool.concurrency {slots} -> {wanted}" if slots != wanted else "its settings"
    return f"{what}: changed by hand, or not applied yet"


def parked(pair: Pair) -> str:
    """What the launcher said when it gave up."""
    note = pair.seen.note if pair.seen is not None else ""
    if pair.wanted is not None and pair.wanted.spec.restart.policy == "never":
        return f"runs again: {note}"
    return f"parked after too many crashes: {note}" if note else "parked after too many crashes"


def unable_to_start(pair: Pair) -> str:
    """What it said of its last start."""
    return f"could not start: {pair.seen.note if pair.seen is not None else ''}"


def stopped(pair: Pair) -> str:
    """What is known of why it stopped."""
    note = pair.seen.note if pair.seen is not None else ""
    return note or "stopped by hand"


def stuck(pair: Pair) -> str:
    """What is wrong with it."""
    assert pair.seen is not None
    return pair.seen.note or str(pair.seen.trouble)


def restarted(pair: Pair) -> str:
    """A person's wish, or what is wrong with it."""
    return stuck(pair) if pair.seen is not None and pair.seen.trouble else "restart requested"


def stray(process: Stray) -> str:
    return f"{process.kind}: not the process its supervisor runs"
