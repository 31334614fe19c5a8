"""From decided slots to what KEDA is told, and which pods are to go first. PURE.

KEDA and the cluster's autoscaler carry an order out within half a minute. Between an order and its effect, slots that
come count as starting and those that go as draining, as on a host, so that no slot is given twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fleet.core.autoscale.sample import Sample

TENTH = 10
"""The cluster's autoscaler ignores a change of less than one in so many pods; of exactly one, some versions do."""
LAG_SECONDS = 15.0
"""From the moment at which the cluster asks for a number to that at which its pods are there to be seen."""
GOES_FIRST = -1
"""``pod-deletion-cost`` of a pod that is to go; the others cost as much as they run tasks."""


@dataclass(frozen=True, slots=True)
class PodLoad:
    """One pod of a group: whether it works, and how many tasks it runs. ``began``: as the cluster writes it."""

    name: str
    is_ready: bool
    running: int
    began: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What KEDA is told for a group. ``there``: the slots that there were then.

    unseen: a larger order of before that was not carried out yet. Until ``until``, Unix seconds, it still may be.
    """

    slots: int
    there: int
    unseen: int = 0
    until: float = 0.0


def ordered(slots: int, *, there: int, before: Order | None, now: float) -> Order:
    """The next order, after the one before."""
    if before is None:
        return Order(slots, there)
    unseen, until = (before.unseen, before.until) if now < before.until else (0, 0.0)
    if slots < before.slots and there < before.slots and before.slots > unseen:
        unseen, until = before.slots, now + LAG_SECONDS
    return Order(slots, there, unseen, until) if unseen > max(slots, there) else Order(slots, there)


def as_ordered(sample: Sample, order: Order | None, *, now: float) -> Sample:
    """A sample of what there is, against what was ordered (None: nothing was).

    Slots beyond what was ever ordered are not on their way out: somebody else made them, a rollout for one.
    """
    if order is None:
        return sample
    has, unseen = sample.has, order.unseen if now < order.until else 0
    coming = max(0, order.slots - has)
    going = max(0, min(has, max(order.there, unseen)) - order.slots)
    may_come = max(0, unseen - max(has, order.slots))
    unready = min(sample.starting, going)
    return replace(
        sample,
        starting=sample.starting - unready + coming,
        ready=sample.ready - (going - unready),
        draining=sample.draining + going + may_come,
    )


def reachable(present: int, wanted: int, *, least: int, is_wanted_elsewhere: bool) -> int:
    """The number of pods to ask for, given that the cluster ignores small changes.

    A group that grows by less stays. One that shrinks by less stays as well, unless another group waits for slots:
    then it gives up as many as it takes to be heard, though never more than down to ``least``.
    """
    if present == 0 or wanted == 0 or wanted == present or is_noticed(present, wanted):
        return wanted
    if wanted > present or not is_wanted_elsewhere:
        return present
    heard = max(number for number in range(wanted) if is_noticed(present, number))
    return heard if heard >= least else present


def is_noticed(present: int, wanted: int) -> bool:
    """Whether every version of the cluster's autoscaler goes from one number of pods to the other."""
    return abs(wanted - present) * TENTH > present


def victims(pods: Sequence[PodLoad], keep: int) -> list[str]:
    """The pods that go when ``keep`` are to stay: those that do not work, then the least busy, then the youngest."""
    order = sorted(pods, key=lambda pod: pod.name)
    order.sort(key=lambda pod: pod.began, reverse=True)
    order.sort(key=lambda pod: (pod.is_ready, pod.running))
    return [pod.name for pod in order[: max(0, len(order) - keep)]]


def costs(pods: Sequence[PodLoad], going: Sequence[str]) -> dict[str, int]:
    """Pod -> ``pod-deletion-cost``; nothing where none is to go, so that it is seldom written."""
    if not going:
        return {}
    return {pod.name: GOES_FIRST if pod.name in going else pod.running for pod in pods}


def changed(wanted: Mapping[str, int], written: Mapping[str, int]) -> dict[str, int]:
    """The costs that must be written, given what is written already: a victim's, and what would make a busy pod go."""
    return {
        pod: cost
        for pod, cost in wanted.items()
        if written.get(pod) is None or (written[pod] < 0) != (cost < 0) or (written[pod] == 0) != (cost == 0)
    }
