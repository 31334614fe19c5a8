"""Waiting for messages on Redis without asking again and again, and without a message ever being only in memory.

Each queue has one connection on which the server moves the next message from the queue's list into this replica's
inbox, in one atomic step, as soon as there is one. The worker waits for the socket and reads the message from the
answer; where that is not enough, the next turn takes what is in the inbox. A dead replica's inbox is restored like
everything else it held. The server gives up after ``BLOCK_SECONDS``, so that a connection whose client vanished takes
no message later than that. The first of the connections also watches what no waiting command names, and takes other
commands while nothing waits on it.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import redis

from fleet.broker.channels.redis.scripts import Link
from fleet.broker.channels.redis.watching import WatchingLink
from fleet.broker.connection import ANSWER_SECONDS, RedisAccess

BLOCK_SECONDS = 30
LATE_SECONDS = 10
"""No answer comes later than this after its time."""
MOST_CONNECTIONS = 8


class Arrival(NamedTuple):
    """A message that the server has moved, while we waited, from the list ``source`` to our inbox.

    is_there: nobody can have emptied that inbox since.
    """

    source: str
    envelope: bytes
    is_there: bool


@dataclass(slots=True)
class _Waiter:
    source: str
    inbox: str
    link: Link | None = None
    client_id: int | None = None
    until: float | None = None
    """The server answers by then (monotonic); None: nothing was asked."""
    is_kept: bool = True
    """Nobody has emptied the inbox since."""


class Waiting:
    """The waiting connections of one replica. Queues beyond ``MOST_CONNECTIONS`` are only looked at by polling.

    others: keys that no connection waits for, and that may be watched.
    """

    def __init__(
        self, access: RedisAccess, pairs: Sequence[tuple[str, str]], *, name: str, others: Sequence[str] = ()
    ) -> None:
        self._access = access
        self._name = name
        self._waiters = [_Waiter(source, inbox) for source, inbox in pairs[:MOST_CONNECTIONS]]
        self._others = (*others, *(source for source, _ in pairs[MOST_CONNECTIONS:]))
        self._watcher: WatchingLink | None = None
        self.certain = True
        """False after a connection was closed while it waited: the server may still move a message on it."""

    def fds(self) -> list[int]:
        """Sockets that become readable when a message may have arrived."""
        return [waiter.link.fileno() for waiter in self._waiters if waiter.until is not None and waiter.link]

    def sockets(self) -> list[int]:
        """All sockets, armed or not."""
        return [waiter.link.fileno() for waiter in self._waiters if waiter.link]

    def arm(self, seconds: float) -> None:
        """Wait on every queue. seconds: after so long there is an answer on the first, whatever comes."""
        now = time.monotonic()
        for index, waiter in enumerate(self._waiters):
            if waiter.until is None:
                link = waiter.link or self._connect(waiter)
                limit_seconds = BLOCK_SECONDS if index else seconds
                link.send("BRPOPLPUSH", waiter.source, waiter.inbox, f"{limit_seconds:g}")
                waiter.until, waiter.is_kept = now + limit_seconds, True

    @property
    def idle_link(self) -> Link | None:
        """The first connection while nothing waits on it."""
        return self._watcher if self._waiters and self._waiters[0].until is None else None

    @property
    def watches(self) -> bool:
        """Whether a change of what no connection waits for makes one of the sockets readable."""
        return self._watcher is not None and self._watcher.watches

    def watch(self) -> bool:
        """Let the server tell of the next such change; whether it does. While nothing is armed."""
        if self._watcher is None and self._waiters:
            self._connect(self._waiters[0])
        return self._watcher is not None and self._watcher.watch(self._others)

    @property
    def is_armed(self) -> bool:
        """Whether the server may move a message now."""
        return any(waiter.until is not None for waiter in self._waiters)

    def collect(self) -> list[Arrival]:
        """Read the answers that are there: the messages that have come to the inboxes. Never blocks."""
        ready = self._ready()
        if not ready:
            self._check_overdue()
            return []
        waiters = [waiter for waiter in self._waiters if waiter.link and waiter.link.fileno() in ready]
        return self._answers([waiter for waiter in waiters if self._is_answered(waiter)])

    def are_emptied(self) -> None:
        """What came to an inbox until now, and is not told yet, is there no more, or may not be."""
        for waiter in self._waiters:
            waiter.is_kept = False

    def disarm(self, main: Callable[[], Link]) -> bool:
        """Stop waiting. True when a message arrived meanwhile and lies in an inbox."""
        armed = [waiter for waiter in self._waiters if waiter.until is not None]
        if not armed:
            return False
        return self._unblock(main(), armed) if all(waiter.client_id for waiter in armed) else self._hang_up(armed)

    def close(self) -> None:
        """Close all connections."""
        for waiter in self._waiters:
            if waiter.link is not None:
                self.certain = self.certain and waiter.until is None
                waiter.link.close()
            waiter.link = waiter.until = None
        self._watcher = None

    def _connect(self, waiter: _Waiter) -> Link:
        if waiter is self._waiters[0]:
            waiter.link = self._watcher = WatchingLink(self._access, name=self._name)
        else:
            waiter.link = Link(self._access, name=self._name)
        try:
            waiter.client_id = int(waiter.link.call("CLIENT", "ID"))
        except redis.ResponseError:
            waiter.client_id = None
        return waiter.link

    def _ready(self) -> set[int]:
        fds = self.fds()
        return _readable(fds, seconds=0) if fds else set()

    def _is_answered(self, waiter: _Waiter) -> bool:
        """Whether its socket is readable because of an answer."""
        return waiter.link is not self._watcher or self._watcher is None or self._watcher.has_answer()

    def _answers(self, waiters: Sequence[_Waiter]) -> list[Arrival]:
        """Read one answer of each: those that are a message."""
        arrivals = []
        for waiter in waiters:
            assert waiter.link is not None
            envelope = waiter.link.read()
            waiter.until = None
            if envelope is not None:
                arrivals.append(Arrival(waiter.source, envelope, is_there=waiter.is_kept))
        return arrivals

    def _check_overdue(self) -> None:
        """Raise when the server has not answered in time: it always does."""
        now = time.monotonic()
        if any(waiter.until is not None and waiter.until + LATE_SECONDS < now for waiter in self._waiters):
            raise redis.ConnectionError("no answer on a waiting connection")

    def _unblock(self, main: Link, armed: Sequence[_Waiter]) -> bool:
        try:
            for waiter in armed:
                self._unblock_one(main, waiter)
        except redis.ResponseError:
            return self._hang_up(armed)
        return bool(self._answers(armed))

    def _unblock_one(self, main: Link, waiter: _Waiter) -> None:
        """Unblock, until it works or there is an answer: the server may read our commands in another order."""
        assert waiter.link is not None
        end = time.monotonic() + ANSWER_SECONDS
        while not main.call("CLIENT", "UNBLOCK", waiter.client_id):
            if _readable([waiter.link.fileno()], seconds=0.005) and self._is_answered(waiter):
                return
            if time.monotonic() > end:
                raise redis.ConnectionError("no answer on a waiting connection")

    def _hang_up(self, armed: Sequence[_Waiter]) -> bool:
        """Close, for a server that refuses CLIENT; a late message may then still come to the inbox."""
        for waiter in armed:
            assert waiter.link is not None
            waiter.link.close()
            if waiter.link is self._watcher:
                self._watcher = None
            waiter.link = waiter.until = None
        self.certain = False
        return True


def _readable(fds: Sequence[int], *, seconds: float) -> set[int]:
    if not hasattr(select, "poll"):  # eventlet removes it and leaves a green select
        return set(select.select(fds, [], [], seconds)[0])
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _ in poll.poll(seconds * 1000)}
