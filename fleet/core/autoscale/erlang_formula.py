"""How many slots a load needs so that tasks do not wait too long: Erlang's formula for queues that wait."""

from __future__ import annotations

from math import ceil, exp, log, sqrt

LATE = 0.05
"""The part of the tasks that may wait longer than the target."""

_MANY = 400.0


def slots_needed(load: float, *, task_seconds: float, within_seconds: float, late: float = LATE) -> int:
    """The fewest slots with which no more than ``late`` of the tasks wait longer than ``within_seconds``."""
    if load <= 0 or task_seconds <= 0:
        return 0
    if load > _MANY:
        return ceil(load + max(1.0, _spare(load, task_seconds / max(within_seconds, 1e-9), late)))
    slots, blocked = 0, 1.0
    while True:
        slots += 1
        blocked = load * blocked / (slots + load * blocked)
        if slots <= load:
            continue
        if _waiting(blocked, slots, load) * exp(-(slots - load) * within_seconds / task_seconds) <= late:
            return slots


def _waiting(blocked: float, slots: int, load: float) -> float:
    """Erlang C, the chance that a task must wait, from Erlang B."""
    return blocked / (1.0 - load / slots * (1.0 - blocked))


def _spare(load: float, tasks_per_target: float, late: float) -> float:
    """Beyond some hundred slots: enough that hardly any task waits, or that those that do wait briefly."""
    return min(2.0 * sqrt(load), -log(late) * tasks_per_target)
