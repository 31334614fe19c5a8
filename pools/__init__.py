"""Execution pools: how a worker runs tasks, whatever feeds it.

    from pools import get_pool

    with get_pool("prefork", 4) as pool:
        print(pool.apply_async(pow, (2, 100)).result())

Importing this package costs nothing: each name is imported when it is first used, and the engine of a pool when it is
asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pools.base import BasePool, PoolState
    from pools.errors import (
        HardTimeLimit,
        Killed,
        MemoryLimit,
        PoolClosed,
        PoolError,
        PoolUnavailable,
        SlotLost,
        SoftTimeLimit,
        Terminated,
        Unpicklable,
    )
    from pools.handle import Handle, HandleState
    from pools.loop import EventLoop, Timer
    from pools.registry import available, get_pool, pool_class
    from pools.traits import TRAITS, Traits

_HOMES = {
    "pools.base": ("BasePool", "PoolState"),
    "pools.errors": (
        "HardTimeLimit",
        "Killed",
        "MemoryLimit",
        "PoolClosed",
        "PoolError",
        "PoolUnavailable",
        "SlotLost",
        "SoftTimeLimit",
        "Terminated",
        "Unpicklable",
    ),
    "pools.handle": ("Handle", "HandleState"),
    "pools.loop": ("EventLoop", "Timer"),
    "pools.registry": ("available", "get_pool", "pool_class"),
    "pools.traits": ("TRAITS", "Traits"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "TRAITS",
    "BasePool",
    "EventLoop",
    "Handle",
    "HandleState",
    "HardTimeLimit",
    "Killed",
    "MemoryLimit",
    "PoolClosed",
    "PoolError",
    "PoolState",
    "PoolUnavailable",
    "SlotLost",
    "SoftTimeLimit",
    "Terminated",
    "Timer",
    "Traits",
    "Unpicklable",
    "available",
    "get_pool",
    "pool_class",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'pools' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
