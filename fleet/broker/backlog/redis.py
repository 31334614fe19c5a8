"""How Redis is asked what waits, in two round trips."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from fleet.broker.connection import (
    redis_access,
)
from fleet.broker.envelope import ASKED_MESSAGES, SENT_AT_HEADER, agreed, waits_since
from fleet.broker.redis_keys import Keys, replica_of
from fleet.broker.redis_link import Link, script
from fleet.core.autoscale.sample import Backlog, QueueSample
from fleet.core.text.mask import masked

_OLDEST = script(__package__, "oldest")
_HEADERS_BYTES = 32_768
"""The end of a message that is searched for its headers. They are its last part, and rarely over a few thousand."""


class RedisSource:
    """Straight to kombu's lists, and to what fleet's workers keep beside them.

    A message on its way into a replica that waits for it (in its inbox, for an instant) is not seen.
    """

    def __init__(self, url: str, options: Mapping[str, Any], *, fleet: str, answer_seconds: float) -> None:
        self._url = url
        self._access = redis_access(url, options).within(answer_seconds)
        self._fleet = fleet
        self._keys = Keys(self._access.prefix, "")
        self._link = Link(self._access, name=f"fleet-samples:{fleet}")

    def sample(self, queues: Sequence[str]) -> Backlog:
        """Ask in two round trips: the second needs the time and the holders from the first."""
        lists = [key for queue in queues for key in self._access.lists(queue)]
        delayed = [self._keys.delayed(queue) for queue in queues]
        now_ms, leases, heads = self._ask_first(lists, delayed)
        members = self._members(leases)
        lengths, due, sizes = self._count(lists, delayed, members, now_ms)
        waiting, oldest = self._waiting(lengths, due), self._oldest(queues, heads, now_ms)
        return Backlog(
            {queue: QueueSample(waiting[place], oldest[place]) for place, queue in enumerate(queues)},
            held=self._held(members, sizes) if isinstance(leases, list) else None,
            problem=self._problem([*lengths, *due, leases, *sizes]),
        )

    def close(self, *, lost: bool) -> None:  # noqa: ARG002
        """Disconnect."""
        self._link.close()

    def _ask_first(self, lists: Sequence[str], delayed: Sequence[str]) -> tuple[int, Any, Any]:
        """The server's time in milliseconds, the leases, and what the heads of the queues tell."""
        search = (
            len(lists) + len(delayed),
            *lists,
            *delayed,
            len(lists),
            SENT_AT_HEADER,
            _HEADERS_BYTES,
            ASKED_MESSAGES,
        )
        clock, leases, heads = self._link.ask_many(
            [("TIME",), ("ZRANGE", self._keys.leases, 0, -1), ("EVALSHA", _OLDEST.sha, *search)]
        )
        if isinstance(heads, NoScriptError):
            (heads,) = self._link.ask_many([("EVAL", _OLDEST.text, *search)])
        return _milliseconds(clock), leases, heads

    def _count(
        self, lists: Sequence[str], delayed: Sequence[str], members: Sequence[tuple[str, str]], now_ms: int
    ) -> tuple[list[Any], list[Any], list[Any]]:
        """How long each list is, how much is due in each delayed set, how much each holder holds: all in one trip, so
        that a message on its way from a list to a holder is hardly ever seen twice."""
        counts: list[tuple[Any, ...]] = [("LLEN", key) for key in lists]
        counts += [("ZCOUNT", key, "-inf", now_ms) for key in delayed]
        counts += [("HLEN", Keys(self._access.prefix, holder).held) for holder, _ in members]
        answers = iter(self._link.ask_many(counts))
        return list(islice(answers, len(lists))), list(islice(answers, len(delayed))), list(answers)

    def _waiting(self, lengths: Sequence[Any], due: Sequence[Any]) -> list[int | None]:
        """Messages by queue: in its lists, and due in its delayed set, which may not have been emptied for a while."""
        width = len(self._access.steps)
        return [_total((*lengths[width * place : width * (place + 1)], more)) for place, more in enumerate(due)]

    def _oldest(self, queues: Sequence[str], heads: Any, now_ms: int) -> list[float | None]:
        """Per queue, since when its oldest message waits, Unix seconds; None where it is not known."""
        if isinstance(heads, ResponseError):
            return [None] * len(queues)
        width = len(self._access.steps)
        sent, rest = _sent(heads, lists=width * len(queues))
        dues = [float(score) / 1000 if score else None for score in rest]
        past = [due if due is not None and due * 1000 <= now_ms else None for due in dues]
        return [_least((_told(sent[width * place : width * (place + 1)]), due)) for place, due in enumerate(past)]

    def _members(self, leases: Any) -> list[tuple[str, str]]:
        """Holder and replica of each process of this fleet that has a lease, or had one until lately."""
        names = [name.decode(errors="replace") for name in leases] if isinstance(leases, list) else []
        return [(name, replica) for name in names if (replica := replica_of(name, self._fleet)) is not None]

    def _held(self, members: Sequence[tuple[str, str]], sizes: Sequence[Any]) -> dict[str, int] | None:
        held: dict[str, int] = {}
        for (_, replica), size in zip(members, sizes, strict=True):
            if isinstance(size, ResponseError):
                return None
            held[replica] = held.get(replica, 0) + size
        return held

    def _problem(self, answers: Sequence[Any]) -> str:
        refusal = next((answer for answer in answers if isinstance(answer, ResponseError)), None)
        return f"the broker {masked(self._url)} refuses to tell: {refusal}" if refusal is not None else ""


def _sent(heads: Sequence[Any], *, lists: int) -> tuple[list[list[float | None]], Sequence[Any]]:
    """Per list, since when its next messages wait; and what else was answered."""
    moments, at = [], 0
    for _ in range(lists):
        end = at + 1 + 2 * int(heads[at])
        moments.append([waits_since(heads[one], heads[one + 1]) for one in range(at + 1, end, 2)])
        at = end
    return moments, heads[at:]


def _told(lists: Sequence[Sequence[float | None]]) -> float | None:
    """Since when the next messages of a queue wait, by the list that waits longest. A message that is alone in its list
    has a say only beside others of its kind: a sender chooses the list by the priority."""
    several = [agreed(moments) for moments in lists if len(moments) > 1]
    if any(moment is not None for moment in several):
        return _least(several)
    return agreed([moment for moments in lists for moment in moments])


def _milliseconds(clock: Any) -> int:
    """The server's time in Unix seconds; ours where it does not tell."""
    if isinstance(clock, ResponseError):
        return int(time.time() * 1000)
    seconds, micros = clock
    return int(seconds) * 1000 + int(micros) // 1000


def _total(counts: Sequence[Any]) -> int | None:
    return None if any(isinstance(count, ResponseError) for count in counts) else sum(counts)


def _least(moments: Sequence[float | None]) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)
