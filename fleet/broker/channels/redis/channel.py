"""The Redis channel: kombu's lists and envelopes, one atomic turn per fetch instead of three round trips per message.

Producers are stock Celery or kombu, and Celery's workers may share a queue. What Celery's workers hold (kombu's
``unacked``) is theirs and never touched. Redis Cluster is not supported: one turn spans several keys.

What is promised: a message is in its list, in the inbox or the held set of a replica, or in a delayed set, at every
moment until it is acknowledged. Acknowledgements may be buffered until the next turn, for a second at most; where they
are kept in a file, the next process of a killed replica sends them, else those tasks run again. After a lost
connection the replica keeps what it has in memory: the lease covers it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import redis

from fleet.broker.channels.base import ChannelLost, Kept
from fleet.broker.channels.redis.bindings import bind
from fleet.broker.channels.redis.connections import Connections
from fleet.broker.channels.redis.held import Held
from fleet.broker.channels.redis.leases import Registry, holder_name
from fleet.broker.channels.redis.rest import POLL_SECONDS
from fleet.broker.channels.redis.scripts import Link
from fleet.broker.channels.redis.take_plan import TakePlan
from fleet.broker.channels.redis.tending import Tending
from fleet.broker.channels.redis.turns import Turns
from fleet.broker.connection import RedisAccess, redis_access
from fleet.broker.delivery import Delivery
from fleet.broker.envelope import sealed
from fleet.broker.queues import entity
from fleet.broker.redis_keys import Keys
from fleet.broker.redis_link import command
from fleet.core.spec import QueueSpec

LEASE_SECONDS = 15.0

P = ParamSpec("P")
R = TypeVar("R")


def _speaks(
    method: Callable[Concatenate[RedisChannel, P], R],
) -> Callable[Concatenate[RedisChannel, P], R]:
    """Hold the lock, and turn every failure of the connection into ChannelLost."""

    @wraps(method)
    def spoken(self: RedisChannel, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            try:
                return method(self, *args, **kwargs)
            except (redis.RedisError, OSError) as error:
                self._connections.hang_up()
                raise ChannelLost(str(error)) from error

    return spoken


class RedisChannel:
    """One replica's way to its queues on Redis."""

    def __init__(
        self,
        url: str,
        *,
        queues: Sequence[QueueSpec],
        replica: str,
        fleet: str,
        options: Mapping[str, Any] | None = None,
        entities: Mapping[str, Any] | None = None,
        lease_seconds: float = LEASE_SECONDS,
        kept: Kept | None = None,
        ran: Container[str] | None = None,
    ) -> None:
        """ran: ids of tasks that ran when the process before died; what else it held comes back as not started. None:
        not known, all of it may have run."""
        self.lock = threading.RLock()
        self.poll_seconds: float | None = POLL_SECONDS
        self.tend_at = 0.0
        self.keeps_acks = True
        self._url = url
        self._options = dict(options or {})
        self._queues = tuple(queues)
        self._fleet, self._replica = fleet, replica
        self._entities = entities if entities is not None else {}
        self._connections = Connections(f"{fleet}/{replica}")
        self._held = self.ends = Held(kept)
        self._turns = Turns(self._held, self._connections)
        self._tending = Tending(self._held, self._connections, lease_seconds=lease_seconds)
        self._inboxes, self._rest = self._connections.inboxes, self._connections.rest
        self._ran = ran

    @_speaks
    def open(self) -> None:
        """Connect, declare the queues, take back what an earlier process of this replica still held."""
        self._connections.hang_up()
        access = redis_access(self._url, self._options)
        link = self._connections.open(access)
        again = self._turns.next_tag > 0
        now_us = _server_time_us(link)
        if not again:
            self._turns.next_tag = now_us
            self._keys = self._held.keys = Keys(access.prefix, holder_name(self._fleet, self._replica, now_us))
        else:
            self._held.adopt_again(link)
        self._lay_out(access)
        self._inboxes.wait_anew(access)
        topics, tending = self._bind(link), self._tending
        given_away = tending.renew(link)
        self._inboxes.listen(access, topics)
        patience_seconds = tending.lease_seconds if again else _patience(link, tending.lease_seconds)
        tending.look_at = time.monotonic() + patience_seconds
        self._held.send_acks(link)
        if again:
            self._held.resume(link, given_away=given_away)
            self._inboxes.may_hold = True
        else:
            self._held.keep_unsent(link)
        tending.registry.restore_siblings(link, self._fleet, self._replica, ran=self._ran)

    @_speaks
    def consume(self, queues: Sequence[QueueSpec]) -> None:
        """From now on fetch from these queues and no others. What arrived from others goes back."""
        before, self._queues = self._queues, tuple(queues)
        self._inboxes.leave(before, queues)
        if not self._connections.is_open:
            return
        link, inboxes = self._connections.main(), self._inboxes
        inboxes.disarm(self._connections.main)
        inboxes.stop()
        topics = self._bind(link)
        self._lay_out(self._access)
        inboxes.wait_anew(self._access)
        self._tending.renew_or_forget(link)  # other replicas know the new inboxes before anything can be in them
        inboxes.listen(self._access, topics)

    @_speaks
    def backlog(self) -> int | None:
        """How many messages wait in the consumed queues, due ones among the delayed and arrived ones included."""
        queues = [spec.name for spec in self._queues]
        link, now_ms = self._connections.speaking(), self._tending.registry.now_ms
        return _backlog(link, self._access, self._keys, queues, now_ms=now_ms)

    @_speaks
    def fetch(self, count: int, ahead: int = 0) -> list[Delivery]:
        """Up to ``count`` messages that are there now, and ``ahead`` more; sends buffered acknowledgements too. 0 stops
        the waiting.

        The channel waits on the queues only after a fetch that brought less than was asked for.
        """
        inboxes, main, deliveries = self._inboxes, self._connections.main, list[Delivery]()
        if count > 0:
            inboxes.collect(main)
            if (adopted := self._turns.adopt(count, is_sure=self._tending.registry.is_sure)) is not None:
                self.poll_seconds = 0.0  # the next fetch comes at once, looks for more, and waits
                return [adopted]
            if not (inboxes.to_be_emptied or self._held.acks or self._connections.needs_turn):
                self.poll_seconds = self._rest.poll_seconds
                self._connections.wait(tend_at=self.tend_at)
                return []
            deliveries = self._turn(count, ahead)
            if not deliveries and self._rest.is_to_watch(watches=inboxes.watches) and inboxes.watch(main):
                deliveries = self._turn(count, ahead)  # what came just before is not told
            if deliveries:
                self._rest.end()
            self._rest.on_turn(watches=inboxes.watches, due_seconds=self._turns.due_seconds)
            self.poll_seconds = self._rest.poll_seconds
            if len(deliveries) < count:
                self._connections.wait(tend_at=self.tend_at)
                return deliveries
        inboxes.disarm(main)
        self._rest.stop()
        if inboxes.may_hold or (not count and self._held.acks):
            self._turn(0)
        return deliveries

    @property
    def rest_seconds(self) -> float:
        return self._tending.rest_seconds

    @_speaks
    def rest_is_over(self) -> bool:
        self._inboxes.collect(self._connections.main)
        return self._tending.at_rest and self._inboxes.idle_link is not None

    @property
    def pushed(self) -> int:
        """0: what arrives waits in an inbox at the server."""
        return 0

    def wait_fds(self) -> Sequence[int]:
        """Descriptors that become readable when a fetch may bring something."""
        return self._inboxes.fds()

    def fds(self) -> Sequence[int]:
        """Every socket of this channel, for a forked child to close."""
        return self._connections.fds()

    def holds(self, delivery: Delivery) -> bool:
        return delivery.tag in self._held

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge these; sent with the next turn, or by ``tend`` within a second."""
        with self.lock:
            self._held.ack(deliveries)

    @_speaks
    def give_back(self, deliveries: Sequence[Delivery], *, unmarked: bool = False) -> None:
        """Put these back to the head of their queues, in order, now."""
        self._held.give_back(self._connections.main(), deliveries, unmarked=unmarked)

    def reject(self, deliveries: Sequence[Delivery]) -> None:
        """Drop these: Redis has no dead letters of its own."""
        self.ack(deliveries)

    def keeps_rejected(self, queue: str) -> bool:  # noqa: ARG002
        """Never."""
        return False

    @_speaks
    def delay(self, delivery: Delivery, *, due: float) -> bool:
        if delivery.tag in self._held:
            self._held.delay(self._connections.main(), delivery, due=due)
        return True

    @_speaks
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
        """Send a message and acknowledge ``acks``, both or neither.

        After ChannelLost it may have happened or not: once open again, :meth:`holds` tells.
        """
        envelope = sealed(
            queue,
            body,
            headers=headers,
            properties=properties,
            content_type=content_type,
            content_encoding=content_encoding,
        )
        to = self._access.list_of(queue, properties.get("priority"))
        self._held.send(self._connections.main(), envelope, to=to, acks=acks)

    @_speaks
    def broadcast(self, topic: str, payload: bytes, *, hear: Callable[[int | None], object]) -> None:
        """Let whoever subscribes to this topic have it. The answer is not waited for.

        hear: gets it, some time: how many had it; None where this user may not tell them.
        """
        told = command("PUBLISH", topic, payload)
        self._connections.speaking().tell(told, hear=lambda answer: hear(answer if isinstance(answer, int) else None))

    @_speaks
    def flush(self) -> None:
        if self._held.acks:
            self._held.send_acks(self._connections.speaking())

    @_speaks
    def tend(self) -> None:
        self._tending.tend()

    def close(self) -> None:
        """Flush, give back what is held and not acknowledged, disconnect. Never raises."""
        with self.lock:
            # If this fails, the lease runs out, and the next replica that looks restores what is left.
            with suppress(ChannelLost, redis.RedisError, OSError):
                _give_up(self._connections, self._held, self._tending.registry)
            self._connections.hang_up()

    def _turn(self, count: int, ahead: int = 0) -> list[Delivery]:
        while (found := self._turns.take(count, ahead)) is None:
            self._tending.renew_or_forget(self._connections.speaking())
        return found

    def _lay_out(self, access: RedisAccess) -> None:
        """Prepare one turn over the queues. The holder's name stays: the next process finds what this one held."""
        self._access = access
        self._turns.plan = TakePlan(access, self._keys, self._queues)
        self._inboxes.lay_out(access, self._keys, self._queues)
        self._tending.lay_out(access, self._keys)

    def _bind(self, link: Link) -> dict[str, str]:
        queues = {spec.name: entity(spec.name, self._entities) for spec in self._queues}
        return bind(self._url, queues, options=self._options, link=link, access=self._access)


def _give_up(connections: Connections, held: Held, registry: Registry) -> None:
    """Give everything back, and the lease where nothing more can arrive."""
    link, inboxes = connections.main(), connections.inboxes
    inboxes.collect_broadcasts(connections.main)
    held.send_acks(link)
    inboxes.disarm(connections.main)
    held.give_all_back(link)
    if inboxes.empty_all(link):
        registry.leave(link)


def _server_time_us(link: Link) -> int:
    seconds, micros = link.call("TIME")
    return int(seconds) * 1_000_000 + int(micros)


def _backlog(link: Link, access: RedisAccess, keys: Keys, queues: Sequence[str], *, now_ms: int) -> int:
    commands: list[tuple[Any, ...]] = []
    for name in queues:
        commands += [("LLEN", one) for one in (*access.lists(name), keys.inbox(name))]
        commands.append(("ZCOUNT", keys.delayed(name), "-inf", now_ms))
    return sum(int(count) for count in link.call_many(commands))


def _patience(link: Link, lease_seconds: float) -> float:
    """Seconds not to restore what others held: after a server was away, all need time to renew their leases."""
    try:
        info = dict(line.split(b":", 1) for line in link.call("INFO", "server").splitlines() if b":" in line)
        return max(0.0, lease_seconds - float(info[b"uptime_in_seconds"]))
    except (redis.ResponseError, KeyError, ValueError):
        return lease_seconds
