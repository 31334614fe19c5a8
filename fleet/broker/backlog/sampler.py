"""What waits at the broker, asked again and again: how much, for how long, and which holder has what."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fleet.broker.connection import is_redis, unreachable
from fleet.core.autoscale.sample import Backlog, QueueSample
from fleet.core.text.mask import masked, masked_text
from fleet.errors import Unreachable

ANSWER_SECONDS = 5.0


class Source(Protocol):
    """An open connection to a broker that can be asked what waits. Every call may raise whatever its driver does."""

    def sample(self, queues: Sequence[str]) -> Backlog:
        """What waits now."""
        ...

    def close(self, *, lost: bool) -> None:
        """Disconnect; when lost, without the closing handshake, which might never be answered."""
        ...


class Sampler:
    """Looks at one broker over one connection that is kept, and made again when it was lost. For one thread.

    answer_seconds: how long to wait for a connection, and for each answer.
    """

    def __init__(
        self,
        url: str,
        *,
        fleet: str,
        options: Mapping[str, Any] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.url = url
        self.fleet = fleet
        self._options = dict(options or {})
        self._answer_seconds = answer_seconds
        self._source: Source | None = None

    def sample(self, queues: Sequence[str]) -> Backlog:
        """What waits now. A broker that cannot be asked is no error: nothing is known then, and ``problem`` says why.

        A connection that was lost since the last look is made again at once, unless finding out took its time.
        """
        kept, began = self._source is not None, time.monotonic()
        sample = self._look(queues)
        was_lost = kept and self._source is None
        return self._look(queues) if was_lost and time.monotonic() - began < self._answer_seconds else sample

    def close(self) -> None:
        """Disconnect. The next look connects again."""
        self._drop(lost=False)

    def __repr__(self) -> str:
        return f"<Sampler {masked(self.url)}>"

    def _look(self, queues: Sequence[str]) -> Backlog:
        try:
            source = self._source = self._source or self._connect()
            return source.sample(queues)
        except Exception as error:  # drivers raise anything when a broker goes away, and the caller must go on
            self._drop(lost=True)
            return Backlog(dict.fromkeys(queues, QueueSample()), problem=self._problem(error))

    def _connect(self) -> Source:
        from fleet.broker.backlog.kombu import KombuSource
        from fleet.broker.backlog.redis import RedisSource

        kind = RedisSource if is_redis(self.url) else KombuSource
        return kind(self.url, self._options, fleet=self.fleet, answer_seconds=self._answer_seconds)

    def _drop(self, *, lost: bool) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close(lost=lost)

    def _problem(self, error: Exception) -> str:
        told = error if isinstance(error, Unreachable) else unreachable(self.url, error)
        return masked_text(str(told))
