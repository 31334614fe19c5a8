"""The Redis channel: kombu's lists and envelopes, one atomic turn per fetch instead of three round trips per message.

Producers are stock Celery or kombu, and Celery's workers may share a queue. What Celery's workers hold (kombu's
``unacked``) is theirs and never touched. Redis Cluster is not supported: one turn spans several keys.

What is promised: a message is in its list, in the inbox or the held set of a replica, or in a delayed set, at every
moment until it is acknowledged. Acknowledgements may be buffered until the next turn, for a second at most; a replica
killed in that second runs the task again. After a lost connection the replica keeps what it has in memory: the lease
covers it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import redis

from fleet.broker.connection import RedisAccess, connect_now, kombu_connection, redis_access
from fleet.broker.envelope import opened, sealed
from fleet.broker.keys import Keys
from fleet.broker.queues import entity
from fleet.core.spec import QueueSpec
from fleet.errors import Unreachable
from fleet.worker.channels.holders import Registry, holder_name
from fleet.worker.channels.scripts import Link, Prepared
from fleet.worker.channels.waiting import BLOCK_SECONDS, Waiting
from fleet.worker.delivery import ChannelLost, Delivery

LEASE_SECONDS = 15.0
POLL_SECONDS = 0.5
_ACKS_AT_ONCE = 500
_NO_LEASE = -2

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
                self._hang_up()
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
    ) -> None:
        self.lock = threading.RLock()
        self.poll_seconds: float | None = POLL_SECONDS
        self._url = url
        self._options = dict(options or {})
        self._queues = tuple(queues)
        self._left: dict[str, None] = {}
        self._replica = replica
        self._fleet = fleet
        self._entities = dict(entities or {})
        self._lease_seconds = lease_seconds
        self._link: Link | None = None
        self._waiting: Waiting | None = None
        self._registry: Registry | None = None
        self._held: dict[str, bytes] = {}
        self._acks: list[str] = []
        self._unsure: set[str] = set()
        self._inbox_may_hold = False
        self._late_until = 0.0
        self._next_tag = 0
        self._renew_at = self._look_at = 0.0

    @_speaks
    def open(self) -> None:
        """Connect, declare the queues, take back what an earlier life of this replica still held."""
        self._hang_up()
        access = redis_access(self._url, self._options)
        link = self._link = Link(access, name=f"fleet:{self._fleet}/{self._replica}")
        again = self._next_tag > 0
        now_us = _server_time_us(link)
        if not again:
            self._next_tag = now_us
            self._keys = Keys(access.prefix, holder_name(self._fleet, self._replica, now_us))
        self._lay_out(access)
        registry = self._own(self._registry)
        self._wait_anew()
        self._declare()
        given_away = self._renew(link, look=False)
        self._look_at = time.monotonic() + self._patience(link, again=again)
        self._send_acks(link)
        if again:
            self._resume(link, given_away=given_away)
        registry.restore_siblings(link, self._fleet, self._replica)

    @_speaks
    def consume(self, queues: Sequence[QueueSpec]) -> None:
        """From now on fetch from these queues and no others. What arrived from others goes back."""
        before, self._queues = self._queues, tuple(queues)
        names = {spec.name for spec in queues}
        self._left.update(dict.fromkeys(spec.name for spec in before if spec.name not in names))
        for name in names:
            self._left.pop(name, None)
        if self._link is None:
            return
        link, waiting = self._link, self._own(self._waiting)
        self._inbox_may_hold |= waiting.disarm(link)
        self._stop_waiting()
        self._declare()
        self._lay_out(self._access)
        self._wait_anew()
        if self._renew(link, look=False):  # the new inboxes are known to others before anything can be in them
            self._forget_given_away(link)

    @_speaks
    def backlog(self) -> int | None:
        """How many messages wait in the consumed queues, due ones among the delayed and arrived ones included."""
        link = self._own(self._link)
        commands: list[tuple[Any, ...]] = []
        now_ms = _server_time_us(link) // 1000
        for spec in self._queues:
            commands += [("LLEN", name) for name in (*self._access.lists(spec.name), self._keys.inbox(spec.name))]
            commands.append(("ZCOUNT", self._keys.delayed(spec.name), "-inf", now_ms))
        return sum(int(count) for count in link.call_many(commands))

    @_speaks
    def fetch(self, count: int) -> list[Delivery]:
        """Up to ``count`` messages that are there now; buffered acknowledgements ride along. 0 stops the waiting.

        The channel waits on the queues only after a fetch that brought less than was asked for.
        """
        link, waiting = self._own(self._link), self._own(self._waiting)
        if count > 0:
            self._inbox_may_hold |= waiting.collect()
            deliveries = self._turn(link, count)
            if len(deliveries) < count:
                waiting.arm()
                return deliveries
        else:
            deliveries = []
        self._inbox_may_hold |= waiting.disarm(link)
        if self._inbox_may_hold or (not count and self._acks):
            self._turn(link, 0)
        return deliveries

    @property
    def pushed(self) -> int:
        """None: what arrives is in an inbox at the server, for an instant."""
        return 0

    def wait_fds(self) -> Sequence[int]:
        """Descriptors that become readable when a fetch may bring something."""
        return self._waiting.fds() if self._waiting is not None else ()

    def fds(self) -> Sequence[int]:
        """Every socket of this channel, for a forked child to close."""
        links = [self._link.fileno()] if self._link is not None else []
        return links + (self._waiting.sockets() if self._waiting is not None else [])

    def holds(self, delivery: Delivery) -> bool:
        """Whether this message is still ours to run and acknowledge."""
        return delivery.tag in self._held

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        """Done with these; told to the server with the next turn, or by ``tend`` within a second."""
        with self.lock:
            for delivery in deliveries:
                if self._held.pop(delivery.tag, None) is not None:
                    self._acks.append(delivery.tag)

    @_speaks
    def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Put these back to the head of their queues, in order, now."""
        tags = [delivery.tag for delivery in deliveries if self._held.pop(delivery.tag, None) is not None]
        self._restore(self._own(self._link), tags)

    @_speaks
    def delay(self, delivery: Delivery, *, due: float) -> bool:
        """Let the broker keep a message until ``due`` (Unix time)."""
        if delivery.tag in self._held:
            keys = self._keys
            arguments = (delivery.tag, int(due * 1000))
            self._unsure.add(delivery.tag)
            self._own(self._link).run("delay", (keys.held, keys.delayed(delivery.queue)), arguments)
            self._unsure.discard(delivery.tag)
            self._held.pop(delivery.tag, None)
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
        tags = [delivery.tag for delivery in acks if delivery.tag in self._held]
        self._unsure.update(tags)
        target = self._access.list_of(queue, properties.get("priority"))
        self._own(self._link).run("send", (target, self._keys.held), (envelope, *tags))
        for tag in tags:
            self._held.pop(tag, None)
        self._unsure.difference_update(tags)

    @_speaks
    def flush(self) -> None:
        """Send what is buffered, now."""
        self._send_acks(self._own(self._link))

    @_speaks
    def tend(self) -> None:
        """Send what is buffered; renew the lease and look after vanished replicas when it is time."""
        link = self._own(self._link)
        self._send_acks(link)
        now = time.monotonic()
        if now >= self._renew_at and self._renew(link, look=now >= self._look_at):
            self._forget_given_away(link)

    def close(self) -> None:
        """Flush, give back what is held and not acknowledged, disconnect. Never raises."""
        with self.lock:
            # Where this fails the lease runs out, and the next replica to look restores what is left.
            with suppress(ChannelLost, redis.RedisError, OSError):
                self._give_up()
            self._hang_up()

    # ---- one turn

    def _turn(self, link: Link, count: int) -> list[Delivery]:
        if len(self._acks) > _ACKS_AT_ONCE:
            self._send_acks(link)
        acks, first = len(self._acks), self._next_tag
        self._next_tag += count
        empty_inboxes = int(self._inbox_may_hold or time.monotonic() < self._late_until)
        arguments = (count, first, empty_inboxes, acks, *self._acks, *(self._order if count else ()))
        reply = link.run_prepared(self._take, arguments)
        del self._acks[:acks]
        if reply[0] == _NO_LEASE:
            if self._renew(link, look=False):
                self._forget_given_away(link)
            return self._turn(link, count)
        self._inbox_may_hold = False
        self._expect_due(reply[0], count)
        return self._delivered(first, reply)

    def _delivered(self, first: int, reply: Sequence[Any]) -> list[Delivery]:
        now = time.monotonic()
        deliveries = []
        for index in range(1, len(reply), 2):
            queue, source = self._sources[reply[index]]
            raw = reply[index + 1]
            tag = str(first + index // 2)
            self._held[tag] = source + raw
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
        if deliveries and self._rotates:
            self._rotate()
        return deliveries

    def _expect_due(self, milliseconds: int, count: int) -> None:
        """Poll sooner when a delayed message is due sooner."""
        if count:
            self.poll_seconds = POLL_SECONDS if milliseconds < 0 else min(POLL_SECONDS, milliseconds / 1000 + 0.005)

    def _rotate(self) -> None:
        """Let another queue of the same priority be the first next time."""
        for members in self._classes:
            members.append(members.pop(0))
        self._order = [number for members in self._classes for number in (*members, 0)]

    # ---- pieces

    def _lay_out(self, access: RedisAccess) -> None:
        """Write down one turn over the queues. The holder stays who it is: its next life finds what this one held."""
        self._access = access
        keys = self._keys
        take_keys = [keys.held, keys.leases]
        self._sources: dict[int, tuple[str, bytes]] = {}
        for spec in self._queues:
            for name in access.lists(spec.name):
                self._sources[len(take_keys) + 1] = (spec.name, name.encode() + b"\n")
                take_keys.append(name)
            take_keys += [keys.delayed(spec.name), keys.inbox(spec.name)]
        self._take = Prepared("take", take_keys, (keys.holder, len(access.steps)))
        ranks = sorted({spec.priority for spec in self._queues}, reverse=True)
        numbered = list(enumerate(self._queues, 1))
        self._classes = [[number for number, spec in numbered if spec.priority == rank] for rank in ranks]
        self._rotates = any(len(members) > 1 for members in self._classes)
        self._order = [number for members in self._classes for number in (*members, 0)]
        inboxes = {inbox: source for source, inbox in self._inbox_pairs(*self._left)}
        self._registry = Registry(access, keys, inboxes, lease_seconds=self._lease_seconds)

    def _inbox_pairs(self, *more: str) -> list[tuple[str, str]]:
        names = [*(spec.name for spec in self._queues), *more]
        return [(self._access.list_of(name, 0), self._keys.inbox(name)) for name in names]

    def _wait_anew(self) -> None:
        """Waiting connections for the queues there are now; they are made when they are first needed."""
        pairs, name = self._inbox_pairs(), f"fleet-wait:{self._fleet}/{self._replica}"
        self._waiting = Waiting(self._access, pairs, name=name)

    def _declare(self) -> None:
        """Bind the queues as kombu's consumers do: a producer that publishes to the exchange finds them."""
        connection = kombu_connection(self._url, options=self._options)
        try:
            connect_now(connection)
            channel = connection.default_channel
            for spec in self._queues:
                entity(spec.name, self._entities)(channel).declare()
        except Unreachable:
            raise
        except Exception as error:
            raise ChannelLost(f"cannot declare the queues: {error}") from error
        finally:
            connection.release()

    def _renew(self, link: Link, *, look: bool) -> bool:
        registry = self._own(self._registry)
        self._renew_at = time.monotonic() + registry.renew_seconds
        self._empty_inboxes(link, self._inbox_pairs(*self._left)[len(self._queues) :])
        return registry.renew(link, look=look)

    def _patience(self, link: Link, *, again: bool) -> float:
        """How long not to look after others: after a server was away, all need time to renew their leases."""
        if again:
            return self._lease_seconds
        try:
            info = dict(line.split(b":", 1) for line in link.call("INFO", "server").splitlines() if b":" in line)
            return max(0.0, self._lease_seconds - float(info[b"uptime_in_seconds"]))
        except (redis.ResponseError, KeyError, ValueError):
            return self._lease_seconds

    def _send_acks(self, link: Link) -> None:
        while batch := self._acks[:_ACKS_AT_ONCE]:
            link.call("HDEL", self._keys.held, *batch)
            del self._acks[: len(batch)]

    def _restore(self, link: Link, tags: Sequence[str]) -> None:
        """Put held messages back, the first of ``tags`` to be the next that is taken."""
        if tags:
            pairs = [part for tag in reversed(tags) for part in (tag, "")]
            link.run("restore", (self._keys.held, self._keys.mark), (0, *pairs))

    def _resume(self, link: Link, *, given_away: bool) -> None:
        """Make the server's record and our memory agree again after a lost connection.

        What it recorded and we never saw goes back. What we have and it lost (it came back without its last seconds) is
        recorded again, unless it was given to others or may have been acknowledged by the very call that was cut.
        """
        recorded = {tag.decode() for tag in link.call("HKEYS", self._keys.held)}
        self._restore(link, sorted(recorded - self._held.keys(), key=int))
        for tag in self._held.keys() - recorded:
            if given_away or tag in self._unsure:
                del self._held[tag]
            else:
                link.call("HSETNX", self._keys.held, tag, self._held[tag])
        self._unsure.clear()
        self._inbox_may_hold = True

    def _forget_given_away(self, link: Link) -> None:
        recorded = {tag.decode() for tag in link.call("HKEYS", self._keys.held)}
        for tag in self._held.keys() - recorded:
            del self._held[tag]

    def _give_up(self) -> None:
        link, waiting, registry = self._own(self._link), self._own(self._waiting), self._own(self._registry)
        self._send_acks(link)
        waiting.disarm(link)
        self._restore(link, sorted(self._held, key=int))
        self._held.clear()
        self._empty_inboxes(link, self._inbox_pairs(*self._left))
        if waiting.certain and time.monotonic() >= self._late_until:
            registry.leave(link)

    def _empty_inboxes(self, link: Link, pairs: Sequence[tuple[str, str]]) -> None:
        if pairs:
            link.run("empty_inbox", [key for source, inbox in pairs for key in (inbox, source)], ())

    def _own(self, part: _Part | None) -> _Part:
        if part is None:
            raise ChannelLost("the channel is not open")
        return part

    def _hang_up(self) -> None:
        """Let go of all connections. The server may not know yet, and still move a message into an inbox."""
        self._stop_waiting()
        if self._link is not None:
            self._link.close()
        self._link = None

    def _stop_waiting(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.close()
            if not waiting.certain:
                self._late_until = time.monotonic() + BLOCK_SECONDS + 10


_Part = TypeVar("_Part")


def _server_time_us(link: Link) -> int:
    seconds, micros = link.call("TIME")
    return int(seconds) * 1_000_000 + int(micros)
