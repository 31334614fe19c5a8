"""Queues as Celery declares them, so that its producers and workers may share them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import kombu
from kombu.transport import virtual

from fleet.errors import FleetError

log = logging.getLogger("fleet.worker")

DEAD_SUFFIX = ".dead"
"""``<queue>.dead``: where fleet puts dead letters of a queue."""
_SENDABLE = ("correlation_id", "reply_to", "priority", "message_id", "timestamp", "type", "app_id")
_NOT_FOUND = "404"


def entity(name: str, entities: Mapping[str, Any]) -> kombu.Queue:
    """The app's own queue of that name, else Celery's default: durable, bound to a direct exchange of the same name."""
    if (own := entities.get(name)) is not None:
        return own
    return kombu.Queue(name, kombu.Exchange(name, type="direct", durable=True), routing_key=name, durable=True)


def real_name(name: str, entities: Mapping[str, Any]) -> str:
    """What the broker calls this queue: an app may give it an alias, as for a ``Broadcast``."""
    own = entities.get(name)
    return name if own is None else str(own.name)


def has_dead_letter_exchange(name: str, entities: Mapping[str, Any]) -> bool:
    """Whether the app's own arguments of a queue say where its dead letters go."""
    own = entities.get(name)
    return own is not None and "x-dead-letter-exchange" in (own.queue_arguments or {})


def refuse_fanout(names: Iterable[str], entities: Mapping[str, Any]) -> None:
    """For transports where fleet reads queues and nothing else: no queue ever holds such a message.

    Raises FleetError.
    """
    for name in names:
        own = entities.get(name)
        if own is not None and own.exchange is not None and own.exchange.type == "fanout":
            raise FleetError(
                f"queue {name!r} is bound to a fanout exchange (a Broadcast), read on RabbitMQ and Redis only",
                hint="run a Celery worker for it (`worker: celery`), or name the group's other queues",
            )


def sendable(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Those properties that a message is sent with: what a transport added when it delivered is not among them."""
    return {name: properties[name] for name in _SENDABLE if properties.get(name) is not None}


def declare(connection: Any, queue: kombu.Queue) -> None:
    """Declare a queue, or take it as it is where it exists with other arguments or may not be declared.

    Each try has a channel of its own, because the broker closes the channel over such a refusal.
    """
    try:
        with _scratch(connection) as channel:
            queue(channel).declare()
    except connection.channel_errors as error:
        log.error("the broker refuses to declare queue %s, which is used as it is there: %s", queue.name, error)
        with _scratch(connection) as channel:
            queue(channel).queue_declare(passive=True)


def backlog(connection: Any, names: Iterable[str]) -> int | None:
    """How many messages are ready in these queues; None where none of them can tell."""
    gauge = Gauge(connection)
    counts = [count for name in names if (count := gauge.ready(name)) is not None]
    gauge.close()
    return sum(counts) if counts else None


class Gauge:
    """How many messages are ready in a queue, asked over one channel for as long as the broker keeps it open."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel: Any = None

    def ready(self, name: str, *, missing: int | None = None) -> int | None:
        """None where the broker or the transport does not tell; ``missing`` where there is no such queue.

        Raises what kombu raises for a connection that is lost.
        """
        try:
            if self._channel is None:
                self._channel = self._connection.channel()
            if not _can_count(self._channel):
                return None
            return int(kombu.Queue(name)(self._channel).queue_declare(passive=True).message_count)
        except self._connection.channel_errors as error:
            self.close()  # the broker has closed it over this
            return missing if str(getattr(error, "reply_code", "")) == _NOT_FOUND else None

    def close(self) -> None:
        """Close the channel; the next question opens a new one."""
        channel, self._channel = self._channel, None
        if channel is not None:
            with suppress(Exception):
                channel.close()


def _can_count(channel: Any) -> bool:
    """Whether the transport can count; one that cannot says 0 in any case."""
    return not isinstance(channel, virtual.Channel) or type(channel)._size is not virtual.Channel._size


class _scratch:  # noqa: N801
    """A channel for one request."""

    def __init__(self, connection: Any) -> None:
        self._channel = connection.channel()

    def __enter__(self) -> Any:
        return self._channel

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self._channel.close()
