"""A clock that runs BENCH_CLOCK_TIMES as fast, in every Python process that has this folder on its PYTHONPATH.

What waits for an amount of time in the loop or in a thread waits that much shorter. The broker's own clock stays.
"""

from __future__ import annotations

import os
import selectors
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


if TIMES != 1:
    time.time, time.monotonic = _faster(time.time), _faster(time.monotonic)
    threading.Condition.wait = _shorter(threading.Condition.wait)  # type: ignore[method-assign]
    selectors.EpollSelector.select = _shorter(selectors.EpollSelector.select)  # type: ignore[method-assign]
