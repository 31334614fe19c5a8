"""How a pool calls back: in the thread of its loop, and without being harmed by a callback that raises."""

from __future__ import annotations

import logging
from collections.abc import Callable

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
            pid = handle.pid
            self._in_loop_thread(lambda: callback(pid, now), handle)

    def notify(self, callback: DoneCallback, handle: Handle) -> None:
        """Call ``callback(handle)`` in the loop's thread. An exception of the callback is logged."""
        loop = self.loop
        if loop is not None and not loop.closed and not loop.in_thread:
            loop.call_soon_threadsafe(lambda: self._call_back(lambda: callback(handle), handle))
            return
        try:  # as ``_call_back``, without a function made for each task
            callback(handle)
        except Exception:
            self.log.exception("a callback of %r failed", handle)

    def tell_slot(self, index: int, pid: int, state: str) -> None:
        """Call ``on_slot`` here and now. An exception of it is logged."""
        if self.on_slot is not None:
            try:
                self.on_slot(index, pid, state)
            except Exception:
                self.log.exception("on_slot failed for slot %d", index)

    def _in_loop_thread(self, call: Callable[[], object], handle: Handle) -> None:
        loop = self.loop
        if loop is None or loop.closed or loop.in_thread:
            self._call_back(call, handle)
        else:
            loop.call_soon_threadsafe(lambda: self._call_back(call, handle))

    def _call_back(self, call: Callable[[], object], handle: Handle) -> None:
        try:
            call()
        except Exception:
            self.log.exception("a callback of %r failed", handle)
