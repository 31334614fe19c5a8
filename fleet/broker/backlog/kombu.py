"""How every broker but Redis is asked what waits: through kombu."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.backoff import NoBackoff
from redis.retry import Retry

from fleet.broker.connection import (
    REDIS_SCHEMES,
    connect_now,
    is_rabbitmq,
    kombu_connection,
    scheme,
)
from fleet.broker.envelope import ASKED_MESSAGES, SENT_AT_HEADER, agreed, headers_of, waits_since
from fleet.broker.queues import Gauge
from fleet.core.autoscale.sample import Backlog, QueueSample
from fleet.core.text.format import listed
from fleet.core.text.mask import masked


class KombuSource:
    """Every broker that kombu knows. RabbitMQ tells how many messages are ready, not since when."""

    def __init__(self, url: str, options: Mapping[str, Any], *, fleet: str, answer_seconds: float) -> None:  # noqa: ARG002
        self._url = url
        limits = _limits(url, options, answer_seconds)
        connection = kombu_connection(url, options={**options, **limits}, answer_seconds=answer_seconds)
        connection.heartbeat = 0  # none are sent between two looks
        self._connection = connection
        self._gauge = Gauge(connection)
        connect_now(connection, within_seconds=answer_seconds)
        self._channel: Any = None

    def sample(self, queues: Sequence[str]) -> Backlog:
        """One question per queue, or one look where all of them lie."""
        look = _LOOKS.get(self._connection.transport.driver_name)
        if look is None:
            found = {queue: QueueSample(self._gauge.ready(queue, missing=0)) for queue in queues}
        else:
            self._channel = self._channel or self._connection.channel()
            found = look(self._channel, queues)
        silent = [queue for queue in queues if found[queue].waiting is None]
        problem = f"the broker {masked(self._url)} does not tell what waits in {listed(silent)}" if silent else ""
        return Backlog(found, problem=problem)

    def close(self, *, lost: bool) -> None:
        """Disconnect."""
        with suppress(Exception):
            (self._connection.collect if lost else self._connection.release)()


def _limits(url: str, options: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Transport options that bound every wait, where the transport has some."""
    if is_rabbitmq(url):
        return {"read_timeout": seconds, "write_timeout": seconds, "confirm_publish": False}
    if scheme(url) not in REDIS_SCHEMES and scheme(url) != "sentinel":
        return {}
    sockets = {"socket_timeout": seconds, "socket_connect_timeout": seconds}
    of_sentinels = {**(options.get("sentinel_kwargs") or {}), **sockets, "retry": Retry(NoBackoff(), 0)}
    return {**sockets, "sentinel_kwargs": of_sentinels} if scheme(url) == "sentinel" else sockets


def _in_folder(channel: Any, queues: Sequence[str]) -> dict[str, QueueSample]:
    """The filesystem transport: one file per message, ``<when>_<id>.<queue>.msg``, written when it was sent."""
    moments: dict[str, list[float]] = {f"{queue}.msg": [] for queue in queues}
    with os.scandir(channel.data_folder_in) as files:
        for file in files:
            of_queue = moments.get(file.name.partition(".")[2])
            if of_queue is not None:
                with suppress(FileNotFoundError):  # a worker has just taken it
                    of_queue.append(file.stat().st_mtime)
    return {queue: _of_moments(moments[f"{queue}.msg"]) for queue in queues}


def _of_moments(moments: Sequence[float]) -> QueueSample:
    return QueueSample(len(moments), min(moments, default=None))


def _in_tables(channel: Any, queues: Sequence[str]) -> dict[str, QueueSample]:
    """The SQLAlchemy transport: one row per message, invisible once it was delivered."""
    try:
        return {queue: _in_table(channel, queue) for queue in queues}
    finally:
        channel.session.rollback()  # nothing was written; a reader that lingers keeps SQLite's writers out


def _in_table(channel: Any, queue: str) -> QueueSample:
    row, of = channel.message_cls, channel.queue_cls
    rows = channel.session.query(row).join(of, row.queue_id == of.id).filter(of.name == queue, row.visible.is_(True))
    waiting = rows.count()
    first = rows.with_entities(row.payload).order_by(row.sent_at, row.id).limit(ASKED_MESSAGES).all() if waiting else ()
    headers = [headers_of(payload) for (payload,) in first]
    return QueueSample(waiting, agreed([waits_since(one.get(SENT_AT_HEADER), one.get("eta")) for one in headers]))


_LOOKS: Mapping[str, Callable[[Any, Sequence[str]], dict[str, QueueSample]]] = {
    "filesystem": _in_folder,
    "sqlalchemy": _in_tables,
}
"""How to look, by kombu's name of the transport; all others are asked queue by queue."""
