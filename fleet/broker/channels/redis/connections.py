"""The connections of one replica to Redis: one for commands and those that wait, and which of them speaks at rest.

At rest the one for commands is closed. What little is to be said goes over the connection that waits, between two
waits: each ends shortly before the loop would look anyway, so that a replica at rest wakes once for both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fleet.broker.channels.base import TEND_SECONDS, ChannelLost
from fleet.broker.channels.redis.inboxes import Inboxes
from fleet.broker.channels.redis.rest import Rest
from fleet.broker.channels.redis.scripts import Link
from fleet.broker.channels.redis.waiting import BLOCK_SECONDS
from fleet.broker.connection import RedisAccess

_REST_SHARE = 0.95
"""A wait at rest ends when so much of the time until the next ``tend`` is over: what wakes the loop is that answer."""


class Connections:
    """``member``: fleet and replica, for CLIENT LIST.  ``inboxes``: those that wait."""

    def __init__(self, member: str) -> None:
        self.inboxes = Inboxes(name=f"fleet-wait:{member}")
        self.rest = Rest()
        self._name = f"fleet:{member}"
        self._access: RedisAccess | None = None
        self._main: Link | None = None
        self._telling: Link | None = None

    def open(self, access: RedisAccess) -> Link:
        """Connect; what ``main`` gives is there from now on."""
        self._access = access
        return self.main()

    @property
    def is_open(self) -> bool:
        """Whether the channel is open; the connection for commands may be closed for a rest."""
        return self._access is not None

    def main(self) -> Link:
        """The one for commands, made again after a rest. Raises ChannelLost where the channel is not open."""
        if self._access is None:
            raise ChannelLost("the channel is not open")
        self._hear()
        if self._main is None:
            self._main = Link(self._access, name=self._name)
        return self._main

    def speaking(self) -> Link:
        """Where a command goes that may go over either: it does not wait at the server, and its answer is short."""
        self._hear()
        return self._main or self.inboxes.idle_link or self.main()

    def tell(self, packed: bytes, *, hear: Callable[[Any], object]) -> None:
        """Send a packed command over either, and do not wait. What is said after it, over either, is said when its
        answer is there. hear: gets that, or the ResponseError."""
        link = self.speaking()
        link.tell(packed, hear=hear)
        self._telling = link

    def _hear(self) -> None:
        link, self._telling = self._telling, None
        if link is not None:
            link.hear()

    def for_turn(self, *, large: bool) -> Link:
        """Where a turn goes. What ends a rest is taken at once, over the connection that has told of it.

        large: large messages are expected.
        """
        return self.speaking() if self.rests and not large else self.main()

    @property
    def rests(self) -> bool:
        """Whether nothing waits and the server tells of whatever comes."""
        return self.rest.is_told(watches=self.inboxes.watches)

    @property
    def needs_turn(self) -> bool:
        """Whether a turn could bring something that the server has not told of."""
        return self.rest.needs_turn(watches=self.inboxes.watches)

    def wait(self, *, tend_at: float) -> None:
        """Let the server move the next message into an inbox, at rest until shortly before ``tend_at`` (monotonic)."""
        until_tend = tend_at - time.monotonic()
        rests = self.rests and until_tend > TEND_SECONDS
        self.inboxes.arm(min(until_tend * _REST_SHARE, BLOCK_SECONDS) if rests else BLOCK_SECONDS)
        if self._main is not None:
            self._main.hear_now()

    def close_main(self) -> None:
        """Close the one for commands until it is needed."""
        link, self._main = self._main, None
        if link is not None:
            try:
                link.hear_now()
            finally:
                link.close()

    def fds(self) -> list[int]:
        """All sockets, for a forked child to close."""
        return [*([self._main.fileno()] if self._main is not None else []), *self.inboxes.sockets()]

    def hang_up(self) -> None:
        """Close all. The server may not know yet, and still move a message into an inbox."""
        self.inboxes.stop()
        self.rest.end()
        if self._main is not None:
            self._main.close()
        self._access = self._main = self._telling = None
