"""From what a backend and a broker saw to one sample per group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fleet.core.autoscale.sample import Backlog, Count, Meter, QueueSample, Sample
from fleet.core.desired import Desired, DesiredGroup, group_of
from fleet.core.observed import Observed, ObservedReplica, State, leaving

_UNKNOWN = QueueSample()


@dataclass(frozen=True, slots=True)
class Measured:
    """One group, seen. ``parked``: slots of replicas that were given up after too many crashes: they
    stay idle, and no other group gets them until a person has looked."""

    sample: Sample
    meter: Meter
    parked: int = 0


def measure(
    groups: Sequence[str],
    desired: Desired,
    observed: Observed,
    backlog: Backlog,
    *,
    meters: Mapping[str, Meter],
    now: float,
) -> dict[str, Measured]:
    """Group -> what was measured, with its counters carried on."""
    takers = _takers(desired)
    return {
        name: _measured(desired.groups[name], desired, observed, backlog, takers, meters.get(name, Meter()), now)
        for name in groups
    }


def _measured(
    group: DesiredGroup,
    desired: Desired,
    observed: Observed,
    backlog: Backlog,
    takers: Mapping[str, Sequence[str]],
    meter: Meter,
    now: float,
) -> Measured:
    seen = [replica for _, replica in sorted(observed.replicas.items()) if replica.group == group.name]
    slots = [_slots(replica, group, desired) for replica in seen]
    counts = _counts(seen, meter.last)
    meter = meter if counts is None else meter.read(counts)
    busy = sum(replica.busy for replica in seen)
    waiting = _waiting(group, backlog, takers)
    return Measured(
        Sample(
            queue=None if waiting is None else waiting + _unstarted(group.name, seen, backlog, busy),
            oldest_age_seconds=_age(group, backlog, now),
            completions=None if counts is None else meter.completions,
            busy_seconds=None if counts is None else meter.busy_seconds,
            busy=busy,
            ready=sum(one.ready for one in slots),
            starting=sum(one.starting for one in slots),
            draining=sum(one.draining for one in slots),
        ),
        meter,
        sum(one.parked for one in slots),
    )


@dataclass(frozen=True, slots=True)
class _Slots:
    """The slots of one replica by what they are good for."""

    ready: int = 0
    starting: int = 0
    draining: int = 0
    parked: int = 0


def _slots(replica: ObservedReplica, group: DesiredGroup, desired: Desired) -> _Slots:
    """Between an order and its effect, slots that come count as starting, and those that go as draining."""
    size = replica.target_slots if group.capacity_slots is None else group.capacity_slots
    if replica.state is State.FAILED:
        return _Slots(parked=size)
    if not replica.running and replica.state is not State.STARTING:
        return _Slots()
    by_hand = replica.name in desired.drained or group.name in desired.drained
    if leaving(replica) or (replica.held and not by_hand):
        return _Slots(draining=max(size, replica.slots, replica.busy))
    if replica.state is State.STARTING:
        return _Slots(starting=size)
    there = size if group.capacity_slots is not None else max(replica.slots, replica.busy)
    ready = min(size, there)
    return _Slots(ready, starting=size - ready, draining=there - ready)


def _counts(seen: Iterable[ObservedReplica], last: Mapping[str, Count]) -> dict[str, Count] | None:
    """What every replica has counted; None where one that works keeps no count. One that starts has counted nothing.

    A process that does not answer at this moment has counted what it had at the ``last`` look: it must not begin at 0.
    """
    found = {}
    for replica in seen:
        name = f"{replica.name}@{replica.pid}"
        if replica.counts:
            found[name] = Count(replica.processed + replica.retried, replica.busy_seconds)
        elif replica.state is State.READY:
            return None
        elif name in last:
            found[name] = last[name]
    return found


def _unstarted(group: str, seen: Sequence[ObservedReplica], backlog: Backlog, busy: int) -> int:
    """Messages that left the queue and wait in workers for a free slot; those of a worker that died, too.

    Of what the broker says is held, running tasks are taken off, as if all were acknowledged at their end. Where some
    are at their start, the workers' own word is nearer.
    """
    in_workers = sum(max(0, replica.reserved - replica.busy) for replica in seen)
    held = sum(count for name, count in (backlog.held or {}).items() if group_of(name) == group)
    return max(in_workers, held - busy)


def _takers(desired: Desired) -> dict[str, list[str]]:
    """Queue -> groups that take from it."""
    found: dict[str, list[str]] = {}
    for name, group in sorted(desired.groups.items()):
        for queue in group.spec.queues:
            found.setdefault(queue.name, []).append(name)
    return found


def _waiting(group: DesiredGroup, backlog: Backlog, takers: Mapping[str, Sequence[str]]) -> int | None:
    """Messages in its queues. Of a queue that several groups take from, each counts an equal part."""
    total = 0
    for queue in group.spec.queues:
        waiting = backlog.queues.get(queue.name, _UNKNOWN).waiting
        if waiting is None:
            return None
        sharers = takers[queue.name]
        total += (waiting + len(sharers) - 1 - sharers.index(group.name)) // len(sharers)
    return total if group.spec.queues else None


def _age(group: DesiredGroup, backlog: Backlog, now: float) -> float | None:
    """How long the oldest of its messages has waited, if any of them carries the time of its sending."""
    seen = (backlog.queues.get(queue.name, _UNKNOWN) for queue in group.spec.queues)
    moments = [queue.oldest_sent_at for queue in seen if queue.oldest_sent_at is not None]
    return max(0.0, now - min(moments)) if moments else None
