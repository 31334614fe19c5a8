"""The connection to the broker: made, watched, and made again with growing pauses when it breaks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from fleet.broker.backoff import Backoff
from fleet.broker.channels.base import Channel, ChannelLost
from fleet.errors import FleetError
from fleet.worker.loop.settlement import Settlement
from pools.loop import EventLoop

log = logging.getLogger("fleet.worker")

RECONNECT = Backoff(1.0, 30.0, 0.3)
STEADY_SECONDS = 10.0
"""A connection that held for less counts as a failed try: the next try comes after a longer pause."""


class Connection:
    """``up`` while the channel is open. The loop wakes when something may have come over it: ``readable``.

    ``on_lost`` is called, in order, when it breaks: what runs goes on, what has not started is no longer ours.
    ``on_again`` is called when it is up once more.
    """

    def __init__(self, channel: Channel, loop: EventLoop, settlement: Settlement) -> None:
        self.up = False
        self.readable = False
        self.try_at = 0.0
        self._channel = channel
        self._loop = loop
        self._settlement = settlement
        self.on_lost: list[Callable[[], object]] = []
        self.on_again: Callable[[], object] = _nothing
        self._was_up = False
        self._failed = 0
        self._up_since = 0.0
        self._watched: tuple[int, ...] = ()

    def connect(self) -> bool:
        """Try once; whether it is up now. The next try is due at ``try_at`` (monotonic)."""
        try:
            self._channel.open()
        except (ChannelLost, FleetError) as error:
            pause = RECONNECT.seconds(self._failed)
            self._failed += 1
            self.try_at = time.monotonic() + pause
            hint = getattr(error, "hint", "")
            log.error("%s; next try in %.1f s%s", error, pause, f" (hint: {hint})" if hint else "")
            return False
        self.up = self.readable = True
        self._up_since = time.monotonic()
        if self._was_up:
            self.on_again()
        self._was_up = True
        return True

    def lose(self, error: ChannelLost | None) -> None:
        """Note that the connection is lost, unless ``error`` is None or it is known already."""
        if error is None or not self.up:
            return
        self._settlement.lost = error
        self._break_off(error)
        for call in self.on_lost:
            call()

    def notice_loss(self) -> None:
        """Note a loss that was met while acknowledging."""
        self.lose(self._settlement.lost)

    def rebuild(self, why: str) -> None:
        """Make a new connection, because this one brings nothing. What runs goes on."""
        self.lose(ChannelLost(why))

    def _break_off(self, error: ChannelLost) -> None:
        log.error("the connection to the broker is lost: %s", error.__cause__ or error)
        self.up = False
        self.try_at = now = time.monotonic()
        if now - self._up_since >= STEADY_SECONDS:
            self._failed = 0
        else:
            self.try_at += RECONNECT.seconds(self._failed)
            self._failed += 1
        self.watch()

    def tend(self) -> None:
        """Send the heartbeat, renew the lease."""
        try:
            self._channel.tend()
        except ChannelLost as error:
            self.lose(error)

    def rest_is_over(self) -> bool:
        """Whether something may have come over it that is no message, but the end of a rest."""
        try:
            return self.up and self.readable and self._channel.rest_is_over()
        except ChannelLost as error:
            self.lose(error)
            return False

    def watch(self) -> None:
        """Let the loop wake when a fetch may bring something. The descriptors change with every connection."""
        fds = tuple(self._channel.wait_fds()) if self.up else ()
        if fds == self._watched:
            return
        self.unwatch()
        callback: Callable[[], object] = self._on_readable
        for fd in fds:
            self._loop.add_reader(fd, callback)
        self._watched = fds

    def unwatch(self) -> None:
        """Call it before descriptors are closed: the kernel may use their numbers again."""
        for fd in self._watched:
            self._loop.remove_reader(fd)
        self._watched = ()

    def _on_readable(self) -> None:
        self.readable = True


def _nothing() -> None:
    pass
