"""A manifest as a scenario: its groups as stations of a simulation, and the tasks that come to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

from fleet.core.autoscale.groups import ScaledGroups, scaled_group, scaled_groups
from fleet.core.balance.shares import Share
from fleet.core.desired import DesiredGroup
from fleet.core.expand.expand import expand, full_specs
from fleet.core.expand.facts import Facts
from fleet.core.manifest.models import Group, Manifest, Pool
from fleet.core.simulation.engine import Arrival, Outcome, Setting, Station, simulate
from fleet.core.simulation.policies import POLICIES, PolicyInput
from fleet.core.simulation.workloads import WORKLOADS, BaseLoad, Chance, Draw, Line, arrivals, lognormal
from fleet.core.spec import resizes
from fleet.core.text.format import duration, listed
from fleet.core.text.suggest import did_you_mean
from fleet.errors import UsageError

BASE_LOAD = 0.62
"""The part of its static share that a group's ordinary load keeps busy."""

_WARMUP_SECONDS = 120.0
_LOOKS = 400
_MOST_TASKS = 3_000_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is simulated of a manifest. ``fixed``: slots of groups that do not move.  queues: group -> its queues."""

    stations: tuple[Station, ...]
    fixed: Mapping[str, int]
    scaled_groups: ScaledGroups
    base_loads: tuple[BaseLoad, ...]
    queues: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    @property
    def budget(self) -> int:
        """Slots of all groups together."""
        return sum(self.fixed.values()) + self.scaled_groups.budget


@dataclass(frozen=True, slots=True)
class Traffic:
    """The tasks that come, and for how long. ``warmup_seconds``: tasks that come before do not count."""

    arrivals: Mapping[str, Sequence[Arrival]]
    duration_seconds: float
    warmup_seconds: float = 0.0


def scenario(manifest: Manifest, *, facts: Facts) -> Scenario:
    """The groups of a manifest that have slots. Raises Refused where the budget does not add up."""
    desired = expand(manifest, facts=facts)
    specs = full_specs(manifest, facts)
    moves = scaled_groups(manifest, specs)
    by_name = {group.name: group for group in moves.groups}
    groups = [one for name, one in sorted(desired.groups.items()) if _takes_part(one, moves=name in by_name)]
    stations = [
        Station(
            by_name.get(group.name)
            or scaled_group(manifest.spec.groups[group.name], _unmoved_share(group), specs[group.name]),
            is_live=resizes(specs[group.name]),
            pool="command" if group.spec.kind == "command" else group.spec.pool.type,
        )
        for group in groups
    ]
    return Scenario(
        stations=tuple(stations),
        fixed={group.name: group.slots for group in groups if group.name not in by_name},
        scaled_groups=replace(moves, groups=tuple(one.group for one in stations if one.name in by_name)),
        base_loads=tuple(_base_load(one, desired.groups[one.name].slots) for one in stations),
        queues={group.name: tuple(queue.name for queue in group.spec.queues) for group in groups},
        notes=tuple(_notes(manifest, stations)),
    )


def _takes_part(group: DesiredGroup, *, moves: bool) -> bool:
    """Whether it has slots, or may come to have some."""
    return not group.system and not group.paused and (moves or group.slots > 0)


def _unmoved_share(group: DesiredGroup) -> Share:
    """The share of a group that does not move."""
    return Share(group.name, min=group.slots, max=group.slots)


def _base_load(station: Station, slots: int) -> BaseLoad:
    seconds, weight = station.group.expected_runtime_seconds, float(station.group.share.weight)
    return BaseLoad(station.name, BASE_LOAD * max(slots, 1) / seconds, seconds, weight=weight)


def _notes(manifest: Manifest, stations: Iterable[Station]) -> Iterator[str]:
    """What the simulation assumes."""
    said = {name: group.autoscale for name, group in manifest.spec.groups.items()}
    names = [one.name for one in stations]
    silent = [name for name in names if (part := said[name]) is None or part.expected_runtime is None]
    hasty = [name for name in names if (part := said[name]) is None or part.target_wait is None]
    if silent:
        yield f"no expectedRuntime, so 1s per task is assumed: {listed(silent)}"
    if hasty:
        yield f"no targetWait, so 5s is assumed: {listed(hasty)}"
    unsaid = [name for name in names if _is_unsaid(manifest.spec.groups[name])]
    if unsaid:
        yield f"apps are not loaded, so what a group leaves out has the default of its pool: {listed(unsaid)}"
    if not any(said[name] for name in names):
        yield "no group autoscales: nothing moves"


def _is_unsaid(group: Group) -> bool:
    """Whether the app might have a say in the pool or in its concurrency."""
    pool = group.pool or Pool.empty()
    return group.command is None and pool.type != "solo" and (pool.type is None or pool.concurrency is None)


def workload_traffic(
    scenario: Scenario, workload: str, *, duration_seconds: float, chance: Callable[[str], Chance]
) -> Traffic:
    """One of the five workloads. ``chance``: a source of random numbers per group name.

    Raises UsageError where that would be more tasks than memory and patience allow.
    """
    about = int(duration_seconds * sum(base.rate for base in scenario.base_loads))
    if about > _MOST_TASKS:
        message = f"{duration(duration_seconds)} of this fleet are about {about:,} tasks; {_MOST_TASKS:,} can be played"
        shorter = duration(max(1.0, duration_seconds * _MOST_TASKS // about))
        raise UsageError(message, hint=f"--duration {shorter}, or a longer expectedRuntime if that is the truth")
    flows = WORKLOADS[workload](scenario.base_loads, budget=scenario.budget, duration=duration_seconds)
    coming = {name: list(arrivals(flow, chance(name), until=duration_seconds)) for name, flow in flows.items()}
    return Traffic(coming, duration_seconds, min(_WARMUP_SECONDS, duration_seconds / 10))


def recorded_traffic(
    scenario: Scenario,
    lines: Sequence[Line],
    *,
    source: str,
    duration_seconds: float | None,
    chance: Callable[[str], Chance],
) -> Traffic:
    """The arrivals of a file. A queue that several groups take from serves them in turns.

    Raises UsageError for a queue that nobody takes from.
    """
    turns = {queue: cycle(names) for queue, names in _takers(scenario).items()}
    draws = {base.name: _drawer(base, chance) for base in scenario.base_loads}
    coming: dict[str, list[Arrival]] = {base.name: [] for base in scenario.base_loads}
    for line in lines:
        if line.queue not in turns:
            message = f"{source}:{line.number}: no group takes from queue {line.queue!r}"
            raise UsageError(message, hint=did_you_mean(line.queue, turns))
        name = next(turns[line.queue])
        seconds = draws[name]() if line.runtime_seconds is None else line.runtime_seconds
        coming[name].append((line.at, seconds))
    end = duration_seconds or max(line.at + (line.runtime_seconds or 0.0) for line in lines) + 60.0
    return Traffic(coming, end)


def _takers(scenario: Scenario) -> dict[str, list[str]]:
    """Groups by queue; a group also answers to its own name."""
    takers: dict[str, list[str]] = {}
    for name, queues in scenario.queues.items():
        for queue in queues:
            takers.setdefault(queue, []).append(name)
    return {**{name: [name] for name in scenario.queues}, **takers}


def _drawer(base: BaseLoad, chance: Callable[[str], Chance]) -> Callable[[], float]:
    """How long a task of the group takes where the file does not say."""
    draw: Draw = lognormal(base.task_seconds, base.variation)
    own = chance(base.name)
    return lambda: draw(own)


def run_scenario(
    scenario: Scenario,
    traffic: Traffic,
    policy: str,
    *,
    watch: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> Outcome:
    """What becomes of it under a policy, which moves the groups that autoscale; ``watch``: with a timeline."""
    setting = Setting(
        scenario.stations,
        scenario.budget,
        traffic.duration_seconds,
        warmup_seconds=traffic.warmup_seconds,
        watch_seconds=traffic.duration_seconds / _LOOKS if watch else 0.0,
        fixed=scenario.fixed,
    )
    loads = {
        name: sum(seconds for _, seconds in coming) / traffic.duration_seconds
        for name, coming in traffic.arrivals.items()
    }
    moves = scenario.scaled_groups
    given = PolicyInput(moves.groups, moves.budget, moves.parameters, loads, moves.capacity)
    coming = {name: iter(one) for name, one in traffic.arrivals.items()}
    return simulate(setting, coming, POLICIES[policy if moves.groups else "static"](given), on_progress=on_progress)
