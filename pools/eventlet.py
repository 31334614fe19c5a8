"""One green thread of eventlet per task. For programs that need eventlet: its own project calls it deprecated.

How limits and ends reach a task, and which task they do not reach, is told in :mod:`pools.green_limits`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pools.green import GreenPool
from pools.green_limits import Cancel
from pools.handle import Handle
from pools.hooks import Target
from pools.patching import import_green, require_installed, require_patched
from pools.traits import TRAITS

# Its mere import changes a process: from then on each fork warns. So it is not imported where it could not be used.
require_installed("eventlet")
require_patched("eventlet")
eventlet = import_green("eventlet", "eventlet")
hubs = import_green("eventlet", "eventlet.hubs")

OnLifecycle = Callable[..., object]


class EventletPool(GreenPool):
    """Runs tasks in an ``eventlet.GreenPool``.

    on_lifecycle(what, pool, **facts): ``started``, ``preshutdown``, ``postshutdown``, and ``apply`` with ``target``,
    ``args`` and ``kwargs``: the moments for which Celery has signals of its own.
    """

    traits = TRAITS["eventlet"]

    def __init__(self, limit: int = 1, *, on_lifecycle: OnLifecycle | None = None, **options: Any) -> None:
        super().__init__(limit, **options)
        self._on_lifecycle = on_lifecycle
        # Without a size of its own: a full GreenPool makes the caller wait, and the caller is the worker's loop.
        self._pool = eventlet.GreenPool(sys.maxsize)

    @property
    def info(self) -> dict[str, Any]:
        return {**super().info, "free-threads": self.free_slots, "running-threads": self.busy_slots}

    def on_start(self) -> None:
        self.log.warning("eventlet is deprecated by its own project; the gevent pool runs the same tasks")
        super().on_start()
        self._tell("started")

    def on_stop(self) -> None:
        self._tell("preshutdown")
        super().on_stop()
        self._tell("postshutdown")

    def on_terminate(self) -> None:
        self._tell("preshutdown")
        super().on_terminate()
        self._tell("postshutdown")

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        if self._on_lifecycle is not None:
            self._tell("apply", target=target, args=args, kwargs=kwargs)
        super().on_apply(handle, target, args, kwargs)

    def _tell(self, what: str, **facts: Any) -> None:
        if self._on_lifecycle is None:
            return
        try:
            self._on_lifecycle(what, self, **facts)
        except Exception:
            self.log.exception("on_lifecycle failed for %r", what)

    def _spawn(self, function: Callable[..., object], *args: Any) -> None:
        self._pool.spawn_n(function, *args)

    def in_hub_after(self, seconds: float, function: Callable[[], object]) -> Cancel:
        timer = hubs.get_hub().schedule_call_global(seconds, function)
        return lambda: timer.cancel()

    def _is_hub(self) -> bool:
        return eventlet.getcurrent() is hubs.get_hub().greenlet

    def _join(self, timeout_seconds: float) -> None:
        eventlet.sleep(0)
        with eventlet.Timeout(timeout_seconds or None, False):
            if timeout_seconds:
                self._pool.waitall()

    @staticmethod
    def take_new_hub() -> None:
        hubs.use_hub()
