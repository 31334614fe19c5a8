"""Turns over the queues on Redis: each takes messages and sends acknowledgements, in one atomic step.

Large messages go another way: a script would copy each of them a dozen times within the server. It only tells where the
next ones are, and sends the acknowledgements; then plain commands move each from its list to one of its own, which
copies it twice. Where a message has gone to somebody else in between, fewer come.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from fleet.broker.channels.redis.held import Held
from fleet.broker.channels.redis.scripts import Link
from fleet.broker.channels.redis.take_plan import TakePlan
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

    def __init__(self, held: Held) -> None:
        self.plan: TakePlan
        self.next_tag = 0
        self.due_seconds: float | None = None
        self._held = held
        self._large_bytes = 0

    @property
    def expects_large(self) -> bool:
        """Whether the next messages are expected to be large."""
        return self._large_bytes > 0

    def take(self, link: Link, count: int, ahead: int = 0, *, empty_inboxes: bool) -> list[Delivery] | None:
        """Up to ``count`` messages, and ``ahead`` more; None where the lease has run out, and nothing was taken."""
        held = self._held
        held.send_acks(link, only_many=True)
        plan, acks, apart = self.plan, held.acks, held.acks_apart
        told, large = len(acks), self.expects_large
        if large:
            ahead = min(ahead, MOST_BYTES_AHEAD // self._large_bytes)
        count += ahead
        first = self.next_tag
        self.next_tag += count
        numbers = (count, first, int(empty_inboxes), told, len(apart), int(large))
        reply = link.run_prepared(plan.script, (*numbers, *acks, *apart, *(plan.order if count else ())))
        held.told(told)
        if reply[0] == _NO_LEASE:
            return None
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
        return [self._delivery(one, now) for one in taken]

    def _delivery(self, one: _Taken, now: float) -> Delivery:
        tag, number, original, apart = one
        queue, source = self.plan.sources[number]
        self._held.add(tag, source, original, apart=apart)
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
