"""What a channel is: fetch, acknowledge, give back and publish, on any broker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from fleet.broker.delivery import Delivery
from fleet.core.spec import QueueSpec

StoreLeft = Callable[[Sequence[bytes]], bool]
"""Stores results that an earlier process had packed; whether all of them are stored now."""


class Kept(NamedTuple):
    """What a process of a replica keeps for the next one, and finds of the one before.

    unsent_path: acknowledgements, and ends, until the server has been told.  store_left: for results of those ends.
    finished_path: where processes of slots note what they finished, see ``finished_tags``.
    """

    unsent_path: Path | None = None
    finished_path: Path | None = None
    store_left: StoreLeft | None = None


class Ends(Protocol):
    """Where it is noted that tasks are over whose results are still to be stored. Nothing here raises."""

    def note_end(self, delivery: Delivery, result: bytes) -> bool:
        """The task is over, and its result, packed, is to be stored before the message is acknowledged.

        Whether that may wait a moment: what is noted is stored and acknowledged by the next process of this replica
        when this one is killed.
        """
        ...

    def forget_ends(self) -> None:
        """The results of all that was noted are stored, and the messages acknowledged."""
        ...


class NoEnds:
    """Nothing is noted, and so nothing waits to be stored: what was acknowledged with a process that is killed comes
    again."""

    def note_end(self, delivery: Delivery, result: bytes) -> bool:  # noqa: ARG002
        return False

    def forget_ends(self) -> None:
        pass


class Channel(Protocol):
    """The only way between the worker and the transport.

    Not thread-safe: the caller holds ``lock``. The loop calls it between tasks; while solo runs a task, the
    housekeeping thread does. ``fetch`` never blocks: the loop waits on ``wait_fds`` (readable: fetch again) or
    ``poll_seconds``; read both again before each wait. A channel waits for messages only after a fetch that
    brought less than was asked for, so a worker that is full need not stop it, and one with a free slot fetches.

    Every call raises ``ChannelLost`` when the connection is gone; ``open`` makes a new one. What was fetched before may
    still be ours then (Redis: the lease covers it) or be delivered again (RabbitMQ): :meth:`holds` tells. Acknowledging
    or giving back what is no longer ours has no effect, so callers need not check first.
    """

    lock: threading.RLock
    poll_seconds: float | None
    tend_at: float
    """When ``tend`` is called next (monotonic), as far as nothing wakes the loop before. Set by the loop."""
    keeps_acks: bool
    """Whether acknowledgements that are buffered outlive this process: the next one of the replica sends them."""

    @property
    def ends(self) -> Ends:
        """Where ends are noted."""
        ...

    @property
    def rest_seconds(self) -> float:
        """How long ``fetch`` and ``tend`` may stay away while this replica holds nothing and nothing has come for
        ``QUIET_SECONDS``."""
        ...

    def rest_is_over(self) -> bool:
        """Whether the broker has just ended a wait at rest, and nothing has come: a good moment for ``tend``."""
        ...

    @property
    def pushed(self) -> int:
        """How many messages the broker has pushed to us that no fetch has brought yet. Never raises."""
        ...

    def open(self) -> None:
        """Connect, declare the queues, take back what an earlier process of this replica still held."""
        ...

    def consume(self, queues: Sequence[QueueSpec]) -> None:
        """From now on fetch from these queues and no others, also after a new connection."""
        ...

    def backlog(self) -> int | None:
        """How many messages wait in the consumed queues, asked of the broker now; None where it cannot tell."""
        ...

    def fetch(self, count: int, ahead: int = 0) -> list[Delivery]:
        """Up to ``count`` messages that are there now; sends buffered acknowledgements too. 0 stops the waiting.

        ahead: so many more may come where that costs no further round trip. The channel does not wait for them.
        """
        ...

    def wait_fds(self) -> Sequence[int]:
        """Descriptors that become readable when a fetch may bring something."""
        ...

    def fds(self) -> Sequence[int]:
        """Every descriptor of this channel, waiting or not: a forked child must close them."""
        ...

    def holds(self, delivery: Delivery) -> bool:
        """Whether this message is still ours. One that is not has been, or will be, delivered again."""
        ...

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these. May be buffered until the next fetch, flush or close."""
        ...

    def give_back(self, deliveries: Sequence[Delivery], *, unmarked: bool = False) -> None:
        """Put these back to the head of their queues, in order, now: marked as redelivered.

        unmarked: as they were, where the broker leaves the mark to its clients; nobody has begun to work on them.
        """
        ...

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Refuse these for good: the broker moves them to the queue's dead-letter exchange, or drops them."""
        ...

    def keeps_rejected(self, queue: str) -> bool:
        """Whether this queue, as the app declares it, has a dead-letter exchange of its own. Never raises."""
        ...

    def delay(self, delivery: Delivery, *, due: float) -> bool:
        """Let the broker keep a message until ``due`` (Unix time). False: it cannot; the worker holds it."""
        ...

    def publish(
        self,
        queue: str,
        body: bytes | str,
        *,
        headers: Mapping[str, Any],
        properties: Mapping[str, Any],
        content_type: str,
        content_encoding: str,
        acks: Sequence[Delivery] = (),
    ) -> None:
        """Send a message and acknowledge ``acks``, together where the broker can, else the message first."""
        ...

    def flush(self) -> None:
        """Send what is buffered, now."""
        ...

    def tend(self) -> None:
        """Send heartbeats, renew the lease. Call it at least every ``TEND_SECONDS``, at rest ``rest_seconds``."""
        ...

    def close(self) -> None:
        """Flush, give back what is held and not acknowledged, disconnect. Never raises."""
        ...


TEND_SECONDS = 1.0
QUIET_SECONDS = 5.0
"""A replica that has had nothing for so long rests: it looks at everything less often, and is woken by what comes."""
REST_SECONDS = 15.0
"""The longest rest between two looks: half of what a lease at rest, and the patience with a silent record, last."""


class ChannelLost(Exception):
    """The connection to the broker is gone. The cause is in ``__cause__``."""
