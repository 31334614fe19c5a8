"""Which replica is which: those that stay keep their index, new ones take the lowest free, the least useful leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fleet.core.desired import DesiredGroup, Replica
from fleet.core.observed import GONE, ObservedReplica, State, leaving
from fleet.core.spec import WorkerSpec, digest, resizes, shared


@dataclass(frozen=True, slots=True)
class Assignment:
    """``wanted`` by index, survivors and new ones; ``leaving`` are seen and not wanted any more."""

    wanted: Mapping[int, Replica]
    leaving: tuple[ObservedReplica, ...] = ()


def assign(group: DesiredGroup, seen: Sequence[ObservedReplica]) -> Assignment:
    """Give every wanted spec of the group an index, so that as little as possible changes.

    A replica with a wanted number of slots keeps it, one that can be resized is, and the others are replaced.
    """
    variants = Variants(group)
    staying, leaving = _parted(seen, variants)
    left = Counter(group.shape)
    sizes = _kept(staying, left, variants)
    sizes |= _resized([replica for replica in staying if replica.index not in sizes], left, variants)
    indices = [replica.index for replica in staying if replica.index not in sizes]
    free = free_indices((replica.index for replica in seen), first=group.first_index)
    for slots in sorted(left.elements(), reverse=True):
        sizes[indices.pop(0) if indices else next(free)] = slots
    wanted = {index: variants.replica(index, slots) for index, slots in sorted(sizes.items())}
    return Assignment(wanted, tuple(sorted(leaving, key=lambda replica: replica.index)))


class Variants:
    """The few different specs of one group (full replicas, one smaller), their digests worked out once."""

    def __init__(self, group: DesiredGroup) -> None:
        self.group = group
        self.specs = {slots: shared(sized(group, slots)) for slots in sorted(set(group.shape), reverse=True)}
        self.digest_of = {slots: digest(spec) for slots, spec in self.specs.items()}
        self._resizes = resizes(group.spec)

    def replica(self, index: int, slots: int) -> Replica:
        group = self.group
        return Replica(group.name, index, self.specs[slots], self.digest_of[slots], group.system)

    def slots_of(self, replica: ObservedReplica, left: Counter[int]) -> int | None:
        """The number of slots that it has and that is still ``left`` to fill; None where there is none."""
        return next((slots for slots in self.specs if left[slots] > 0 and self._has(replica, slots)), None)

    def is_akin(self, replica: ObservedReplica) -> bool:
        """It need not be replaced to become one of these, whatever its size."""
        return self._resizes and replica.digest in self.digest_of.values()

    def _has(self, replica: ObservedReplica, slots: int) -> bool:
        return self.digest_of[slots] == replica.digest and (not self._resizes or replica.target_slots == slots)


def sized(group: DesiredGroup, slots: int) -> WorkerSpec:
    """The group's spec for a replica of that many slots. A command's capacity is no part of its spec."""
    spec = group.spec
    if spec.kind == "command" or spec.pool.concurrency == slots:
        return spec
    return replace(spec, pool=replace(spec.pool, concurrency=slots))


def free_indices(taken: Iterable[int], *, first: int = 0) -> Iterator[int]:
    """Indices from ``first`` on that are not ``taken``, lowest first, without end."""
    used = set(taken)
    index = first
    while True:
        if index not in used:
            yield index
        index += 1


def _kept(replicas: Iterable[ObservedReplica], left: Counter[int], variants: Variants) -> dict[int, int]:
    """Index -> slots of those that have a wanted size already; ``left`` loses these sizes."""
    sizes = {}
    for replica in replicas:
        if (slots := variants.slots_of(replica, left)) is not None:
            left[slots] -= 1
            sizes[replica.index] = slots
    return sizes


def _resized(replicas: Iterable[ObservedReplica], left: Counter[int], variants: Variants) -> dict[int, int]:
    """Index -> slots of those that can be resized, the large ones to the large sizes; ``left`` loses these sizes."""
    akin = [replica for replica in replicas if variants.is_akin(replica)]
    akin.sort(key=lambda replica: (-replica.target_slots, replica.index))
    sizes = dict(zip((replica.index for replica in akin), sorted(left.elements(), reverse=True), strict=False))
    left.subtract(sizes.values())
    return sizes


def _parted(seen: Sequence[ObservedReplica], variants: Variants) -> tuple[list[ObservedReplica], list[ObservedReplica]]:
    """The replicas that stay (best first), and those that leave when there are more than wanted.

    Leave first: what does not run; what is on its way out; what takes no work; what must be replaced; what must be
    resized; what is not ready yet; the least busy; the highest index.
    """
    best_first = sorted(seen, key=lambda replica: (-replica.busy, replica.index))
    right = _kept((one for one in best_first if one.state not in GONE), Counter(variants.group.shape), variants)
    worth = {one.index: 2 if one.index in right else int(variants.is_akin(one)) for one in best_first}
    ranked = sorted(best_first, key=lambda replica: _rank(replica, worth[replica.index]), reverse=True)
    size = len(variants.group.shape)
    return ranked[:size], ranked[size:]


def _rank(replica: ObservedReplica, worth: int) -> tuple[int, bool]:
    """How much a replica is worth keeping; the sort around it is stable. ``worth``: how close it is to a wanted one."""
    ready = replica.state is State.READY
    if replica.state in GONE:
        return 0, ready
    if leaving(replica):
        return 1, ready
    if replica.held:
        return 2, ready
    return 3 + worth, ready
