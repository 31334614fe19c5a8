"""One group on its way: which step comes next, so that both sides together stay within their slots. PURE.

Every step changes one side only. The side that grows is waited for before the other one shrinks, so some of the group
serves all the time, unless both do not fit at once or it must never run twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fleet.core.balance.divide import shape
from fleet.core.migration.state import CLUSTER, Side

_BATCHES = 4
"""A group that has to make room moves in about so many parts."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large a group is at rest on either side.

    pods: in the cluster.  unit: slots of the budget of one pod.  concurrency: of its pool.  here: slots of all replicas
    on the host.  full: slots of a full replica there.  counts: whether those are slots of the budget.  grain: slots by
    which it may shrink and grow there: those of a full replica, or fewer where a pool resizes (None: full).
    part_here, part_there: slots of the budget that it has at rest.  stops_first: why it must never run on both sides.
    """

    pods: int
    unit: int
    concurrency: int
    here: int
    full: int
    counts: bool = True
    part_here: int = 0
    part_there: int = 0
    stops_first: str = ""
    grain: int | None = None

    @property
    def step(self) -> int:
        """Slots by which it shrinks and grows on the host."""
        return self.full if self.grain is None else self.grain


@dataclass(frozen=True, slots=True)
class Position:
    """Pods in the cluster and slots of replicas on the host."""

    pods: int
    here: int


def slots(position: Position, size: Size) -> int:
    """Slots of the budget that both sides take together."""
    return position.pods * size.unit + (position.here if size.counts else 0)


def least_room(size: Size, *, to: Side) -> int:
    """Slots of the budget without which the group cannot get there."""
    return max(size.pods * size.unit, size.part_there) if to == CLUSTER else size.part_here


def next_position(now: Position, size: Size, *, to: Side, room: int | None) -> Position | None:
    """The next step; None where it has arrived. ``room``: slots of the budget for both sides (None: no limit).

    Raises ValueError where the room is smaller than :func:`least_room`.
    """
    return _to_cluster(now, size, room) if to == CLUSTER else _to_host(now, size, room)


def path(start: Position, size: Size, *, to: Side, room: int | None) -> Iterator[Position]:
    """All positions from the start on, which is the first."""
    now: Position | None = start
    while now is not None:
        yield now
        now = next_position(now, size, to=to, room=room)


def _to_cluster(now: Position, size: Size, room: int | None) -> Position | None:
    if now.pods >= size.pods:
        return replace(now, here=0) if now.here else None
    if size.stops_first and now.here:
        return replace(now, here=0)
    fits = _pods_that_fit(now.here, size, room)
    if fits > now.pods:
        return replace(now, pods=min(fits, size.pods))
    wanted = min(size.pods, now.pods + _batch(size.pods))
    replicas = shape(now.here, size.step)
    while replicas:
        replicas = replicas[:-1]
        fits = _pods_that_fit(sum(replicas), size, room)
        if fits >= wanted or (fits > now.pods and not now.pods and len(replicas) == 1):
            return replace(now, here=sum(replicas))
    if fits > now.pods:
        return replace(now, here=0)
    raise ValueError(f"no room for {size.pods} pods of {size.unit} in {room}")


def _to_host(now: Position, size: Size, room: int | None) -> Position | None:
    if now.here >= size.here:
        return replace(now, pods=0) if now.pods else None
    if size.stops_first and now.pods:
        return replace(now, pods=0)
    fits = _slots_that_fit(now.pods, size, room)
    if fits > now.here:
        return replace(now, here=fits)
    wanted = min(size.here, now.here + _batch(len(shape(size.here, size.full))) * size.full)
    pods = now.pods
    while pods:
        pods -= 1
        fits = _slots_that_fit(pods, size, room)
        if fits >= wanted or (fits > now.here and not now.here and pods == 1):
            return replace(now, pods=pods)
    if fits > now.here:
        return replace(now, pods=0)
    raise ValueError(f"no room for {size.here} slots in {room}")


def _batch(whole: int) -> int:
    return max(1, -(-whole // _BATCHES))


def _pods_that_fit(here: int, size: Size, room: int | None) -> int:
    if room is None or not size.unit:
        return size.pods
    return max(0, room - (here if size.counts else 0)) // size.unit


def _slots_that_fit(pods: int, size: Size, room: int | None) -> int:
    """In whole replicas, but for the smaller one that the group has at rest."""
    left = size.here if room is None or not size.counts else max(0, room - pods * size.unit)
    return size.here if left >= size.here else left // size.step * size.step
