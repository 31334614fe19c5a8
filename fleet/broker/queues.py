"""Queues as Celery declares them, so that its producers and workers may share them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

import kombu

_SENDABLE = ("correlation_id", "reply_to", "priority", "message_id", "timestamp", "type", "app_id")


def entity(name: str, entities: Mapping[str, Any]) -> kombu.Queue:
    """The app's own queue of that name, else Celery's default: durable, bound to a direct exchange of the same name."""
    if (own := entities.get(name)) is not None:
        return own
    return kombu.Queue(name, kombu.Exchange(name, type="direct", durable=True), routing_key=name, durable=True)


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
    except connection.channel_errors:
        with _scratch(connection) as channel:
            queue(channel).queue_declare(passive=True)


def backlog(connection: Any, names: Iterable[str]) -> int | None:
    """How many messages are ready in these queues; None where none of them can tell."""
    counts = [count for name in names if (count := _depth(connection, name)) is not None]
    return sum(counts) if counts else None


def _depth(connection: Any, name: str) -> int | None:
    try:
        with _scratch(connection) as channel:
            return int(kombu.Queue(name)(channel).queue_declare(passive=True).message_count)
    except connection.channel_errors:
        return None


class _scratch:  # noqa: N801
    """A channel for one request."""

    def __init__(self, connection: Any) -> None:
        self._channel = connection.channel()

    def __enter__(self) -> Any:
        return self._channel

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self._channel.close()
