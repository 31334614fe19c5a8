"""What Celery's own worker cannot honour, and what only it can."""

from __future__ import annotations

from fleet.core.manifest.base_model import Model
from fleet.core.manifest.checks.context import CheckContext
from fleet.core.manifest.models import Group, Pool, Task
from fleet.core.manifest.tree import Path
from fleet.core.text.format import duration, shown


def celery(context: CheckContext, path: Path, group: Group) -> None:
    pool, task, logs = group.pool or Pool.empty(), group.task or Task.empty(), group.logging
    if group.worker != "celery" or group.command is not None:
        if pool.min_concurrency is not None:
            hint = "remove it; with `autoscale` the controller moves slots between groups"
            message = "minConcurrency is for `worker: celery`: fleet's own worker keeps its slots"
            context.problem((*path, "pool", "minConcurrency"), message, hint)
        return
    unable: dict[Path, object] = {
        ("pool", "type"): pool.type if pool.type == "asyncio" else None,
        ("pool", "maxAgePerChild"): None if pool.max_age_per_child is None else duration(pool.max_age_per_child),
        ("pool", "startMethod"): pool.start_method,
        ("task", "maxAttempts"): task.max_attempts,
        ("task", "lookAhead"): _look_ahead(task),
        ("task", "rateLimits"): ", ".join(task.rate_limits) if task.rate_limits else None,
        ("task", "deadLetters"): task.dead_letters,
        ("logging", "format"): logs.format if logs and logs.format == "json" else None,
        ("logging", "to"): logs.to if logs and logs.to != "file" else None,
        ("remoteControl",): None if group.remote_control is None else _fields(group.remote_control),
        **{("queues", name, "priority"): queue.priority for name, queue in (group.queues or {}).items()},
    }
    for below, value in unable.items():
        if value is not None:
            hint = "remove it, or use fleet's own worker (`worker: fleet`)"
            context.problem((*path, *below), f"celery's worker cannot honour {below[-1]} {shown(value)}", hint)
    if pool.concurrency is not None and (uneven := uneven_prefetch(task.prefetch, pool.concurrency)):
        context.problem((*path, "task", "prefetch"), *uneven)
    _min_concurrency(context, (*path, "pool", "minConcurrency"), pool)


def uneven_prefetch(prefetch: int | None, slots: int) -> tuple[str, str] | None:
    """Message and hint where Celery's worker, which holds a whole multiple of its slots, cannot hold this many."""
    if prefetch is None or prefetch % slots == 0:
        return None
    near = max(1, round(prefetch / slots)) * slots
    return f"celery's worker with {slots} slots cannot hold {prefetch} messages", f"write a multiple of {slots}: {near}"


def _min_concurrency(context: CheckContext, path: Path, pool: Pool) -> None:
    least = pool.min_concurrency
    if least is None:
        return
    if pool.type in ("solo", "threads"):
        context.problem(path, f"pool {pool.type} keeps its slots", "remove it, or take prefork, gevent or eventlet")
    elif pool.concurrency is not None and least > pool.concurrency:
        message = f"minConcurrency {least} is more than concurrency {pool.concurrency}"
        context.problem(path, message, "lower it or raise concurrency")


def _look_ahead(task: Task) -> str | None:
    ahead = task.look_ahead
    if ahead is None or isinstance(ahead, str):
        return None if ahead == "off" else ahead
    return _fields(ahead)


def _fields(part: Model) -> str:
    return ", ".join(sorted(part.written()))
