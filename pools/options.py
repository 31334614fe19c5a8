"""Options and limits that a pool refuses, because it cannot keep them or because they make no sense."""

from __future__ import annotations

from pools.errors import PoolError
from pools.traits import TRAITS, Traits

LONGEST_LIMIT_SECONDS = 10 * 365 * 86_400.0
"""A longer time limit is taken for this one: timers and system calls overflow beyond it."""
LONGEST_WAIT_SECONDS = 86_400.0
"""Nobody waits longer in one system call; who wakes up too early waits again."""


def bounded(seconds: float | None) -> float | None:
    """A time limit that no clock or timer overflows over. ValueError for what is no number."""
    if seconds is None:
        return None
    if seconds != seconds:
        raise ValueError(f"{seconds} is no time limit")
    return float(min(seconds, LONGEST_LIMIT_SECONDS))


def require(traits: Traits, capability: str, what: str) -> None:
    """PoolError for a pool without this field of ``Traits``. what: the rest of "the … pool cannot …"."""
    if not getattr(traits, capability):
        able = ", ".join(sorted(row.name for row in TRAITS.values() if getattr(row, capability)))
        raise PoolError(f"the {traits.name} pool cannot {what}", hint=f"pools that can: {able}")


def check_time_limits(traits: Traits, soft: float | None, hard: float | None) -> None:
    """Seconds. PoolError where the pool cannot keep a limit, ValueError where it is not more than 0."""
    if soft is not None:
        require(traits, "soft_limit", "keep a soft time limit")
    if hard is not None:
        require(traits, "hard_limit", "keep a hard time limit")
    if (soft is not None and soft <= 0) or (hard is not None and hard <= 0):
        raise ValueError("a time limit is more than 0 seconds")


def check_slots(limit: int) -> None:
    """ValueError for a pool without slots."""
    if limit < 1:
        raise ValueError(f"a pool has at least one slot, not {limit}")


def check_options(
    traits: Traits,
    *,
    limit: int,
    max_tasks_per_child: int | None,
    max_memory_per_child_bytes: int | None,
    max_age_per_child_seconds: float | None,
    start_method: str,
) -> None:
    """PoolError for what a pool with these traits cannot do, ValueError for numbers that are too small."""
    check_slots(limit)
    if traits.fixed_slots not in (None, limit):
        raise PoolError(
            f"the {traits.name} pool has {traits.fixed_slots} slot, not {limit}",
            hint="run more workers, or use a pool with a variable number of slots",
        )
    if max_tasks_per_child is not None:
        require(traits, "recycle_tasks", "recycle its slots by number of tasks")
        if max_tasks_per_child < 1:
            raise ValueError("max_tasks_per_child is at least 1")
    if max_memory_per_child_bytes is not None:
        require(traits, "recycle_memory", "recycle its slots by memory")
    if max_age_per_child_seconds is not None:
        require(traits, "recycle_age", "recycle its slots by age")
        if max_age_per_child_seconds <= 0:
            raise ValueError("max_age_per_child_seconds is more than 0")
    if start_method != "fork" and not traits.own_processes:
        raise PoolError(f"the {traits.name} pool starts no processes: start_method {start_method!r} means nothing")
