"""Turns over the queues on Redis: each takes messages and sends acknowledgements, in one atomic step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fleet.broker.channels.redis.held import Held
from fleet.broker.channels.redis.scripts import Link
from fleet.broker.channels.redis.take_plan import TakePlan
from fleet.broker.delivery import Delivery
from fleet.broker.envelope import opened

_NO_LEASE = -2


class Turns:
    """Numbers what it takes: ``next_tag``, 0 before the first connection. ``plan`` comes with that.

    due_seconds: until the first message with a date, as the last turn saw it; None where there was none.
    """

    def __init__(self, held: Held) -> None:
        self.plan: TakePlan
        self.next_tag = 0
        self.due_seconds: float | None = None
        self._held = held

    def take(self, link: Link, count: int, *, empty_inboxes: bool) -> list[Delivery] | None:
        """Up to ``count`` messages; None where the lease has run out, and nothing was taken."""
        self._held.send_acks(link, only_many=True)
        plan, acks = self.plan, self._held.acks
        told, first = len(acks), self.next_tag
        self.next_tag += count
        arguments = (count, first, int(empty_inboxes), told, *acks, *(plan.order if count else ()))
        reply = link.run_prepared(plan.script, arguments)
        self._held.told(told)
        if reply[0] == _NO_LEASE:
            return None
        if count:
            self.due_seconds = None if reply[0] < 0 else reply[0] / 1000 + 0.005
        return self._delivered(first, reply)

    def _delivered(self, first: int, reply: Sequence[Any]) -> list[Delivery]:
        now = time.monotonic()
        deliveries = []
        for index in range(1, len(reply), 2):
            queue, source = self.plan.sources[reply[index]]
            raw = reply[index + 1]
            tag = str(first + index // 2)
            self._held.add(tag, source + raw)
            envelope = opened(raw)
            deliveries.append(
                Delivery(
                    tag=tag,
                    queue=queue,
                    body=envelope.body,
                    headers=envelope.headers,
                    properties=envelope.properties,
                    content_type=envelope.content_type,
                    content_encoding=envelope.content_encoding,
                    redelivered=envelope.redelivered,
                    attempts=envelope.attempts,
                    received_at=now,
                    original=raw,
                )
            )
        if deliveries:
            self.plan.rotate()
        return deliveries
