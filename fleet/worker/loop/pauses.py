"""How long the loop may wait: until something is due, and at rest longer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sized
from typing import TYPE_CHECKING

from fleet.broker.channels.base import TEND_SECONDS
from fleet.worker.lifecycle import State

if TYPE_CHECKING:
    from fleet.worker.loop.parts import LoopParts

MANY = 32
"""So many times as many as have ended must run for a pause to be worth it."""
GATHER_SECONDS = 0.001


def gather_seconds(*, ended: int, running: int) -> float:
    """How long to let tasks end before the next turn, when so many have ended in the last one.

    A turn costs nearly as much for one as for twenty: where many run and end one by one, it waits for a few.
    """
    return GATHER_SECONDS if 0 < ended * MANY <= running else 0.0


class Pauses:
    """Of one worker. done: what the pool has finished and nobody has settled yet.

    rests: whether the worker rests until its next tick, as far as nothing wakes it.
    looks: each gives when its next look is due (monotonic), None where none is; a rest ends in time for it.
    """

    def __init__(self, parts: LoopParts, done: Sized) -> None:
        self._parts = parts
        self._done = done
        self.rests = False
        self.looks: list[Callable[[], float | None]] = []

    def until_tick(self, now: float) -> float:
        """Seconds to the next tick. With nothing in hand a worker rests: what comes wakes it, an operator too."""
        pause = self._until_tick(now)
        self._parts.channel.tend_at = now + pause
        self.rests = pause > TEND_SECONDS
        return pause

    def _until_tick(self, now: float) -> float:
        parts = self._parts
        if not parts.fetching.is_quiet(now) or not self._is_empty_handed:
            return TEND_SECONDS
        may_rest = parts.life.state in (State.READY, State.HELD) and parts.connection.up
        if not may_rest or parts.settings.autoscaler is not None:
            return TEND_SECONDS
        due = [at - now for look in self.looks if (at := look()) is not None]
        return max(TEND_SECONDS, min(parts.channel.rest_seconds, *due, math.inf))

    def gather(self, ended: int) -> None:
        """Let more tasks end where many run and few have."""
        if seconds := gather_seconds(ended=ended, running=len(self._parts.inflight.running)):
            time.sleep(seconds)

    def until_due(self, tick_at: float) -> float:
        """Seconds until something is due, the next tick included. Times are monotonic."""
        if self._parts.life.stopped:
            return 0.0
        now, fetching = time.monotonic(), self._parts.fetching
        until = tick_at
        if (due_at := self._parts.inflight.next_due_at) is not None:
            until = min(until, now + due_at - time.time())
        for at in (fetching.next_at, fetching.keeps_ahead_until):
            until = until if at is None else min(until, at)
        return max(0.0, until - now)

    @property
    def _is_empty_handed(self) -> bool:
        parts = self._parts
        return not (parts.inflight.count or self._done or parts.settlement.debts or parts.channel.pushed)
