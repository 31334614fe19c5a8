"""A clock that runs BENCH_CLOCK_TIMES as fast, in every Python process that has this folder on its PYTHONPATH.

What waits for an amount of time in the loop or in a thread waits that much shorter. The broker's own clock stays, so it
is asked to answer a waiting connection that much later: else each would seem overdue and be made anew.
"""

from __future__ import annotations

import importlib.util
import os
import selectors
import sys
import threading
import time
from typing import Any

TIMES = float(os.environ.get("BENCH_CLOCK_TIMES", "1"))


def _faster(clock: Any) -> Any:
    began = clock()
    return lambda: began + (clock() - began) * TIMES


def _shorter(wait: Any) -> Any:
    def waits(self: Any, timeout: float | None = None) -> Any:
        return wait(self, timeout / TIMES if timeout is not None else None)

    return waits


class _LongerBlocks:
    """Changes the module that waits on Redis as it is imported."""

    def find_spec(self, name: str, *_: Any) -> Any:
        if name != "fleet.broker.channels.redis.waiting":
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        spec = importlib.util.find_spec(name)
        assert spec is not None
        loader: Any = spec.loader
        load = loader.exec_module

        def loads(module: Any) -> None:
            load(module)
            module.BLOCK_SECONDS = int(module.BLOCK_SECONDS * TIMES)

        loader.exec_module = loads
        return spec


if TIMES != 1:
    sys.meta_path.insert(0, _LongerBlocks())  # type: ignore[arg-type]
    time.time, time.monotonic = _faster(time.time), _faster(time.monotonic)
    threading.Condition.wait = _shorter(threading.Condition.wait)  # type: ignore[method-assign]
    selectors.EpollSelector.select = _shorter(selectors.EpollSelector.select)  # type: ignore[method-assign]
