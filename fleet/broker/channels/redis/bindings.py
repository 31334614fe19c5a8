"""Binds a replica's queues on Redis as kombu's consumers do: a producer that publishes to the exchange finds them.

Replicas of a group bind the same queues, so mostly somebody has done it: to ask is one command on the connection that
is there, to do it by kombu takes a connection of its own and four commands. Bindings are kombu's sets, one for each
exchange, as its Redis transport names them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import kombu

from fleet.broker.channels.base import ChannelLost
from fleet.broker.channels.redis.scripts import Link
from fleet.broker.connection import RedisAccess, connect_now, kombu_connection
from fleet.errors import Unreachable


def bind(
    url: str, queues: Mapping[str, kombu.Queue], *, options: Mapping[str, Any], link: Link, access: RedisAccess
) -> dict[str, str]:
    """Bind these where they are not bound yet.  Topic -> name of the queue, of those with a fanout exchange.

    queues: by the name that the manifest gives them.
    """
    found = tuple(queues.values())
    return {} if all(map(_is_plain, found)) and _are_bound(link, access, found) else _declare(url, queues, options)


def _is_plain(queue: kombu.Queue) -> bool:
    """Whether to bind it is all that kombu would do: nothing expires, nobody hears of it, no topic is heard."""
    exchange = queue.exchange
    more = (queue.bindings, queue.queue_arguments, queue.expires, queue.auto_delete, queue.on_declared)
    return exchange is not None and exchange.type == "direct" and bool(exchange.name) and not any(more)


def _are_bound(link: Link, access: RedisAccess, queues: Sequence[kombu.Queue]) -> bool:
    from kombu.transport.redis import Channel

    sets = [Channel.keyprefix_queue]
    if permanent := getattr(Channel, "keyprefix_binding_permanent", ""):
        sets.append(permanent)  # newer versions of kombu forget bindings that are not in it as well
    asked = [
        ("SISMEMBER", access.prefix + name % (queue.exchange.name,), _member(queue, access))
        for queue in queues
        for name in sets
    ]
    return all(answer == 1 for answer in link.ask_many(asked))  # an error where this user may not ask


def _member(queue: kombu.Queue, access: RedisAccess) -> str:
    """A binding by its key alone, without a pattern."""
    return access.separator.join((queue.routing_key or "", "", queue.name))


def _declare(url: str, queues: Mapping[str, kombu.Queue], options: Mapping[str, Any]) -> dict[str, str]:
    connection = kombu_connection(url, options=options)
    topics: dict[str, str] = {}
    try:
        connect_now(connection)
        channel = connection.default_channel
        for name, queue in queues.items():
            bound = queue(channel)
            bound.declare()
            if bound.exchange is not None and bound.exchange.type == "fanout":
                found = getattr(channel, "_get_subscribe_topics", None)  # since kombu 5.7; before, each has one
                names = found(bound.name) if found is not None else [channel._get_subscribe_topic(bound.name)]
                topics.update({f"{channel.global_keyprefix}{topic}": name for topic in names})
    except Unreachable:
        raise
    except Exception as error:
        raise ChannelLost(f"cannot declare the queues: {error}") from error
    finally:
        connection.release()
    return topics
