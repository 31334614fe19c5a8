"""The methods that a pool of your own may override; ``BasePool`` calls them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pools.callbacks import Callbacks
from pools.handle import DoneCallback, Handle
from pools.loop import EventLoop

Target = Callable[..., Any]


class PoolHooks(Callbacks):
    """Everything a pool does in its own way. What stands here is right for a pool without slots of its own."""

    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    finalizer: Callable[[], object] | None
    _soft_timeout_callback: DoneCallback | None
    _hard_timeout_callback: DoneCallback | None

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
        raise NotImplementedError

    def on_cancel(self, handle: Handle) -> bool:  # noqa: ARG002
        """Take back a waiting handle (``handle.withdraw``); False when it has started."""
        return False

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
