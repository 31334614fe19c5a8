"""What one group needs: its pace and what waits, as a number of slots."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from fleet.core.pace import Pace
from fleet.core.queueing import slots_needed
from fleet.core.samples import Sample
from fleet.core.scaling import Scaled, Tuning


@dataclass(frozen=True, slots=True)
class Lateness:
    """For how many looks in a row the oldest task has been too old and not getting younger."""

    age_seconds: float = 0.0
    looks: int = 0

    def then(self, age_seconds: float | None, target_seconds: float) -> Lateness:
        """After one more look."""
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


def demand(group: Scaled, sample: Sample, pace: Pace, lateness: Lateness, tuning: Tuning) -> Demand:
    """What the sample asks for, bounds and the other groups left aside."""
    found = _by_load(group, pace, tuning)
    if sample.queue:
        found = _with_backlog(found, group, sample, pace, tuning)
    if lateness.looks >= 2 and sample.ready <= sample.busy:
        found = _one_step_more(found, sample)
    return found


def _by_load(group: Scaled, pace: Pace, tuning: Tuning) -> Demand:
    """Enough for what comes, by queueing theory."""
    target, seconds = group.target_wait_seconds, pace.task_seconds
    want = slots_needed(pace.load, task_seconds=seconds, within_seconds=tuning.aim * target)
    need = slots_needed(pace.load, task_seconds=seconds, within_seconds=target)
    return Demand(need, want, want if pace.is_burst else 0, "burst" if pace.is_burst else "load")


def _with_backlog(found: Demand, group: Scaled, sample: Sample, pace: Pace, tuning: Tuning) -> Demand:
    """Enough to clear what will wait once new slots are there, and never more slots than tasks."""
    queue, target = sample.queue or 0, group.target_wait_seconds
    lead = group.start_seconds + tuning.tick_seconds
    soon = max(queue, queue + (pace.rate - sample.ready / pace.task_seconds) * lead)
    back = soon * pace.task_seconds / (tuning.aim * target)
    if target > lead:
        back = max(back, (queue * pace.task_seconds - sample.ready * lead) / (target - lead))
    useful = sample.busy + queue + ceil(pace.rate * lead)
    backlog = min(useful, ceil(back))
    return Demand(
        need=max(found.need, min(useful, ceil(back * tuning.aim))),
        want=max(found.want, backlog),
        urgent=max(found.urgent, backlog),
        why="backlog" if backlog > found.want else found.why,
    )


def _one_step_more(found: Demand, sample: Sample) -> Demand:
    """Tasks are late, it does not get better and nobody is idle: whatever the model says, it is wrong."""
    step = sample.has + max(1, sample.has // 4)
    raised = replace(found, need=max(found.need, step), urgent=max(found.urgent, step))
    return replace(raised, want=step, why="late") if found.want < step else raised
