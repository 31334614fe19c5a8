"""Queues, tasks and slots, simulated event by event: what a policy would do to waiting times."""

from __future__ import annotations

import heapq
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fleet.core.autoscale.parameters import ScaledGroup
from fleet.core.autoscale.sample import Sample
from fleet.core.simulation.slots import ReplicaPool, ResizablePool, SlotPool, Token

Arrival = tuple[float, float]
"""When a task comes, and how long it runs."""

Seen = Callable[[float, str, Sample], Sample]
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Station:
    """One simulated group. ``is_live``: its pool changes its slots without a restart. ``pool`` is for people."""

    group: ScaledGroup
    is_live: bool = False
    pool: str = ""

    @property
    def name(self) -> str:
        return self.group.name


@dataclass(frozen=True, slots=True)
class Orders:
    """Slots that groups should have; those not named keep theirs. ``order``: which group is given free slots first."""

    slots: Mapping[str, int]
    order: Sequence[str]


class Policy(Protocol):
    """What decides about slots."""

    tick_seconds: float

    def start(self) -> Mapping[str, int]:
        """Group -> slots at the beginning, already running."""

    def decide(self, now: float, samples: Mapping[str, Sample]) -> Orders: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One group at one moment."""

    ready: int
    starting: int
    draining: int
    busy: int
    queue: int
    oldest_age_seconds: float


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """What became of the tasks of one group, and of its slots.

    late: the part that waited longer than the target.  over: the part of the time the oldest task was past it.
    unserved: still waiting at the end; they count with the time they have waited.
    """

    tasks: int
    p50_seconds: float
    p99_seconds: float
    mean_seconds: float
    late: float
    over: float
    unserved: int
    slots_mean: float
    slots_most: int
    busy_mean: float
    started: int
    stopped: int
    start_seconds: float

    @property
    def moves(self) -> int:
        """Slots started and stopped."""
        return self.started + self.stopped


@dataclass(frozen=True, slots=True)
class Outcome:
    """All groups together; ``timeline`` where it was asked for. ``slots_most``: never more than the budget."""

    groups: Mapping[str, GroupOutcome]
    tasks: int
    p50_seconds: float
    p99_seconds: float
    late: float
    slot_hours: float
    slots_most: int
    timeline: Sequence[tuple[float, Mapping[str, Snapshot]]] = ()

    @property
    def worst_over(self) -> float:
        """The part of the time for which the worst group's oldest task was past its target."""
        return max((one.over for one in self.groups.values()), default=0.0)

    @property
    def moves(self) -> int:
        """Slots started and stopped."""
        return sum(one.moves for one in self.groups.values())

    @property
    def start_seconds(self) -> float:
        """Time spent starting slots: what the moves cost."""
        return sum(one.start_seconds for one in self.groups.values())


def quantile(ordered: Sequence[float], part: float) -> float:
    """The value below which this part of the ordered values lies; 0 without any."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated. ``warmup_seconds``: tasks that come before do not count. ``watch_seconds``: 0 for no timeline.

    fixed: slots of groups that the policy does not move.  seen: what a policy sees of a sample, to spoil metrics.
    """

    stations: Sequence[Station]
    budget: int
    duration_seconds: float
    warmup_seconds: float = 0.0
    watch_seconds: float = 0.0
    fixed: Mapping[str, int] = field(default_factory=dict)
    seen: Seen | None = None


def simulate(
    setting: Setting,
    arrivals: Mapping[str, Iterator[Arrival]],
    policy: Policy,
    *,
    on_progress: Callable[[float], None] | None = None,
) -> Outcome:
    """Run it to the end. ``arrivals`` come in the order of time; ``on_progress`` is called with the simulated time."""
    simulation = _Simulation(setting, policy)
    simulation.begin(arrivals)
    return simulation.run(on_progress)


class _GroupState:
    """A station at work: its queue of tasks, its slots, and what is counted."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.name = station.name
        self.unit = station.group.share.unit
        self.target = station.group.target_wait_seconds
        self.start_seconds = station.group.start_seconds
        self.pool: SlotPool = ResizablePool() if station.is_live else ReplicaPool(self.unit)
        self.queue: deque[Arrival] = deque()
        self.waits = array("d")
        self.completions = self.started = self.stopped = self.slots_most = 0
        self.busy_seconds = self.slot_seconds = self.over_seconds = self._added_up_at = 0.0

    @property
    def committed(self) -> int:
        return self.pool.ready + self.pool.starting + self.pool.draining

    def add_up(self, now: float) -> None:
        """Add busy and slot time up to ``now``: called before anything changes."""
        seconds = now - self._added_up_at
        self._added_up_at = now
        self.busy_seconds += self.pool.busy * seconds
        self.slot_seconds += self.committed * seconds

    def sample(self, now: float) -> Sample:
        pool = self.pool
        return Sample(
            queue=len(self.queue),
            oldest_age_seconds=self.age(now),
            completions=self.completions,
            busy_seconds=self.busy_seconds,
            busy=pool.busy,
            ready=pool.ready,
            starting=pool.starting,
            draining=pool.draining,
        )

    def age(self, now: float) -> float:
        return now - self.queue[0][0] if self.queue else 0.0

    def snapshot(self, now: float) -> Snapshot:
        pool = self.pool
        return Snapshot(pool.ready, pool.starting, pool.draining, pool.busy, len(self.queue), self.age(now))

    def outcome(self, setting: Setting) -> GroupOutcome:
        counted = sorted(self.waits)
        late = sum(1 for wait in counted if wait > self.target)
        seconds = setting.duration_seconds
        return GroupOutcome(
            tasks=len(counted),
            p50_seconds=quantile(counted, 0.5),
            p99_seconds=quantile(counted, 0.99),
            mean_seconds=sum(counted) / len(counted) if counted else 0.0,
            late=late / len(counted) if counted else 0.0,
            over=self.over_seconds / (seconds - setting.warmup_seconds),
            unserved=len(self.queue),
            slots_mean=self.slot_seconds / seconds,
            slots_most=self.slots_most,
            busy_mean=self.busy_seconds / seconds,
            started=self.started,
            stopped=self.stopped,
            start_seconds=self.started * self.start_seconds,
        )


_Event = tuple[float, int, Callable[..., None], tuple[object, ...]]


class _Simulation:
    def __init__(self, setting: Setting, policy: Policy) -> None:
        self._setting = setting
        self._policy = policy
        self._states = {station.name: _GroupState(station) for station in setting.stations}
        self._events: list[_Event] = []
        self._number = 0
        self._slots_most = 0
        self._timeline: list[tuple[float, Mapping[str, Snapshot]]] = []

    def begin(self, arrivals: Mapping[str, Iterator[Arrival]]) -> None:
        """Everything warm: the first slots have started already."""
        for name, slots in {**self._setting.fixed, **self._policy.start()}.items():
            state = self._states[name]
            for token in state.pool.grow(slots // state.unit * state.unit):
                state.pool.started(token)
        self._check_budget(0.0)
        for name, coming in arrivals.items():
            self._expect(self._states[name], coming)
        self._at(self._policy.tick_seconds, self._tick)
        self._at(_LOOK_SECONDS, self._count_late)
        if self._setting.watch_seconds:
            self._at(0.0, self._watch)

    def run(self, on_progress: Callable[[float], None] | None) -> Outcome:
        end, reported = self._setting.duration_seconds, 0.0
        while self._events:
            now, _, act, args = heapq.heappop(self._events)
            if now > end:
                break
            act(now, *args)
            if on_progress is not None and now >= reported:
                on_progress(now)
                reported = now + end / 200
        return self._outcome(end)

    def _at(self, when: float, act: Callable[..., None], *args: object) -> None:
        self._number += 1
        heapq.heappush(self._events, (when, self._number, act, args))

    def _expect(self, state: _GroupState, coming: Iterator[Arrival]) -> None:
        arrival = next(coming, None)
        if arrival is not None:
            self._at(arrival[0], self._arrive, state, arrival, coming)

    def _arrive(self, now: float, state: _GroupState, arrival: Arrival, coming: Iterator[Arrival]) -> None:
        state.queue.append(arrival)
        self._serve(now, state)
        self._expect(state, coming)

    def _serve(self, now: float, state: _GroupState) -> None:
        """Free slots take what waits."""
        if state.queue:
            state.add_up(now)
        while state.queue and (token := state.pool.take()) is not None:
            came, seconds = state.queue.popleft()
            if came >= self._setting.warmup_seconds:
                state.waits.append(now - came)
            self._at(now + seconds, self._finish, state, token)

    def _finish(self, now: float, state: _GroupState, token: Token) -> None:
        state.add_up(now)
        state.completions += 1
        state.pool.give_back(token)
        self._serve(now, state)

    def _ready(self, now: float, state: _GroupState, token: Token) -> None:
        state.add_up(now)
        state.pool.started(token)
        self._serve(now, state)

    def _tick(self, now: float) -> None:
        orders = self._policy.decide(now, self._samples(now))
        for name in orders.order:
            self._shrink(now, self._states[name], orders.slots[name])
        for name in orders.order:
            self._grow(now, self._states[name], orders.slots[name])
        self._check_budget(now)
        self._at(now + self._policy.tick_seconds, self._tick)

    def _samples(self, now: float) -> dict[str, Sample]:
        samples = {}
        for name, state in self._states.items():
            state.add_up(now)
            sample = state.sample(now)
            samples[name] = sample if self._setting.seen is None else self._setting.seen(now, name, sample)
        return samples

    def _shrink(self, now: float, state: _GroupState, wanted: int) -> None:
        less = (state.pool.ready + state.pool.starting - wanted) // state.unit * state.unit
        if less > 0:
            state.add_up(now)
            state.stopped += state.pool.shrink(less)

    def _grow(self, now: float, state: _GroupState, wanted: int) -> None:
        """As far as slots are free; a live pool may also raise its limit over slots that drain."""
        pool = state.pool
        more = wanted - pool.ready - pool.starting
        back = min(more, pool.draining) if state.station.is_live else 0
        free = self._setting.budget - sum(one.committed for one in self._states.values()) + back
        more = min(more, free) // state.unit * state.unit
        if more <= 0:
            return
        state.add_up(now)
        for token in pool.grow(more):
            state.started += token.slots
            self._start(now, state, token)
        self._serve(now, state)

    def _start(self, now: float, state: _GroupState, token: Token) -> None:
        if state.start_seconds > 0:
            self._at(now + state.start_seconds, self._ready, state, token)
        else:
            state.pool.started(token)

    def _check_budget(self, now: float) -> None:
        for state in self._states.values():
            state.slots_most = max(state.slots_most, state.committed)
        total = sum(state.committed for state in self._states.values())
        if total > self._setting.budget:
            raise AssertionError(f"{total} slots of {self._setting.budget} at {now:.1f} s")
        self._slots_most = max(self._slots_most, total)

    def _count_late(self, now: float) -> None:
        for state in self._states.values():
            if now > self._setting.warmup_seconds and state.age(now) > state.target:
                state.over_seconds += _LOOK_SECONDS
        self._at(now + _LOOK_SECONDS, self._count_late)

    def _watch(self, now: float) -> None:
        self._timeline.append((now, {name: state.snapshot(now) for name, state in self._states.items()}))
        self._at(now + self._setting.watch_seconds, self._watch)

    def _outcome(self, end: float) -> Outcome:
        for state in self._states.values():
            state.add_up(end)
            state.waits.extend(end - came for came, _ in state.queue if came >= self._setting.warmup_seconds)
        groups = {name: state.outcome(self._setting) for name, state in self._states.items()}
        waits = sorted(wait for state in self._states.values() for wait in state.waits)
        late = sum(one.late * one.tasks for one in groups.values())
        return Outcome(
            groups=groups,
            tasks=len(waits),
            p50_seconds=quantile(waits, 0.5),
            p99_seconds=quantile(waits, 0.99),
            late=late / len(waits) if waits else 0.0,
            slot_hours=sum(state.slot_seconds for state in self._states.values()) / 3600,
            slots_most=self._slots_most,
            timeline=self._timeline,
        )
