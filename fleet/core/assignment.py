"""Which replica is which: survivors keep their index, new ones take the lowest free, the least useful leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fleet.core.desired import DesiredGroup, Replica, WorkerSpec, digest
from fleet.core.observed import ObservedReplica, State

GONE = frozenset({State.STOPPED, State.FAILED})


@dataclass(frozen=True, slots=True)
class Assignment:
    """``wanted`` by index, survivors and new ones; ``leaving`` are seen and not wanted any more."""

    wanted: Mapping[int, Replica]
    leaving: tuple[ObservedReplica, ...] = ()


def assign(group: DesiredGroup, seen: Sequence[ObservedReplica]) -> Assignment:
    """Give every wanted spec of the group an index, so that as little as possible changes."""
    variants = Variants(group)
    staying, leaving = _parted(seen, variants.counts())
    left = variants.counts()
    wanted: dict[int, Replica] = {}
    for replica in staying:
        if left[replica.digest] > 0:
            left[replica.digest] -= 1
            wanted[replica.index] = variants.replica(replica.index, variants.slots_of[replica.digest])
    indices = [replica.index for replica in staying if replica.index not in wanted]
    free = free_indices(replica.index for replica in seen)
    rest = [slots for slots in group.shape if _take(left, variants.digest_of[slots])]
    for slots in rest:
        index = indices.pop(0) if indices else next(free)
        wanted[index] = variants.replica(index, slots)
    return Assignment(dict(sorted(wanted.items())), tuple(sorted(leaving, key=lambda replica: replica.index)))


class Variants:
    """The few different specs of one group (full replicas, one smaller), their digests worked out once."""

    def __init__(self, group: DesiredGroup) -> None:
        self.group = group
        self.specs = {slots: sized(group, slots) for slots in sorted(set(group.shape), reverse=True)}
        self.digest_of = {slots: digest(spec) for slots, spec in self.specs.items()}
        self.slots_of = {mark: slots for slots, mark in self.digest_of.items()}

    def counts(self) -> Counter[str]:
        """How many replicas of each digest are wanted."""
        return Counter(self.digest_of[slots] for slots in self.group.shape)

    def replica(self, index: int, slots: int) -> Replica:
        """The replica with this index and this many slots."""
        group = self.group
        return Replica(group.name, index, self.specs[slots], self.digest_of[slots], group.system)


def sized(group: DesiredGroup, slots: int) -> WorkerSpec:
    """The group's spec for a replica of that many slots. A command's capacity is no part of its spec."""
    spec = group.spec
    if spec.kind == "command" or spec.pool.concurrency == slots:
        return spec
    return replace(spec, pool=replace(spec.pool, concurrency=slots))


def free_indices(taken: Iterable[int]) -> Iterator[int]:
    """The indices nobody has, lowest first."""
    used = set(taken)
    index = 0
    while True:
        if index not in used:
            yield index
        index += 1


def _take(left: Counter[str], mark: str) -> bool:
    left[mark] -= 1
    return left[mark] >= 0


def _parted(
    seen: Sequence[ObservedReplica], counts: Counter[str]
) -> tuple[list[ObservedReplica], list[ObservedReplica]]:
    """Who stays (best first) and who leaves when there are more than wanted.

    Leave first: what does not run; what is on its way out; what takes no work; what has another spec; what is not
    ready yet; the least busy; the highest index.
    """
    best_first = sorted(seen, key=lambda replica: (-replica.busy, replica.index))
    left = Counter(counts)
    right = {replica.index for replica in best_first if replica.state not in GONE and _take(left, replica.digest)}
    ranked = sorted(best_first, key=lambda replica: _rank(replica, right), reverse=True)
    size = counts.total()
    return ranked[:size], ranked[size:]


def _rank(replica: ObservedReplica, right: set[int]) -> tuple[int, bool]:
    """How much a replica is worth keeping; the sort around it is stable."""
    ready = replica.state is State.READY
    if replica.state in GONE:
        return 0, ready
    if leaving(replica):
        return 1, ready
    if replica.held:
        return 2, ready
    return 4 if replica.index in right else 3, ready


def leaving(replica: ObservedReplica) -> bool:
    """On its way out: it drains and nobody only holds it."""
    return replica.state is State.DRAINING and not replica.held
