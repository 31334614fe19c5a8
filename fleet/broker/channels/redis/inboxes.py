"""The inboxes of one replica on Redis: what arrives while it waits stays there until its next turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from fleet.broker.channels.base import ChannelLost
from fleet.broker.channels.redis.broadcasts import Broadcasts
from fleet.broker.channels.redis.scripts import Link
from fleet.broker.channels.redis.waiting import BLOCK_SECONDS, LATE_SECONDS, Arrival, Waiting
from fleet.broker.connection import RedisAccess
from fleet.broker.redis_keys import Keys
from fleet.core.spec import QueueSpec


class Inboxes:
    """One for each queue, those of queues that are consumed no more included. Waiting begins with ``wait_anew``.

    may_hold: a message may lie in one of them.  only: that one, where it is known and no other can be there.
    """

    def __init__(self, *, name: str) -> None:
        """name: of the waiting connections, as CLIENT LIST shows it."""
        self.may_hold = False
        self.only: Arrival | None = None
        self._name = name
        self._left: dict[str, None] = {}
        self._pairs: list[tuple[str, str]] = []
        self._left_pairs: list[tuple[str, str]] = []
        self._others: list[str] = []
        self._late_until = 0.0
        self._waiting: Waiting | None = None
        self._broadcasts = Broadcasts(name=name)
        self._keys: Keys | None = None

    def leave(self, before: Sequence[QueueSpec], after: Sequence[QueueSpec]) -> None:
        """``before`` were consumed, ``after`` are from now on."""
        names = {spec.name for spec in after}
        self._left.update(dict.fromkeys(spec.name for spec in before if spec.name not in names))
        for name in names:
            self._left.pop(name, None)

    def lay_out(self, access: RedisAccess, keys: Keys, queues: Sequence[QueueSpec]) -> None:
        """Set the keys of the inboxes of these queues."""
        self._keys = keys
        self._pairs = [(access.list_of(spec.name, 0), keys.inbox(spec.name)) for spec in queues]
        self._left_pairs = [(access.list_of(name, 0), keys.inbox(name)) for name in self._left]
        waited = {source for source, _ in self._pairs}
        names = [name for spec in queues for name in (*access.lists(spec.name), keys.delayed(spec.name))]
        self._others = [name for name in names if name not in waited]

    def sources(self) -> dict[str, str]:
        """Inbox -> the list from which messages come there."""
        return {inbox: source for source, inbox in (*self._pairs, *self._left_pairs)}

    # -- waiting

    def wait_anew(self, access: RedisAccess) -> None:
        """Replace the waiting connections; new ones are made when they are first needed."""
        self._waiting = Waiting(access, self._pairs, name=self._name, others=self._others)

    def listen(self, access: RedisAccess, topics: Mapping[str, str]) -> None:
        """Hear these topics of fanout exchanges, each for its queue, and no others."""
        assert self._keys is not None
        self._broadcasts.listen(access, {topic: self._keys.inbox(queue) for topic, queue in topics.items()})

    def stop(self) -> None:
        """Close them. The server may not know yet, and still move a message."""
        self._broadcasts.close()
        self.only = None
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.close()
            if not waiting.certain:
                self._late_until = time.monotonic() + BLOCK_SECONDS + LATE_SECONDS

    def arm(self, seconds: float) -> None:
        """Wait on every queue, on the first for so long at most."""
        self._own().arm(seconds)

    def collect(self, main: Callable[[], Link]) -> None:
        """Read the answers of the waiting connections, and what was published. Never blocks."""
        if arrivals := self._own().collect():
            is_only = len(arrivals) == 1 and arrivals[0].is_there and not self.to_be_emptied
            self.may_hold, self.only = True, arrivals[0] if is_only else None
        self.collect_broadcasts(main)

    def collect_broadcasts(self, main: Callable[[], Link]) -> None:
        """Put what was published into the inboxes."""
        if self._broadcasts.collect(main):
            self.may_hold, self.only = True, None

    def disarm(self, main: Callable[[], Link]) -> None:
        """Stop waiting."""
        if self._own().disarm(main):
            self.may_hold, self.only = True, None

    @property
    def is_armed(self) -> bool:
        """Whether the server may move a message now."""
        return self._own().is_armed

    @property
    def idle_link(self) -> Link | None:
        """The waiting connection on which nothing waits now, if there is one that can take other commands."""
        return self._waiting.idle_link if self._waiting is not None else None

    @property
    def watches(self) -> bool:
        """Whether the server tells of what comes to where no connection waits."""
        return self._waiting is not None and self._waiting.watches

    def watch(self, main: Callable[[], Link]) -> bool:
        """Let the server tell of that, once, from now on; whether it does. Stops the waiting."""
        self.disarm(main)
        return self._own().watch()

    def fds(self) -> list[int]:
        """Sockets that become readable when a message may have arrived."""
        waiting = self._waiting.fds() if self._waiting is not None else []
        return [*waiting, *self._broadcasts.fds()] if waiting else []

    def sockets(self) -> list[int]:
        """All sockets, waiting or not."""
        return [*(self._waiting.sockets() if self._waiting is not None else []), *self._broadcasts.fds()]

    # -- emptying

    def emptied(self) -> None:
        """What lay in them is where it came from."""
        self.may_hold = False
        self.doubt()

    def doubt(self) -> None:
        """Others may have emptied them."""
        self.only = None
        self._own().are_emptied()

    def adopted(self) -> None:
        """The only message in them is held now."""
        self.may_hold, self.only = False, None

    @property
    def to_be_emptied(self) -> bool:
        """Whether the next turn should look into them."""
        return self.may_hold or self._is_late_possible

    def empty_left(self, link: Link) -> None:
        """Put back what came from queues that are consumed no more."""
        _empty(link, self._left_pairs)

    def empty_all(self, link: Link) -> bool:
        """Put back everything and stop waiting; True when nothing more can arrive."""
        _empty(link, [*self._pairs, *self._left_pairs])
        return self._own().certain and not self._is_late_possible

    @property
    def _is_late_possible(self) -> bool:
        return time.monotonic() < self._late_until

    def _own(self) -> Waiting:
        if self._waiting is None:
            raise ChannelLost("the channel is not open")
        return self._waiting


def _empty(link: Link, pairs: Sequence[tuple[str, str]]) -> None:
    if pairs:
        link.run("empty_inbox", [key for source, inbox in pairs for key in (inbox, source)], ())
