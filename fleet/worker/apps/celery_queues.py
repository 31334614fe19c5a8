"""The queues of a Celery app, as its own producers declare them: also those that are made when they are first named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleet.broker.queues import DEAD_SUFFIX


class AppQueues(Mapping[str, Any]):
    """Name or alias -> kombu queue. Looked up only: a name that is asked for does not become one of the app's queues.

    A queue of ours, for dead letters, is none of the app's.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        queues = self._app.amqp.queues
        if name in queues.aliases or name in queues:
            return queues[name]
        if name.endswith(DEAD_SUFFIX):
            raise KeyError(name)
        if name not in self._made:
            made = queues[name]  # KeyError where the app makes none
            queues.pop(name, None)
            self._made[name] = made
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        """Those that the app defines, by the names they are asked for with."""
        return iter([queue.alias or name for name, queue in self._app.amqp.queues.items()])

    def __len__(self) -> int:
        return len(self._app.amqp.queues)
