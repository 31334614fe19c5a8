"""Channels: one interface to every broker, chosen by its URL."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fleet.broker.connection import is_rabbitmq, is_redis
from fleet.core.spec import QueueSpec

if TYPE_CHECKING:
    from fleet.broker.channels.base import Channel, Kept


def open_channel(
    url: str,
    *,
    queues: Sequence[QueueSpec],
    replica: str,
    fleet: str,
    prefetch_hint: int = 1,
    options: Mapping[str, Any] | None = None,
    entities: Mapping[str, Any] | None = None,
    kept: Kept | None = None,
    ran: Container[str] | None = None,
) -> Channel:
    """The channel for a broker, not yet open.

    prefetch_hint: the most messages the worker will hold at a time: its slots, and what it prefetches.
    options: kombu's transport options.  entities: kombu queues of the app by name, where it defines them itself.
    kept, ran: see RedisChannel; other brokers have no use for them.
    Raises Unreachable for a URL that no transport knows.
    """
    if is_redis(url):
        from fleet.broker.channels.redis.channel import RedisChannel

        return RedisChannel(
            url,
            queues=queues,
            replica=replica,
            fleet=fleet,
            options=options,
            entities=entities,
            kept=kept,
            ran=ran,
        )
    if is_rabbitmq(url):
        from fleet.broker.channels.rabbitmq.channel import RabbitChannel

        return RabbitChannel(url, queues=queues, prefetch_hint=prefetch_hint, options=options, entities=entities)
    from fleet.broker.channels.kombu import KombuChannel

    return KombuChannel(url, queues=queues, options=options, entities=entities)
