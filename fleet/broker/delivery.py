"""One message on its way, and the narrow door it comes through."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fleet.core.spec import QueueSpec


@dataclass(slots=True)
class Delivery:
    """A message as it came from the broker, body still encoded.

    tag: what the channel knows it by.  body: bytes or text as after the transport's own decoding (base64 undone).
    received_at: ``time.monotonic()`` of arrival.  attempts: earlier deliveries known to have ended in a crash.
    original: whatever the channel needs to give it back unchanged.
    """

    tag: str
    queue: str
    body: bytes | str
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    redelivered: bool = False
    attempts: int = 0
    received_at: float = 0.0
    original: Any = None


class Channel(Protocol):
    """The only way between the worker and the transport.

    Not thread-safe: whoever speaks holds ``lock``. The loop speaks between tasks; while solo runs a task, the
    attendant thread does. ``fetch`` never blocks: the loop waits on ``wait_fds`` (readable: fetch again) or
    ``poll_seconds``; both are to be read anew before each wait. A channel waits for messages only after a fetch that
    brought less than was asked for, so a worker that is full need not stop it, and one with a free slot fetches.

    Every call raises ``ChannelLost`` when the connection is gone; ``open`` makes a new one. What was fetched before may
    still be ours then (Redis: the lease covers it) or be delivered again (RabbitMQ): :meth:`holds` tells. Acknowledging
    or giving back what is no longer ours has no effect, so nothing has to be sorted out under way.
    """

    lock: threading.RLock
    poll_seconds: float | None

    @property
    def pushed(self) -> int:
        """How many messages the broker has pushed to us that no fetch has brought yet. Never raises."""
        ...

    def open(self) -> None:
        """Connect, declare the queues, take back what an earlier life of this replica still held."""
        ...

    def consume(self, queues: Sequence[QueueSpec]) -> None:
        """From now on fetch from these queues and no others, also after a new connection."""
        ...

    def backlog(self) -> int | None:
        """How many messages wait in the consumed queues, asked of the broker now; None where it cannot tell."""
        ...

    def fetch(self, count: int) -> list[Delivery]:
        """Up to ``count`` messages that are there now; buffered acknowledgements ride along. 0 stops the waiting."""
        ...

    def wait_fds(self) -> Sequence[int]:
        """Descriptors that become readable when a fetch may bring something."""
        ...

    def fds(self) -> Sequence[int]:
        """Every descriptor of this channel, waiting or not: a forked child must close them."""
        ...

    def holds(self, delivery: Delivery) -> bool:
        """Whether this message is still ours. One that is not has been, or will be, given to somebody again."""
        ...

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these. May be buffered until the next fetch, flush or close."""
        ...

    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Put these back to the head of their queues, in order, now."""
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
        """Heartbeat and lease. To be called at least every ``TEND_SECONDS``."""
        ...

    def close(self) -> None:
        """Flush, give back what is held and not acknowledged, disconnect. Never raises."""
        ...


TEND_SECONDS = 1.0


class ChannelLost(Exception):
    """The connection to the broker is gone. The cause is in ``__cause__``."""
