"""What a Celery app says about acknowledgement, limits and ends of its tasks, as policies."""

from __future__ import annotations

from typing import Any

from fleet.worker.task.call import ChildLimits, TaskPolicy


def policy_of(task: Any) -> TaskPolicy:
    """The task's own settings, which fall back to the app's."""
    return TaskPolicy(
        late=bool(task.acks_late),
        time_limit_seconds=task.time_limit,
        soft_time_limit_seconds=task.soft_time_limit,
        dead_on_failure=not _flag(task, "acks_on_failure"),
        requeue_on_timeout=not _flag(task, "acks_on_timeout"),
        again_after_crash=task.reject_on_worker_lost is not False,
    )


def child_limits(conf: Any) -> ChildLimits:
    """``worker_max_tasks_per_child`` and ``worker_max_memory_per_child``, which Celery counts in KiB."""
    tasks, kibibytes = conf.worker_max_tasks_per_child, conf.worker_max_memory_per_child
    return ChildLimits(int(tasks) if tasks else None, int(kibibytes) * 1024 if kibibytes else None)


def _flag(task: Any, name: str) -> bool:
    """``acks_on_failure`` and ``acks_on_timeout`` of Celery 5.7; before that one setting stood for both."""
    value = getattr(task, name, None)
    return bool(task.acks_on_failure_or_timeout if value is None else value)
