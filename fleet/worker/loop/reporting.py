"""What the worker writes into its record."""

from __future__ import annotations

import time

from fleet.broker.channels.base import Channel
from fleet.replica.record import Record
from fleet.worker.lifecycle import RECORD_STATES, Lifecycle, State
from fleet.worker.loop.connection import Connection
from fleet.worker.loop.fetching import Fetching
from fleet.worker.loop.inflight import InFlight


class Reporting:
    """Writes the state, and a note for people."""

    def __init__(
        self,
        record: Record,
        *,
        life: Lifecycle,
        channel: Channel,
        connection: Connection,
        fetching: Fetching,
        inflight: InFlight,
    ) -> None:
        self._record = record
        self._life = life
        self._channel = channel
        self._connection = connection
        self._fetching = fetching
        self._inflight = inflight

    def count_waiting(self) -> bool:
        """Count messages in hand that could run; whether the number changed.

        Messages that the broker pushed and no fetch has taken yet are included.
        """
        before = self._record.waiting
        self._record.waiting = self._inflight.waiting_count + len(self._inflight.unreported) + self._channel.pushed
        return self._record.waiting != before

    def publish(self, *, deadline: float | None) -> None:
        """Write state and counters. deadline: end of the drain (monotonic), None where the worker does not drain."""
        self.count_waiting()
        record, state = self._record, self._life.state
        record.line_up, record.sated = self._connection.up, self._fetching.is_sated
        record.resting = state is State.HELD
        record.become(RECORD_STATES[state], self._note(deadline))

    def _note(self, deadline: float | None) -> str:
        notes = []
        if self._life.state is State.HELD:
            notes.append("held")
        if deadline is not None:
            left = len(self._inflight.running)
            notes.append(f"{left} task{'s'[: left != 1]} left, {max(0.0, deadline - time.monotonic()):.0f} s")
        if not self._connection.up and not self._life.stopped:
            notes.append("no connection to the broker")
        return "; ".join(notes)
