"""What one group needs: its load and what waits, as a number of slots."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from fleet.core.autoscale.erlang_formula import slots_needed
from fleet.core.autoscale.load import Load
from fleet.core.autoscale.parameters import Parameters, ScaledGroup
from fleet.core.autoscale.sample import Sample


@dataclass(frozen=True, slots=True)
class Lateness:
    """For how many looks in a row the oldest task has been too old and not getting younger."""

    age_seconds: float = 0.0
    looks: int = 0

    def then(self, age_seconds: float | None, target_seconds: float) -> Lateness:
        """After one more look. None: the age could not be measured."""
        if age_seconds is None:
            return Lateness(self.age_seconds, 0)
        is_late = age_seconds > target_seconds and age_seconds >= self.age_seconds
        return Lateness(age_seconds, self.looks + 1 if is_late else 0)


@dataclass(frozen=True, slots=True)
class Demand:
    """Slots for one group: what it cannot do without, what it would like, what of that must not wait, and why."""

    need: int
    want: int
    urgent: int
    why: str


def demand(group: ScaledGroup, sample: Sample, load: Load, lateness: Lateness, parameters: Parameters) -> Demand:
    """What the sample asks for, bounds and the other groups left aside."""
    found = _by_load(group, load, parameters)
    if sample.queue:
        found = _with_backlog(found, group, sample, load, parameters)
    if lateness.looks >= 2 and sample.ready <= sample.busy:
        found = _one_step_more(found, sample)
    return found


def _by_load(group: ScaledGroup, load: Load, parameters: Parameters) -> Demand:
    """Enough for what comes, by queueing theory."""
    target, seconds = group.target_wait_seconds, load.task_seconds
    want = slots_needed(load.busy_slots, task_seconds=seconds, within_seconds=parameters.aim * target)
    need = slots_needed(load.busy_slots, task_seconds=seconds, within_seconds=target)
    return Demand(need, want, want if load.is_burst else 0, "burst" if load.is_burst else "load")


def _with_backlog(found: Demand, group: ScaledGroup, sample: Sample, load: Load, parameters: Parameters) -> Demand:
    """Enough to clear what will wait once new slots are there, and never more slots than tasks."""
    queue, target = sample.queue or 0, group.target_wait_seconds
    lead = group.start_seconds + parameters.tick_seconds
    soon = max(queue, queue + (load.rate - sample.ready / load.task_seconds) * lead)
    back = soon * load.task_seconds / (parameters.aim * target)
    if target > lead:
        back = max(back, (queue * load.task_seconds - sample.ready * lead) / (target - lead))
    useful = sample.busy + queue + ceil(load.rate * lead)
    backlog = min(useful, ceil(back))
    return Demand(
        need=max(found.need, min(useful, ceil(back * parameters.aim))),
        want=max(found.want, backlog),
        urgent=max(found.urgent, backlog),
        why="backlog" if backlog > found.want else found.why,
    )


def _one_step_more(found: Demand, sample: Sample) -> Demand:
    """Tasks are late, it does not get better and no slot is idle: the model is wrong."""
    step = sample.has + max(1, sample.has // 4)
    raised = replace(found, need=max(found.need, step), urgent=max(found.urgent, step))
    return replace(raised, want=step, why="late") if found.want < step else raised
