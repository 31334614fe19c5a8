"""What a kind of pool cannot honour, from the table that the pools themselves use."""

from __future__ import annotations

from fleet.core.manifest.models import Pool, Task
from fleet.core.manifest.tree import Path
from pools.traits import TRAITS


def pool_refusals(pool: Pool, task: Task, kind: str) -> list[tuple[Path, str, str]]:
    """What a kind of pool cannot honour: (path below the group, message, hint). A custom class knows for itself."""
    traits = TRAITS[kind]
    if kind == "custom":
        return []
    refused: list[tuple[Path, str, str]] = []
    if traits.fixed_slots is not None and pool.concurrency not in (None, traits.fixed_slots):
        hint = f"write `replicas: {pool.concurrency}` for as many {kind} workers, or take prefork or threads"
        message = f"{kind} has {traits.fixed_slots} slot, not {pool.concurrency}"
        refused.append((("pool", "concurrency"), message, hint))
    asked = {
        ("pool", "maxTasksPerChild"): (pool.max_tasks_per_child, "recycle_tasks"),
        ("pool", "maxMemoryPerChild"): (pool.max_memory_per_child, "recycle_memory"),
        ("pool", "maxAgePerChild"): (pool.max_age_per_child, "recycle_age"),
        ("pool", "startMethod"): (pool.start_method, "own_processes"),
        ("task", "timeLimit"): (task.time_limit, "hard_limit"),
        ("task", "softTimeLimit"): (task.soft_time_limit, "soft_limit"),
    }
    for path, (value, trait) in asked.items():
        if value is not None and not getattr(traits, trait):
            able = [name for name, row in TRAITS.items() if getattr(row, trait)]
            hint = f"remove it (null, when it comes from defaults), or take a pool that can: {', '.join(able)}"
            refused.append((path, f"{kind} cannot honour {path[-1]}", hint))
    return refused
