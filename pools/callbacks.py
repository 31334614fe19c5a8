"""How a pool calls back: in the thread of its loop, and without being harmed by a callback that raises."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pools.handle import DoneCallback, Handle
from pools.loop import EventLoop

SlotCallback = Callable[[int, int, str], object]
"""``on_slot(index, pid, state)``"""


class Callbacks:
    """loop: where callbacks are called, None: in the thread where something happens.  on_slot: told of each change."""

    def __init__(self, *, log: logging.Logger, on_slot: SlotCallback | None) -> None:
        self.log = log
        self.on_slot = on_slot
        self.loop: EventLoop | None = None

    def accepted(self, handle: Handle, now: float) -> None:
        """Call the accept callback, the first time only: a task put back after its slot died was accepted before.

        now: ``time.monotonic()`` when a slot took the task.
        """
        callback, handle.accept_callback = handle.accept_callback, None
        if callback is not None:
            self._in_loop_thread(handle, callback, handle.pid, now)

    def notify(self, callback: DoneCallback, handle: Handle) -> None:
        """Call ``callback(handle)`` in the loop's thread. An exception of the callback is logged."""
        self._in_loop_thread(handle, callback, handle)

    def tell_slot(self, index: int, pid: int, state: str) -> None:
        """Call ``on_slot`` here and now. An exception of it is logged."""
        if self.on_slot is not None:
            try:
                self.on_slot(index, pid, state)
            except Exception:
                self.log.exception("on_slot failed for slot %d", index)

    def _in_loop_thread(self, handle: Handle, callback: Callable[..., object], *args: Any) -> None:
        loop = self.loop
        if loop is None or loop.closed or loop.in_thread:
            self._call_back(handle, callback, *args)
        else:
            loop.call_soon_threadsafe(lambda: self._call_back(handle, callback, *args))

    def _call_back(self, handle: Handle, callback: Callable[..., object], *args: Any) -> None:
        try:
            callback(*args)
        except Exception:
            self.log.exception("a callback of %r failed", handle)
