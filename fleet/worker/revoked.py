"""Ids of tasks that must not run: the newest ones, for a while."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable

MOST = 50_000
KEPT_SECONDS = 3 * 3600.0


class Revoked:
    """A set that forgets its oldest entries. Used by the loop and by the attendant."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ids: OrderedDict[str, float] = OrderedDict()

    def add(self, ids: Iterable[str]) -> None:
        """These must not run."""
        now = self._clock()
        for task_id in ids:
            self._ids[task_id] = now
            self._ids.move_to_end(task_id)
        while self._ids and (len(self._ids) > MOST or next(iter(self._ids.values())) < now - KEPT_SECONDS):
            self._ids.popitem(last=False)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def ids(self) -> list[str]:
        """All of them, oldest first."""
        return list(self._ids)
