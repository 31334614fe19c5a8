"""One turn over the queues of a replica on Redis, as arguments of the script ``take``; and of ``adopt``, for a message
that needs no turn."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.broker.channels.redis.scripts import Prepared
from fleet.broker.connection import RedisAccess
from fleet.broker.redis_keys import Keys
from fleet.core.spec import QueueSpec


class TakePlan:
    """script: with all its keys.  sources: number of a key -> its queue, and the list.

    order: the numbers of the queues, in the order in which they are looked at, a 0 after each priority.
    adopts: list -> its queue and the script that records what comes from there; only lists that are looked at first.
    """

    def __init__(self, access: RedisAccess, keys: Keys, queues: Sequence[QueueSpec]) -> None:
        names = [keys.held, keys.leases]
        self.sources: dict[int, tuple[str, str]] = {}
        for spec in queues:
            for name in access.lists(spec.name):
                self.sources[len(names) + 1] = (spec.name, name)
                names.append(name)
            names += [keys.delayed(spec.name), keys.inbox(spec.name)]
        self.script = Prepared("take", names, (keys.holder, len(access.steps)))
        ranks = sorted({spec.priority for spec in queues}, reverse=True)
        numbered = list(enumerate(queues, 1))
        self._classes = [[number for number, spec in numbered if spec.priority == rank] for rank in ranks]
        self.adopts = {
            access.list_of(spec.name, 0): (spec.name, _adopt(access, keys, spec.name))
            for spec in queues
            if spec.priority == ranks[0]
        }
        self._rotates = any(len(members) > 1 for members in self._classes)
        self.order = self._in_order()

    def rotate(self) -> None:
        """Rotate queues of the same priority, so that a different one is first next time."""
        if self._rotates:
            for members in self._classes:
                members.append(members.pop(0))
            self.order = self._in_order()

    def _in_order(self) -> list[int]:
        return [number for members in self._classes for number in (*members, 0)]


def _adopt(access: RedisAccess, keys: Keys, queue: str) -> Prepared:
    names = (keys.held, keys.leases, keys.inbox(queue))
    # With its text: nobody waits for the answer, so nobody would say it again before the task begins.
    return Prepared("adopt", names, (keys.holder, access.list_of(queue, 0)), with_text=True)
