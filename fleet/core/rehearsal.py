"""A manifest on a stage: its groups as stations of a simulated world, and the tasks that come to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from fleet.core.desired import DesiredGroup
from fleet.core.expand import expand, full_specs
from fleet.core.facts import Facts
from fleet.core.manifest import Group, Manifest, Pool
from fleet.core.moving import Moving, is_live, moving, scaled
from fleet.core.policies import POLICIES, Case
from fleet.core.shares import Share
from fleet.core.simulation import Arrival, Outcome, Setting, Station, simulate
from fleet.core.wording import duration, listed
from fleet.core.words import did_you_mean
from fleet.core.workloads import WORKLOADS, Chance, Draw, Line, Usual, arrivals, lognormal
from fleet.errors import UsageError

USUAL_LOAD = 0.62
"""The part of its static share that a group's ordinary load keeps busy."""

_WARMUP_SECONDS = 120.0
_LOOKS = 400
_MOST_TASKS = 3_000_000


@dataclass(frozen=True, slots=True)
class Stage:
    """What is played of a manifest. ``fixed``: slots of groups that do not move.  queues: group -> its queues."""

    stations: tuple[Station, ...]
    fixed: Mapping[str, int]
    moving: Moving
    usuals: tuple[Usual, ...]
    queues: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    @property
    def budget(self) -> int:
        """All slots there may be."""
        return sum(self.fixed.values()) + self.moving.budget


@dataclass(frozen=True, slots=True)
class Play:
    """What comes to the stage, and for how long. ``warmup_seconds``: tasks that come before do not count."""

    arrivals: Mapping[str, Sequence[Arrival]]
    duration_seconds: float
    warmup_seconds: float = 0.0


def stage(manifest: Manifest, *, facts: Facts) -> Stage:
    """The groups of a manifest that have slots. Raises Refused where the budget does not add up."""
    desired = expand(manifest, facts=facts)
    specs = full_specs(manifest, facts)
    moves = moving(manifest, specs)
    by_name = {group.name: group for group in moves.groups}
    groups = [one for name, one in sorted(desired.groups.items()) if _plays(one, moves=name in by_name)]
    stations = [
        Station(
            by_name.get(group.name) or scaled(manifest.spec.groups[group.name], _standing(group), specs[group.name]),
            is_live=is_live(specs[group.name]),
            pool="command" if group.spec.kind == "command" else group.spec.pool.type,
        )
        for group in groups
    ]
    return Stage(
        stations=tuple(stations),
        fixed={group.name: group.slots for group in groups if group.name not in by_name},
        moving=replace(moves, groups=tuple(one.group for one in stations if one.name in by_name)),
        usuals=tuple(_usual(one, desired.groups[one.name].slots) for one in stations),
        queues={group.name: tuple(queue.name for queue in group.spec.queues) for group in groups},
        notes=tuple(_notes(manifest, stations)),
    )


def _plays(group: DesiredGroup, *, moves: bool) -> bool:
    """Whether it has slots, or may come to have some."""
    return not group.system and not group.paused and (moves or group.slots > 0)


def _standing(group: DesiredGroup) -> Share:
    """A group that does not move."""
    return Share(group.name, min=group.slots, max=group.slots)


def _usual(station: Station, slots: int) -> Usual:
    seconds, weight = station.group.expected_runtime_seconds, float(station.group.share.weight)
    return Usual(station.name, USUAL_LOAD * max(slots, 1) / seconds, seconds, weight=weight)


def _notes(manifest: Manifest, stations: Iterable[Station]) -> Iterator[str]:
    """What the simulation takes for granted."""
    said = {name: group.autoscale for name, group in manifest.spec.groups.items()}
    names = [one.name for one in stations]
    silent = [name for name in names if (part := said[name]) is None or part.expected_runtime is None]
    hasty = [name for name in names if (part := said[name]) is None or part.target_wait is None]
    if silent:
        yield f"no expectedRuntime, so a task takes 1s: {listed(silent)}"
    if hasty:
        yield f"no targetWait, so 5s count: {listed(hasty)}"
    unsaid = [name for name in names if _is_unsaid(manifest.spec.groups[name])]
    if unsaid:
        yield f"apps are not asked, so what a group does not say is the default of its pool: {listed(unsaid)}"
    if not any(said[name] for name in names):
        yield "no group autoscales: nothing moves"


def _is_unsaid(group: Group) -> bool:
    """Whether the app might have a say in the pool or in its concurrency."""
    pool = group.pool or Pool()
    return group.command is None and pool.type != "solo" and (pool.type is None or pool.concurrency is None)


def workload_play(on: Stage, workload: str, *, duration_seconds: float, chance: Callable[[str], Chance]) -> Play:
    """One of the five workloads. ``chance``: a source of random numbers per group name.

    Raises UsageError where that would be more tasks than memory and patience allow.
    """
    about = int(duration_seconds * sum(usual.rate for usual in on.usuals))
    if about > _MOST_TASKS:
        message = f"{duration(duration_seconds)} of this fleet are about {about:,} tasks; {_MOST_TASKS:,} can be played"
        shorter = duration(max(1.0, duration_seconds * _MOST_TASKS // about))
        raise UsageError(message, hint=f"--duration {shorter}, or a longer expectedRuntime if that is the truth")
    flows = WORKLOADS[workload](on.usuals, budget=on.budget, duration=duration_seconds)
    coming = {name: list(arrivals(flow, chance(name), until=duration_seconds)) for name, flow in flows.items()}
    return Play(coming, duration_seconds, min(_WARMUP_SECONDS, duration_seconds / 10))


def file_play(
    on: Stage, lines: Sequence[Line], *, source: str, duration_seconds: float | None, chance: Callable[[str], Chance]
) -> Play:
    """The arrivals of a file. A queue that several groups take from serves them in turns.

    Raises UsageError for a queue that nobody takes from.
    """
    turns = {queue: cycle(names) for queue, names in _takers(on).items()}
    draws = {usual.name: _drawer(usual, chance) for usual in on.usuals}
    coming: dict[str, list[Arrival]] = {usual.name: [] for usual in on.usuals}
    for line in lines:
        if line.queue not in turns:
            message = f"{source}:{line.number}: no group takes from queue {line.queue!r}"
            raise UsageError(message, hint=did_you_mean(line.queue, turns))
        name = next(turns[line.queue])
        seconds = draws[name]() if line.runtime_seconds is None else line.runtime_seconds
        coming[name].append((line.at, seconds))
    end = duration_seconds or max(line.at + (line.runtime_seconds or 0.0) for line in lines) + 60.0
    return Play(coming, end)


def _takers(on: Stage) -> dict[str, list[str]]:
    """Groups by queue; a group also answers to its own name."""
    takers: dict[str, list[str]] = {}
    for name, queues in on.queues.items():
        for queue in queues:
            takers.setdefault(queue, []).append(name)
    return {**{name: [name] for name in on.queues}, **takers}


def _drawer(usual: Usual, chance: Callable[[str], Chance]) -> Callable[[], float]:
    """How long a task of the group takes where the file does not say."""
    draw: Draw = lognormal(usual.task_seconds, usual.variation)
    own = chance(usual.name)
    return lambda: draw(own)


def rehearse(
    on: Stage, play: Play, policy: str, *, watch: bool = False, tell: Callable[[float], None] | None = None
) -> Outcome:
    """What becomes of it under a policy, which moves the groups that autoscale; ``watch``: with a timeline."""
    setting = Setting(
        on.stations,
        on.budget,
        play.duration_seconds,
        warmup_seconds=play.warmup_seconds,
        watch_seconds=play.duration_seconds / _LOOKS if watch else 0.0,
        fixed=on.fixed,
    )
    loads = {
        name: sum(seconds for _, seconds in coming) / play.duration_seconds for name, coming in play.arrivals.items()
    }
    moves = on.moving
    case = Case(moves.groups, moves.budget, moves.tuning, loads, moves.capacity)
    coming = {name: iter(one) for name, one in play.arrivals.items()}
    return simulate(setting, coming, POLICIES[policy if moves.groups else "static"](case), tell=tell)
