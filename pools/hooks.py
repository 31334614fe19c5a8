"""What a pool of your own may override, and what it has to run a task with; ``BasePool`` calls these methods."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pools.callbacks import Callbacks, SlotCallback
from pools.handle import DoneCallback, Handle
from pools.loop import EventLoop

Target = Callable[..., Any]


class PoolHooks(Callbacks):
    """Everything a pool does in its own way. As it is here, a task runs at once in the thread that calls."""

    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    finalizer: Callable[[], object] | None
    _soft_timeout_callback: DoneCallback | None
    _hard_timeout_callback: DoneCallback | None

    def __init__(self, *, log: logging.Logger, on_slot: SlotCallback | None) -> None:
        super().__init__(log=log, on_slot=on_slot)
        self._running_here: set[Handle] = set()

    @property
    def room_for_quick(self) -> int:
        """How many quick tasks, beyond the free slots, could wait in slots behind other quick ones now."""
        return 0

    @property
    def quick_seconds(self) -> float:
        """Tasks expected to run no longer than this may wait in slots, each behind another such, and begin there
        without a word from here. One that takes longer after all does not keep those behind it. 0.0: none may; so at
        first, and always in pools whose slots can be given one task at a time only."""
        return 0.0

    @quick_seconds.setter
    def quick_seconds(self, seconds: float) -> None:
        pass

    def on_register(self, loop: EventLoop) -> None:
        """A loop was given; ``self.loop`` is set."""

    def on_start(self) -> None:
        """Make ``self.limit`` slots."""
        if self.initializer is not None:
            self.initializer(*self.initargs)

    def on_close(self) -> None:
        """No new work comes from now on. Must not wait."""

    def on_stop(self) -> None:
        """Wait until all accepted tasks are done, then give up the slots."""
        if self.finalizer is not None:
            self.finalizer()

    def on_terminate(self) -> None:
        """Give up the slots at once; complete all handles."""
        self.on_stop()

    def on_apply(self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Bring the task to a slot; there, ``self.run`` runs it and completes the handle. Must not raise."""
        self.run(handle, target, args, kwargs)

    def on_cancel(self, handle: Handle) -> bool:  # noqa: ARG002
        """Take back a waiting handle (``handle.withdraw``); False when it has started."""
        return False

    def take_back(self, handles: Sequence[Handle]) -> list[Handle]:
        """Take back those of these tasks that have not started; their handles, in order, now cancelled."""
        return [handle for handle in handles if handle.cancel()]

    def on_terminate_job(self, which: Handle | int, signum: int) -> bool:
        """End the running task of this handle, or of the slot with this pid; False when there is none."""
        raise NotImplementedError

    def on_grow(self, count: int) -> None:
        """Add ``count`` slots to ``self.limit``, and start them."""
        raise NotImplementedError

    def on_shrink(self, count: int) -> None:
        """Take ``count`` slots from ``self.limit``; a busy slot ends after its task."""
        raise NotImplementedError

    def on_restart(self) -> None:
        """Replace the processes of all slots, each after its task."""
        raise NotImplementedError

    def on_soft_timeout(self, handle: Handle) -> None:
        """The pool has found that a task has reached its soft limit."""
        if self._soft_timeout_callback is not None:
            self.notify(self._soft_timeout_callback, handle)

    def on_hard_timeout(self, handle: Handle) -> None:
        """The pool has found that a task has reached its hard limit."""
        if self._hard_timeout_callback is not None:
            self.notify(self._hard_timeout_callback, handle)

    # -- for subclasses

    def run(
        self, handle: Handle, target: Target, args: Sequence[Any], kwargs: Mapping[str, Any], slot: int = 0
    ) -> None:
        """Run a task here and now and complete its handle.

        Whatever the task raises is its failure and stays in the handle, SystemExit too. Only KeyboardInterrupt also
        goes on to the caller: it comes from outside of the task, and a worker may derive its own interruption from
        it.
        """
        self._accept(handle, slot)
        try:
            value = target(*args, **kwargs)
        except BaseException as error:
            self._running_here.discard(handle)
            handle.fail(error, time.monotonic())
            if isinstance(error, KeyboardInterrupt):
                raise
        else:
            self._running_here.discard(handle)
            handle.succeed(value, time.monotonic())
        finally:
            if self.on_slot is not None:
                self.tell_slot(slot, handle.pid, "idle")

    def _accept(self, handle: Handle, slot: int) -> None:
        self._running_here.add(handle)  # a set: a subclass may run its tasks in threads, and this is atomic
        pid, now = os.getpid(), time.monotonic()
        handle.begin(slot, pid, now)
        if handle.accept_callback is not None:
            self.accepted(handle, now)
        if self.on_slot is not None:
            self.tell_slot(slot, pid, "busy")
