"""One replica before the planner's rules: what is wanted of it, what was seen, and what matters around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fleet.core.desired import PROGRAMS_BESIDE, Desired, DesiredGroup, Replica, replica_name
from fleet.core.observed import GONE, Observed, ObservedReplica, State, Trouble, leaving
from fleet.core.planning.assignment import assign
from fleet.core.spec import DRAIN_TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class Pair:
    """What the rules look at.

    group: None when the manifest does not have it.  seen_count: replicas of the group now.  hold: it should take no
    work.  going_down: the whole fleet is to go.
    """

    index: int
    group_name: str
    wanted: Replica | None = None
    seen: ObservedReplica | None = None
    group: DesiredGroup | None = None
    seen_count: int = 0
    prune: bool = False
    going_down: bool = False
    restart: bool = False
    hold: bool = False

    @property
    def name(self) -> str:
        """The replica's name."""
        return replica_name(self.group_name, self.index)

    @property
    def grace_seconds(self) -> float:
        """How long it may drain: what runs drains by its own spec, which may not be the wanted one."""
        owners = (self.seen, self.wanted, self.group)
        specs = (owner.spec for owner in owners if owner is not None and owner.spec is not None)
        return next((spec.drain_timeout_seconds for spec in specs), DRAIN_TIMEOUT_SECONDS)

    @property
    def gives_up_slots(self) -> bool:
        return self.wanted is not None and self.seen is not None and self.seen.slots > self.wanted.spec.pool.concurrency

    def is_kept_orphan(self) -> bool:
        """Its group is not in the manifest, and removing such replicas was not requested.

        Programs of fleet's own are in no manifest: they go when nothing is left for them to do.
        """
        return self.group is None and not self.prune and self.group_name not in PROGRAMS_BESIDE

    def is_unwanted_and_gone(self) -> bool:
        """No process of it runs."""
        return self.wanted is None and self.seen is not None and self.seen.state in GONE

    def is_unwanted(self) -> bool:
        return self.wanted is None

    def is_missing(self) -> bool:
        return self.seen is None

    def is_outdated(self) -> bool:
        """Its digest is not the wanted one."""
        return self.wanted is not None and self.seen is not None and self.wanted.digest != self.seen.digest

    def is_parked(self) -> bool:
        """Given up after too many crashes."""
        return self.seen is not None and self.seen.state is State.FAILED

    def is_unable_to_start(self) -> bool:
        """It waits for another try, which what was changed since may let succeed."""
        return self.seen is not None and self.seen.cannot_start

    def is_stopped(self) -> bool:
        """Stopped, by a person or by itself."""
        return self.seen is not None and self.seen.state is State.STOPPED

    def is_stuck(self) -> bool:
        """Its process lives, and by itself it will not work again."""
        return self.seen is not None and self.seen.trouble in (Trouble.STUCK, Trouble.UNHEALTHY)

    def is_leaving(self) -> bool:
        """An earlier drain was cut short after the replica had begun to leave."""
        return self.seen is not None and leaving(self.seen)

    def is_to_restart(self) -> bool:
        return self.restart

    def is_to_resize(self) -> bool:
        """Its settings are not the wanted ones, and they can change in place."""
        return self.wanted is not None and self.seen is not None and not self.seen.follows(self.wanted.spec)

    def is_to_hold(self) -> bool:
        return self.hold and self.seen is not None and not self.seen.held

    def is_to_release(self) -> bool:
        return not self.hold and self.seen is not None and self.seen.held

    def is_anything(self) -> bool:
        """The last rule: it always matches."""
        return True


def pairs(desired: Desired, observed: Observed, *, prune: bool, restart: frozenset[str]) -> list[Pair]:
    """Every wanted and every seen replica exactly once, by group and index."""
    seen_by_group: dict[str, list[ObservedReplica]] = {}
    for replica in sorted(observed.replicas.values(), key=lambda replica: replica.index):
        seen_by_group.setdefault(replica.group, []).append(replica)
    found: list[Pair] = []
    for name in sorted(desired.groups.keys() | seen_by_group.keys()):
        group, seen = desired.groups.get(name), seen_by_group.get(name, [])
        if group is not None:
            found += _known(group, seen, desired.drained, restart)
        else:
            found += _unknown(name, seen, prune=prune, going_down=not desired.groups)
    return found


def _unknown(name: str, seen: Sequence[ObservedReplica], *, prune: bool, going_down: bool) -> Iterator[Pair]:
    for one in seen:
        yield Pair(one.index, name, seen=one, seen_count=len(seen), prune=prune, going_down=going_down)


def _known(
    group: DesiredGroup, seen: Sequence[ObservedReplica], drained: frozenset[str], restart: frozenset[str]
) -> Iterator[Pair]:
    wanted = assign(group, seen).wanted
    by_index = {replica.index: replica for replica in seen}
    for index in sorted(wanted.keys() | by_index.keys()):
        name = replica_name(group.name, index)
        yield Pair(
            index,
            group.name,
            wanted=wanted.get(index),
            seen=by_index.get(index),
            group=group,
            seen_count=len(seen),
            restart=name in restart or group.name in restart,
            hold=name in drained or group.name in drained,
        )
