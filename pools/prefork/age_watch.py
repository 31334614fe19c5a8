"""Watches the age of children: one that has become too old is to be replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from pools.loop import EventLoop
from pools.prefork.slot import Child, Slot

SPARE_SECONDS = 10.0
"""How often to look again at an old child that does not serve its slot yet."""


class AgeWatch:
    """Calls ``on_old(slot)`` when the child that serves the slot has reached its age."""

    def __init__(self, on_old: Callable[[Slot], object]) -> None:
        self._on_old = on_old
        self._loop: EventLoop | None = None

    def start(self, child: Child, seconds: float) -> None:
        """Call this many seconds from now, unless ``stop`` comes first. The timer is kept in ``child.age_timer``."""
        assert self._loop is not None
        child.age_timer = self._loop.call_later(seconds, partial(self._on_age, child))

    def stop(self, child: Child) -> None:
        """Do not call for this child. Does nothing when no timer runs."""
        if child.age_timer is not None:
            child.age_timer.cancel()

    def move_to(self, loop: EventLoop, children: Iterable[Child]) -> None:
        """Use the timers of this loop from now on, also for what was started on another one."""
        self._loop = loop
        for child in children:
            if child.age_timer is not None and child.age_timer.pending:
                child.age_timer = loop.call_at(child.age_timer.when, partial(self._on_age, child))

    def _on_age(self, child: Child) -> None:
        if child.slot.child is child:
            self._on_old(child.slot)
        else:  # a spare: it may become the child of its slot later
            self.start(child, SPARE_SECONDS)
