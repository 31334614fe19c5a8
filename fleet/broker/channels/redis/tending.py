"""What a replica on Redis does again and again to keep what it holds: send what is buffered, renew its lease, look
after what vanished replicas held."""

from __future__ import annotations

import time

from fleet.broker.channels.base import REST_SECONDS, ChannelLost
from fleet.broker.channels.redis.connections import Connections
from fleet.broker.channels.redis.held import Held
from fleet.broker.channels.redis.leases import Registry
from fleet.broker.channels.redis.scripts import Link
from fleet.broker.connection import RedisAccess
from fleet.broker.redis_keys import Keys


class Tending:
    """Of one replica.  look_at: when it looks after others for the first time (monotonic)."""

    def __init__(self, held: Held, connections: Connections, *, lease_seconds: float) -> None:
        self.lease_seconds = lease_seconds
        self.look_at = 0.0
        self._held = held
        self._connections = connections
        self._inboxes, self._rest = connections.inboxes, connections.rest
        self._registry: Registry | None = None

    def lay_out(self, access: RedisAccess, keys: Keys) -> None:
        """From now on others find these inboxes of ours."""
        self._registry = Registry(access, keys, self._inboxes.sources(), lease_seconds=self.lease_seconds)

    @property
    def registry(self) -> Registry:
        """Raises ChannelLost where the channel is not open."""
        if self._registry is None:
            raise ChannelLost("the channel is not open")
        return self._registry

    @property
    def rest_seconds(self) -> float:
        """Half the lease of a replica at rest."""
        return min(REST_SECONDS, self.lease_seconds)

    @property
    def at_rest(self) -> bool:
        """Whether there is nothing to say but that this replica is there."""
        is_owed = self._inboxes.to_be_emptied or self._held.acks or len(self._held)
        return not is_owed and self._connections.rests

    def renew(self, link: Link, *, look: bool = False, ahead: bool = False) -> bool:
        """Renew the lease now; True: what we held was given to others."""
        self._inboxes.empty_left(link)
        rests = self._rest.is_quiet and not len(self._held)
        if not self.registry.is_sure:
            self._inboxes.doubt()
        return self.registry.renew(link, look=look, rests=rests, ahead=ahead)

    def renew_or_forget(self, link: Link, *, look: bool = False, ahead: bool = False) -> None:
        """Renew the lease, and forget what was given to others."""
        if self.renew(link, look=look, ahead=ahead):
            self._held.forget_given_away(link)

    def tend(self) -> None:
        """Send what is buffered; when it is time, renew the lease and restore what vanished replicas held."""
        self._inboxes.collect(self._connections.main)
        registry, rests, now = self.registry, self.at_rest, time.monotonic()
        if rests and self._inboxes.idle_link is not None:
            self._connections.close_main()
        elif rests and now < registry.renew_by:
            return
        link = self._connections.speaking()
        self._held.send_acks(link)
        if now >= registry.renew_at:
            self.renew_or_forget(link, look=now >= self.look_at, ahead=not self._inboxes.may_hold)
