"""What may decide about slots in a simulation: fleet, static splits, and the scalers people use today.

The scalers look at one group each and share the budget first come, first served. They follow the documented rules of
their models with their defaults; ``keda-tuned`` has the windows that served it best.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, sqrt
from types import MappingProxyType

from fleet.core.autoscale.decide import EMPTY, Memory, decide
from fleet.core.autoscale.parameters import Parameters, ScaledGroup
from fleet.core.autoscale.sample import Sample
from fleet.core.balance.divide import balance
from fleet.core.balance.shares import Share
from fleet.core.simulation.engine import Orders, Policy

_SELDOM_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class PolicyInput:
    """What a policy is made for.

    loads: busy slots per group that will come on average, for hindsight.  capacity: other resources, which only fleet
    and the static split know.
    """

    groups: Sequence[ScaledGroup]
    budget: int
    parameters: Parameters
    loads: Mapping[str, float]
    capacity: Mapping[str, int] = field(default_factory=dict)


class Fleet:
    """The decision of the controller itself."""

    def __init__(self, given: PolicyInput) -> None:
        self.tick_seconds = given.parameters.tick_seconds
        self._given = given
        self._memory: Memory = EMPTY

    def start(self) -> Mapping[str, int]:
        return _static_shares(self._given.groups, self._given.budget, self._given.capacity)

    def decide(self, now: float, samples: Mapping[str, Sample]) -> Orders:
        given = self._given
        decision = decide(
            self._memory,
            samples,
            given.groups,
            budget=given.budget,
            now=now,
            parameters=given.parameters,
            capacity=given.capacity,
        )
        self._memory = decision.memory
        return Orders(decision.slots, decision.order)


class Split:
    """Slots that never change."""

    def __init__(self, slots: Mapping[str, int]) -> None:
        self.tick_seconds = _SELDOM_SECONDS
        self._slots = slots

    def start(self) -> Mapping[str, int]:
        return self._slots

    def decide(self, _now: float, _samples: Mapping[str, Sample]) -> Orders:
        return Orders(self._slots, tuple(self._slots))


class OneByOne:
    """Each group for itself: free slots go to the group that asks first, and they ask in turns."""

    def __init__(self, groups: Sequence[ScaledGroup], budget: int, *, tick_seconds: float) -> None:
        self.tick_seconds = tick_seconds
        self._groups = {group.name: group for group in groups}
        self._budget = budget
        self._turn = 0
        self._first = _static_shares(groups, budget)

    def start(self) -> Mapping[str, int]:
        """The static shares."""
        return self._first

    def decide(self, now: float, samples: Mapping[str, Sample]) -> Orders:
        """What each group wants; without metrics nothing changes."""
        slots = {
            name: samples[name].has
            if samples[name].missing
            else group.bounded(self._wanted(now, group, samples[name]), most=group.ceiling(self._budget))
            for name, group in self._groups.items()
        }
        self._turn = (self._turn + 1) % len(slots)
        names = list(slots)
        return Orders(slots, names[self._turn :] + names[: self._turn])

    def _wanted(self, now: float, group: ScaledGroup, sample: Sample) -> int:
        raise NotImplementedError


@dataclass(slots=True)
class _GroupPast:
    """What a scaler remembers of one group."""

    wants: deque[tuple[float, float]] = field(default_factory=deque)
    sizes: deque[tuple[float, int]] = field(default_factory=deque)
    panic_at: float | None = None
    most: int = 0
    raised_at: float | None = None


def _forget(pairs: deque[tuple[float, float]] | deque[tuple[float, int]], before: float) -> None:
    while pairs and pairs[0][0] < before:
        pairs.popleft()


class Keda(OneByOne):
    """KEDA in front of a Kubernetes HPA: queued and running tasks over a number of tasks per slot.

    A tolerance of a tenth; down to the highest want of the window; up by four slots or to twice as many in 15 s.
    ``backlog``: as many tasks per slot as half the target allows, as target tracking on AWS does.
    """

    def __init__(
        self,
        groups: Sequence[ScaledGroup],
        budget: int,
        *,
        backlog: bool = False,
        window_seconds: float = 300.0,
        tick_seconds: float = _SELDOM_SECONDS,
    ) -> None:
        super().__init__(groups, budget, tick_seconds=tick_seconds)
        self._backlog = backlog
        self._window_seconds = window_seconds
        self._past = {group.name: _GroupPast() for group in groups}

    def _wanted(self, now: float, group: ScaledGroup, sample: Sample) -> int:
        past, has = self._past[group.name], sample.has
        per_slot = max(1.0, 0.5 * group.target_wait_seconds / group.expected_runtime_seconds) if self._backlog else 1.0
        value = (sample.queue or 0) + sample.busy
        want = ceil(value / per_slot) if not has or abs(value / (per_slot * has) - 1.0) > 0.1 else has
        past.wants.append((now, want))
        _forget(past.wants, now - self._window_seconds)
        if want < has:
            return int(min(has, max(one for _, one in past.wants)))
        if want > has:
            _forget(past.sizes, now - _SELDOM_SECONDS + 1e-9)
            base = past.sizes[0][1] if past.sizes else has
            past.sizes.append((now, has))
            return min(want, max(base + 4, 2 * base))
        return want


class Celery(OneByOne):
    """``celery worker --autoscale``: up at once to what is running and reserved, down 30 s after the last rise.

    Celery knows no shared budget, so each worker's max is its static share. ``shared``: kinder than Celery, every
    worker's max is the whole budget.
    """

    def __init__(self, groups: Sequence[ScaledGroup], budget: int, *, shared: bool = False) -> None:
        super().__init__(groups, budget, tick_seconds=1.0)
        self._most = {name: budget if shared else share for name, share in self._first.items()}
        self._past = {group.name: _GroupPast() for group in groups}

    def start(self) -> Mapping[str, int]:
        """A worker starts with its min."""
        return {name: group.floor for name, group in self._groups.items()}

    def _wanted(self, now: float, group: ScaledGroup, sample: Sample) -> int:
        past, has, most = self._past[group.name], sample.has, self._most[group.name]
        reserved = sample.busy + min(sample.queue or 0, most * 4)
        if min(reserved, most) > has:
            past.raised_at = now
            return min(reserved, most)
        want = max(reserved, group.floor)
        if want < has and past.raised_at is not None and now - past.raised_at > 30.0:
            return max(want, has - max(0, sample.ready - sample.busy))
        return has


class Knative(OneByOne):
    """Knative's autoscaler: 70 % use over a minute; when six seconds ask for twice as much, it panics upwards."""

    def __init__(self, groups: Sequence[ScaledGroup], budget: int) -> None:
        super().__init__(groups, budget, tick_seconds=2.0)
        self._past = {group.name: _GroupPast() for group in groups}

    def _wanted(self, now: float, group: ScaledGroup, sample: Sample) -> int:
        past, ready = self._past[group.name], max(1, sample.ready)
        past.wants.append((now, (sample.queue or 0) + sample.busy))
        _forget(past.wants, now - 60.0 + 1e-9)
        stable = ceil(_mean([value for _, value in past.wants]) / 0.7)
        short = ceil(_mean([value for at, value in past.wants if at > now - 6.0]) / 0.7)
        if short / ready >= 2.0:
            past.panic_at = now
        elif past.panic_at is not None and past.panic_at + 60.0 < now:
            past.panic_at, past.most = None, 0
        want = max(ready // 2, stable)
        if past.panic_at is not None:
            past.most = want = max(want, short, past.most)
        return want


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _static_shares(
    groups: Sequence[ScaledGroup], budget: int, capacity: Mapping[str, int] = MappingProxyType({})
) -> Mapping[str, int]:
    return balance(budget, [group.share for group in groups], tail="fill", capacity=capacity).slots


def _equal_shares(groups: Sequence[ScaledGroup], budget: int) -> Mapping[str, int]:
    """As many slots each as the bounds allow, weights left aside."""
    return balance(budget, [replace(group.share, weight=1) for group in groups], tail="fill").slots


def _hindsight(groups: Sequence[ScaledGroup], budget: int, loads: Mapping[str, float]) -> Mapping[str, int]:
    """A split by the load that really comes, with room by the square root: what a perfect planner would choose."""
    shares: list[Share] = []
    for group in groups:
        load = loads[group.name]
        shares.append(replace(group.share, weight=max(1, round(1000 * (load + sqrt(load)))), tier=0))
    return balance(budget, shares, tail="fill").slots


POLICIES: Mapping[str, Callable[[PolicyInput], Policy]] = {
    "fleet": Fleet,
    "static": lambda given: Split(_static_shares(given.groups, given.budget, given.capacity)),
    "equal": lambda given: Split(_equal_shares(given.groups, given.budget)),
    "hindsight": lambda given: Split(_hindsight(given.groups, given.budget, given.loads)),
    "celery": lambda given: Celery(given.groups, given.budget),
    "celery-shared": lambda given: Celery(given.groups, given.budget, shared=True),
    "keda": lambda given: Keda(given.groups, given.budget),
    "keda-backlog": lambda given: Keda(given.groups, given.budget, backlog=True),
    "keda-tuned": lambda given: Keda(given.groups, given.budget, window_seconds=60.0, tick_seconds=2.0),
    "knative": lambda given: Knative(given.groups, given.budget),
}
