"""One greenlet of gevent per task: thousands of waiting tasks in one thread.

How limits and ends reach a task, and which task they do not reach, is told in :mod:`pools.green_limits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import gevent.hub
import gevent.pool

from pools.green import GreenPool
from pools.green_limits import Cancel
from pools.traits import TRAITS


class GeventPool(GreenPool):
    """Runs tasks in a ``gevent.pool.Pool``."""

    traits = TRAITS["gevent"]

    def __init__(self, limit: int = 1, **options: Any) -> None:
        super().__init__(limit, **options)
        # Without a size of its own: a full gevent pool makes the caller wait, and the caller is the worker's loop.
        self._pool = gevent.pool.Pool()

    def _spawn(self, function: Callable[..., object], *args: Any) -> None:
        self._pool.spawn(function, *args)

    def in_hub_after(self, seconds: float, function: Callable[[], object]) -> Cancel:
        loop = gevent.get_hub().loop
        if seconds <= 0:
            callback = loop.run_callback(function)
            return lambda: callback.stop()
        timer = loop.timer(seconds)
        timer.start(function)
        return lambda: (timer.stop(), timer.close())

    def _is_hub(self) -> bool:
        return gevent.getcurrent() is gevent.get_hub()

    def _join(self, timeout_seconds: float) -> None:
        gevent.sleep(0)
        self._pool.join(timeout_seconds)

    @staticmethod
    def take_new_hub() -> None:
        gevent.hub.set_hub(gevent.hub.Hub(default=False))
