"""When to ask the channel for messages, and for how many."""

from __future__ import annotations

import time
from typing import NamedTuple

from fleet.broker.channels.base import QUIET_SECONDS, TEND_SECONDS, Channel
from fleet.broker.delivery import Delivery
from fleet.replica.record import Record
from fleet.worker.lifecycle import Lifecycle
from fleet.worker.loop.connection import Connection
from fleet.worker.loop.inflight import MOST_DELAYED, InFlight
from fleet.worker.loop.look_ahead import LookAhead
from fleet.worker.loop.settlement import Settlement
from fleet.worker.task.listeners import RateGate
from pools.base import BasePool

_SPANS = 4
"""What was taken ahead may be late by so many spans before it goes back: slots are busy, or the machine is."""


class _Asked(NamedTuple):
    """The channel brought all there was and waits for more. wanted: how many, 0 for none.

    again_at: when to fetch in any case (monotonic), since not every transport says when a message has come.
    on_time: whether the loop is to wake for that; else the first turn after it will do.
    """

    wanted: int
    again_at: float
    on_time: bool


class Fetching:
    """Asks for what free slots can take. ``got_at``: when a fetch last brought something (monotonic).
    ``traced``: deliveries are to say when they were asked for.

    ``_asked`` is None while the next turn is to fetch in any case: at first, after a fetch that brought all it wanted
    (there may be more), and after ``ask_again``.
    """

    def __init__(
        self,
        channel: Channel,
        connection: Connection,
        *,
        pool: BasePool,
        life: Lifecycle,
        inflight: InFlight,
        settlement: Settlement,
        record: Record,
        rate_gate: RateGate,
        look_ahead: LookAhead,
        prefetch: int | None,
    ) -> None:
        self._channel = channel
        self._connection = connection
        self._pool = pool
        self._life = life
        self._inflight = inflight
        self._settlement = settlement
        self._record = record
        self._rate_gate = rate_gate
        self._look_ahead = look_ahead
        self._asked: _Asked | None = None
        self._took_ahead = False
        self.prefetch = prefetch
        self.got_at = time.monotonic()
        self.traced = False

    def fetch_due(self, now: float) -> list[Delivery]:
        """Fetch if it is due; what it brings. Raises ChannelLost."""
        wanted = self._wanted()
        if not self._is_due(now, wanted):
            return []
        ahead = self._look_ahead.count if wanted else 0
        pool_room = self._pool.free_slots - len(self._inflight.waiting)
        began = time.monotonic() if self.traced else 0.0
        found = self._channel.fetch(wanted, ahead)
        if self.traced:
            for delivery in found:
                delivery.asked_at = began
        if self._pool.quick_seconds and any("x-delivery-count" in delivery.headers for delivery in found):
            self._pool.quick_seconds = 0.0  # a quorum queue counts what is given back, and buries it after some times
        if wanted:
            self._took_ahead = len(found) > pool_room
        self._note(now, wanted, len(found))
        return found

    def ask_again(self) -> None:
        """Something has changed that the channel does not know: fetch with the next turn."""
        self._asked = None

    @property
    def next_at(self) -> float | None:
        """When the loop must wake for the next fetch (monotonic); None where it need not."""
        asked = self._asked
        is_needed = asked is not None and asked.wanted > 0 and asked.on_time and self._connection.up
        return asked.again_at if asked is not None and is_needed else None

    @property
    def keeps_ahead_until(self) -> float | None:
        """When what was taken ahead and has not started goes back (monotonic); None where there is nothing."""
        inflight = self._inflight
        is_ahead = bool(inflight.in_slots) or (self._took_ahead and bool(inflight.waiting))
        if self.prefetch is not None or not is_ahead or not self._connection.up:
            return None
        return self.got_at + _SPANS * self._look_ahead.seconds

    @property
    def wants(self) -> bool:
        """Whether a message that came now would start now."""
        return self._connection.up and self._pool.free_slots > 0 and self._wanted() > 0

    def is_quiet(self, now: float) -> bool:
        """Whether no message has come for a while."""
        return now - self.got_at >= QUIET_SECONDS

    @property
    def is_sated(self) -> bool:
        """Whether what waits here for its date or its rate is enough."""
        return self._inflight.delayed_count >= MOST_DELAYED or self._rate_gate.full

    def _wanted(self) -> int:
        if not self._life.takes_work or self.is_sated:
            return 0
        pool, inflight = self._pool, self._inflight
        if self.prefetch is None:
            extra = max(0, min(pool.room_for_quick, self._look_ahead.most - len(inflight.in_slots)))
        else:
            extra = max(0, self.prefetch - pool.limit)
        return max(0, pool.free_slots + extra - len(inflight.waiting) - len(inflight.unreported))

    def _is_due(self, now: float, wanted: int) -> bool:
        asked = self._asked
        if asked is None or wanted != asked.wanted or self._connection.readable:
            return True
        return wanted > 0 and now >= asked.again_at

    def _note(self, now: float, wanted: int, got: int) -> None:
        self._settlement.on_fetched()
        self._connection.readable = False
        if got:
            self.got_at = now
        if wanted:
            self._record.consumed_at = time.time()
        if got and got >= wanted:
            self._asked = None
            return
        poll, is_quiet = self._channel.poll_seconds, self.is_quiet(now)
        pause = self._channel.rest_seconds if is_quiet else TEND_SECONDS
        if poll is not None and poll < pause:
            self._asked = _Asked(wanted, now + poll, on_time=True)
        else:
            # At rest the loop wakes by itself as often: with that, and not with the time after it.
            early = TEND_SECONDS if is_quiet else 0.0
            self._asked = _Asked(wanted, now + pause - early, on_time=not is_quiet)
