"""What is published to a fanout exchange (a ``Broadcast``) on Redis: each replica puts its copy into its own inbox.

Redis keeps nothing of what is published: only who is connected gets it, as with Celery's worker. From the inbox on a
copy is a message like any other: held, acknowledged, restored when its replica dies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fleet.broker.channels.redis.scripts import Link
from fleet.broker.connection import RedisAccess

_MOST_AT_ONCE = 1000


class Broadcasts:
    """The subscriptions of one replica. ``name``: of their connection, as CLIENT LIST shows it."""

    def __init__(self, *, name: str) -> None:
        self._name = name
        self._link: Link | None = None
        self._inboxes: dict[bytes, str] = {}

    def listen(self, access: RedisAccess, topics: Mapping[str, str]) -> None:
        """Hear these topics from now on, and no others. topics: each with the inbox that its messages go to."""
        self.close()
        if not topics:
            return
        self._inboxes = {topic.encode(): inbox for topic, inbox in topics.items()}
        link = self._link = Link(access, name=self._name)
        link.send("PSUBSCRIBE", *topics)
        for _ in topics:
            link.read()

    def collect(self, main: Callable[[], Link]) -> bool:
        """Put what has come into the inboxes; whether anything has. Never waits for a message."""
        found: dict[str, list[bytes]] = {}
        for _ in range(_MOST_AT_ONCE):
            if self._link is None or not self._link.has_answer():
                break
            kind, pattern, *rest = self._link.read()
            if kind == b"pmessage":
                found.setdefault(self._inboxes[pattern], []).append(rest[-1])
        for inbox, messages in found.items():
            main().call("LPUSH", inbox, *messages)
        return bool(found)

    def fds(self) -> list[int]:
        """The socket that becomes readable when something has come."""
        return [self._link.fileno()] if self._link is not None else []

    def close(self) -> None:
        """Hear nothing any more."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
