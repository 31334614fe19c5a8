"""What each kind of pool can do: the published table, PURE and importable without any pool.

The planner reads it (what a pool cannot do is refused at ``validate``, never silently ignored) and every pool class
takes its flags from its row, so the table cannot disagree with the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

GREEN_SLOTS = 100
"""Of pools whose slots cost next to nothing."""


@dataclass(frozen=True, slots=True)
class Traits:
    """Capabilities of one kind of pool.

    blocking_calls: a task may block in C or in the kernel without stopping its neighbours.
    multiprocessing: a task may use ``multiprocessing.Pool`` and its queues; they wait in the kernel, where no hub runs.
    library: what must be installed besides the standard library.
    own_processes: slots are processes of their own (``processes = concurrency + 1``, else 1).
    reaches_waiting, reaches_computing: limits and ``terminate_job`` end a task that waits in a blocking call, or
    computes without a pause. Where they do not, the hard limit gives the task up and asks for another process.
    """

    name: str
    summary: str
    library: str = ""
    fixed_slots: int | None = None
    own_processes: bool = False
    is_green: bool = False
    signal_safe: bool = False
    soft_limit: bool = False
    hard_limit: bool = False
    terminate: bool = False
    reaches_waiting: bool = True
    reaches_computing: bool = True
    resize: bool = False
    recycle_tasks: bool = False
    recycle_memory: bool = False
    recycle_age: bool = False
    task_children: bool = True
    multiprocessing: bool = True
    blocking_calls: bool = True
    async_tasks: bool = False
    parallel_cpu: bool = False
    start_seconds: float = 0.0

    def slots(self, asked: int | None, *, cpus: int) -> int:
        """How many slots it has. asked: as somebody says; None: nobody does."""
        return self.fixed_slots or asked or (GREEN_SLOTS if self.is_green or self.async_tasks else max(1, cpus))


_ROWS = (
    Traits(
        "solo",
        "one task at a time, inline in the main thread of its own process",
        fixed_slots=1,
        signal_safe=True,
        soft_limit=True,
        hard_limit=True,
        terminate=True,
        parallel_cpu=False,
        start_seconds=3.0,
    ),
    Traits(
        "prefork",
        "one child process per slot",
        library="billiard",
        own_processes=True,
        signal_safe=True,
        soft_limit=True,
        hard_limit=True,
        terminate=True,
        resize=True,
        recycle_tasks=True,
        recycle_memory=True,
        recycle_age=True,
        parallel_cpu=True,
        start_seconds=0.2,
    ),
    Traits(
        "threads",
        "one thread per slot",
        soft_limit=True,
        hard_limit=True,
        terminate=True,
        reaches_waiting=False,
        resize=True,
    ),
    Traits(
        "gevent",
        "one greenlet per slot",
        library="gevent",
        is_green=True,
        soft_limit=True,
        hard_limit=True,
        terminate=True,
        resize=True,
        multiprocessing=False,
        blocking_calls=False,
    ),
    Traits(
        "eventlet",
        "one green thread per slot (its project calls eventlet deprecated: prefer gevent)",
        library="eventlet",
        is_green=True,
        soft_limit=True,
        hard_limit=True,
        terminate=True,
        resize=True,
        task_children=False,
        multiprocessing=False,
        blocking_calls=False,
    ),
    Traits(
        "asyncio",
        "one asyncio task per slot",
        soft_limit=True,
        hard_limit=True,
        terminate=True,
        reaches_waiting=True,
        reaches_computing=False,
        resize=True,
        blocking_calls=False,
        async_tasks=True,
    ),
    Traits("custom", "a pool class of yours"),
)

TRAITS = MappingProxyType({row.name: row for row in _ROWS})
"""Name -> row, in the order people read it."""
