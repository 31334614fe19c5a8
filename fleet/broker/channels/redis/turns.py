"""Turns over the queues on Redis: each takes messages and sends acknowledgements, in one atomic step.

A message that came while the replica waited needs no turn where it is certain to be ours and no other can be before it:
it begins at once, and the server is told in the same breath who holds it.

Large messages go another way: a script would copy each of them a dozen times within the server. It only tells where the
next ones are, and sends the acknowledgements; then plain commands move each from its list to one of its own, which
copies it twice. Where a message has gone to somebody else in between, fewer come.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fleet.broker.channels.redis.connections import Connections
from fleet.broker.channels.redis.held import Held
from fleet.broker.channels.redis.scripts import Link
from fleet.broker.channels.redis.take_plan import TakePlan
from fleet.broker.channels.redis.waiting import Arrival
from fleet.broker.delivery import Delivery
from fleet.broker.envelope import opened

LARGE_BYTES = 16 << 10
"""After a message of this size the next ones are expected to be large, until one is not."""
MOST_BYTES_AHEAD = 1 << 20
"""No more than this is taken ahead of the slots that are free."""
_NO_LEASE = -2


_Taken = tuple[str, int, bytes | bytearray, bool]
"""A message that is ours now: its tag, the number of its list among the keys, its envelope, and whether it has a list
of its own there."""


class Turns:
    """Numbers what it takes: ``next_tag``, 0 before the first connection. ``plan`` comes with that.

    due_seconds: until the first message with a date, as the last turn saw it; None where there was none.
    """

    def __init__(self, held: Held, connections: Connections) -> None:
        self.plan: TakePlan
        self.next_tag = 0
        self.due_seconds: float | None = None
        self._held = held
        self._connections = connections
        self._large_bytes = 0

    def adopt(self, count: int, *, is_sure: bool) -> Delivery | None:
        """The message that has just come; the server hears of it, and is not waited for. None where that needs a turn.

        count: how many there is room for.  is_sure: whether the lease cannot have run out.
        """
        inboxes = self._connections.inboxes
        arrival = inboxes.only
        if arrival is None or not is_sure or not self._is_next(arrival):
            return None
        if count == 1 and inboxes.is_armed:  # what came to another queue meanwhile would wait here for this one's end
            return None
        queue, script = self.plan.adopts[arrival.source]
        tag = str(self.next_tag)
        self.next_tag += 1
        self._held.adopt(tag, arrival, script, tell=self._connections.tell)
        inboxes.adopted()
        self._connections.rest.end()
        self.plan.rotate()
        return _delivery(tag, queue, arrival.envelope, time.monotonic())

    def _is_next(self, arrival: Arrival) -> bool:
        """Whether no message is before this one, and it is not large."""
        is_large = self._large_bytes > 0 or len(arrival.envelope) >= LARGE_BYTES
        return not is_large and arrival.source in self.plan.adopts

    def take(self, count: int, ahead: int = 0) -> list[Delivery] | None:
        """Up to ``count`` messages, and ``ahead`` more; None where the lease has run out, and nothing was taken."""
        held, inboxes, large = self._held, self._connections.inboxes, self._large_bytes > 0
        link = self._connections.for_turn(large=large)
        held.send_acks(link, only_many=True)
        plan, acks, apart = self.plan, held.acks, held.acks_apart
        told, empties = len(acks), inboxes.to_be_emptied
        if large:
            ahead = min(ahead, MOST_BYTES_AHEAD // self._large_bytes)
        count += ahead
        first = self.next_tag
        self.next_tag += count
        numbers = (count, first, int(empties), told, len(apart), int(large))
        reply = link.run_prepared(plan.script, (*numbers, *acks, *apart, *(plan.order if count else ())))
        held.told(told)
        if reply[0] == _NO_LEASE:
            return None
        if empties:
            inboxes.emptied()
        if count:
            self.due_seconds = None if reply[0] < 0 else reply[0] / 1000 + 0.005
        taken = self._moved(link, first, reply[1:]) if large else _taken(first, reply)
        return self._delivered(taken)

    def _moved(self, link: Link, first: int, numbers: Sequence[int]) -> list[_Taken]:
        """Take a message from each of these lists. It is noted in the same step, so a kill at any moment loses
        nothing; so is the holder, should its lease have been forgotten a moment ago."""
        if not numbers:
            return []
        keys, sources = self._held.keys, self.plan.sources
        tags = [str(first + index) for index in range(len(numbers))]
        commands: list[tuple[Any, ...]] = [("ZADD", keys.leases, "NX", 0, keys.holder)]
        for tag, number in zip(tags, numbers, strict=True):
            source = sources[number][1]
            commands += [("HSET", keys.held, tag, source), ("RPOPLPUSH", source, keys.apart(tag))]
        answers = link.call_together(commands)[2::2]
        taken = []
        for tag, number, envelope in zip(tags, numbers, answers, strict=True):
            if envelope is None:
                self._held.never_came(tag)
            else:
                taken.append((tag, number, envelope, True))
        return taken

    def _delivered(self, taken: Sequence[_Taken]) -> list[Delivery]:
        if not taken:
            return []
        largest = max([len(envelope) for _, _, envelope, _ in taken])
        self._large_bytes = largest if largest >= LARGE_BYTES else 0
        self.plan.rotate()
        now = time.monotonic()
        deliveries = []
        for tag, number, original, apart in taken:
            queue, source = self.plan.sources[number]
            self._held.add(tag, source, original, apart=apart)
            deliveries.append(_delivery(tag, queue, original, now))
        return deliveries


def _delivery(tag: str, queue: str, original: bytes | bytearray, now: float) -> Delivery:
    envelope = opened(original)
    return Delivery(
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
        original=original,
    )


def _taken(first: int, reply: Sequence[Any]) -> list[_Taken]:
    """What the script has taken."""
    return [(str(first + index // 2), reply[index], reply[index + 1], False) for index in range(1, len(reply), 2)]
