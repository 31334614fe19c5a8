"""What the channels that go through kombu share: the connection, the declared queues, and what counts as a loss."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from fleet.broker.channels.base import ChannelLost
from fleet.broker.connection import broker_errors, connect_now, kombu_connection
from fleet.broker.queues import backlog, declare, entity
from fleet.core.spec import QueueSpec

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound="Connected")


def speaks(method: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
    """Hold the lock, and turn every failure of the connection into ChannelLost."""

    @wraps(method)
    def spoken(self: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            try:
                return method(self, *args, **kwargs)
            except Exception as error:
                if not self._is_loss(error):
                    raise
                self._hang_up(lost=True)
                raise ChannelLost(str(error) or type(error).__name__) from error

    return spoken


class Connected:
    """A channel over one kombu connection."""

    def __init__(
        self,
        url: str,
        *,
        queues: Sequence[QueueSpec],
        options: Mapping[str, Any] | None = None,
        entities: Mapping[str, Any] | None = None,
    ) -> None:
        self.lock = threading.RLock()
        self.tend_at = 0.0
        self._url = url
        self._queues = by_priority(queues)
        self._options = dict(options or {})
        self._entities = entities if entities is not None else {}
        self._connection: Any = None
        self._declared: set[str] = set()

    @speaks
    def backlog(self) -> int | None:
        """How many messages wait in the consumed queues, as far as the transport can count them."""
        self._require_open()
        return backlog(self._connection, [spec.name for spec in self._queues])

    def rest_is_over(self) -> bool:
        """Never: no wait ends by itself."""
        return False

    def _connect(self, options: Mapping[str, Any], *, heartbeat_seconds: float | None = None) -> Any:
        connection = self._connection = kombu_connection(
            self._url, options=options, heartbeat_seconds=heartbeat_seconds
        )
        connect_now(connection)
        return connection

    def _declare_all(self) -> None:
        for spec in self._queues:
            self._ensure_declared(spec.name)

    def _ensure_declared(self, queue: str) -> None:
        if queue not in self._declared:
            declare(self._connection, entity(queue, self._entities))
            self._declared.add(queue)

    def _rotate(self) -> None:
        """Rotate queues of the same priority, so that a different one is first next time."""
        if len(self._queues) > 1:
            self._queues = by_priority(self._queues[1:] + self._queues[:1])

    def _require_open(self) -> None:
        if self._connection is None:
            raise ChannelLost("the channel is not open")

    def _is_loss(self, error: Exception) -> bool:
        """Whether the connection is lost: py-amqp then raises AttributeError and the like too."""
        connection = self._connection
        if connection is None or isinstance(error, ChannelLost):
            return False
        return isinstance(error, broker_errors(connection)) or not connection.connected

    def _hang_up(self, *, lost: bool = False) -> None:
        """Close the connection; when lost, without the closing handshake, which might never be answered."""
        connection, self._connection = self._connection, None
        self._declared.clear()
        if connection is not None:
            with suppress(Exception):
                (connection.collect if lost else connection.release)()


def by_priority(queues: Sequence[QueueSpec]) -> tuple[QueueSpec, ...]:
    """The queues, urgent ones first, else in the order given."""
    return tuple(sorted(queues, key=lambda spec: -spec.priority))
