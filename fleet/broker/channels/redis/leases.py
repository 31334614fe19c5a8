"""Who holds messages, for how long, and what becomes of them when their replica is gone.

Every process that takes messages is a *holder*: fleet, replica, host, pid and time of its start. It has a lease, by
the server's clock, in one sorted set that all fleets on the broker share. What a dead process of the same replica on
the same host held is restored when its successor opens; everything else by the replica that sees the lease run out.

A restored message goes to the head of its list, its crash counted in a header. A replica that was frozen for longer
than its lease finds a mark when it is back and forgets what was given to others; until then its acknowledgements only
reach its own, empty hash. The task it was running runs twice; otherwise it could be lost.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Container, Mapping, Sequence
from typing import Any

from fleet.broker.channels.redis.scripts import Link, Prepared
from fleet.broker.channels.redis.waiting import BLOCK_SECONDS
from fleet.broker.connection import RedisAccess
from fleet.broker.envelope import after_crash, given_back, headers_of
from fleet.broker.redis_keys import Keys, member_name

LOOKS_PER_LEASE = 6
GRAVE_MS = (BLOCK_SECONDS + 30) * 1000
_CHUNK = 500
_CHUNK_OF_LARGE = 10


def holder_name(fleet: str, replica: str, born: int) -> str:
    """The name of this process among those that hold messages."""
    return f"{_family(fleet, replica)}{os.getpid()}:{born}"


def _family(fleet: str, replica: str) -> str:
    return f"{member_name(fleet, replica)}{socket.gethostname()}:"


def is_dead_sibling(holder: str, fleet: str, replica: str) -> bool:
    """Whether this names an earlier process of the same replica on this host that is gone.

    While a process with that pid runs, it may be that one, still draining: then only its lease decides.
    """
    family = _family(fleet, replica)
    pid = holder.removeprefix(family).partition(":")[0]
    if not holder.startswith(family) or not pid.isdigit():
        return False
    return int(pid) == os.getpid() or not os.path.exists(f"/proc/{pid}")


class Registry:
    """The lease of one holder, and the restoring of what dead holders left.

    renew_at, renew_by: when it is to be renewed at the earliest and at the latest (monotonic).
    """

    def __init__(self, access: RedisAccess, keys: Keys, inboxes: Mapping[str, str], *, lease_seconds: float) -> None:
        self.keys = keys
        self.lease_seconds = lease_seconds
        self.renew_at = self.renew_by = 0.0
        self._access = access
        self._entry = json.dumps(dict(inboxes))
        self._clock_ahead_ms = 0.0
        self._until = 0.0
        self._leases: dict[tuple[bool, bool], Prepared] = {}

    @property
    def now_ms(self) -> int:
        """The server's clock, as it was told when the lease was renewed last."""
        return int(time.monotonic() * 1000 + self._clock_ahead_ms)

    @property
    def is_sure(self) -> bool:
        """Whether the lease cannot have run out: nobody has given away what is ours."""
        return _awake_and_asleep() < self._until

    @property
    def _renew_seconds(self) -> float:
        return self.lease_seconds / LOOKS_PER_LEASE

    def renew(self, link: Link, *, look: bool, rests: bool = False, ahead: bool = False) -> bool:
        """Renew the lease and, when ``look``, restore what others left. True: our messages were given away.

        rests: it holds nothing and renews less often, so the lease is twice as long.  ahead: with that, the answer is
        not waited for; it follows when the link has it.
        """
        now = time.monotonic()
        until = _awake_and_asleep() + self.lease_seconds * (1 + rests)
        self.renew_at = now + self._renew_seconds
        self.renew_by = now + self.lease_seconds if rests else self.renew_at
        lease = self._lease(look=look, rests=rests)
        if not (ahead and rests):
            return self._heard(link, link.run_prepared(lease, ()), until=until)
        link.hear()  # a server that has not answered since the last time does not answer
        link.tell_prepared(lease, (), hear=lambda reply: self._heard(link, reply, until=until))
        return False

    def _lease(self, *, look: bool, rests: bool) -> Prepared:
        if (look, rests) not in self._leases:
            keys, lease_ms = self.keys, int(self.lease_seconds * 1000) * (1 + rests)
            pause_ms = int(self._renew_seconds * 1000)
            self._leases[look, rests] = Prepared(
                "lease",
                (keys.leases, keys.holders, keys.mark, keys.suspects, keys.looking),
                (keys.holder, lease_ms, self._entry, int(look), 2 * pause_ms, pause_ms),
            )
        return self._leases[look, rests]

    def _heard(self, link: Link, reply: Any, *, until: float) -> bool:
        self._until = until
        self._clock_ahead_ms = int(reply[1]) - time.monotonic() * 1000
        gone = [(_text(reply[i]), _text(reply[i + 1])) for i in range(2, len(reply), 2)]
        for (holder, end), inboxes in zip(gone, self._inboxes(link, gone), strict=True):
            if holder != self.keys.holder:
                self._look_after(link, holder, end, inboxes, old=reply[1] - float(end) > GRAVE_MS)
        return bool(reply[0])

    def restore_siblings(self, link: Link, fleet: str, replica: str, *, ran: Container[str] | None = None) -> int:
        """Restore at once what dead processes of the same replica on this host held. Returns how many messages.

        ran: ids of the tasks that ran then; the other messages come back as not started. None: all may have run.
        """
        names = [_text(name) for name in link.call("ZRANGE", self.keys.leases, 0, -1)]
        dead = [(name, "") for name in names if name != self.keys.holder and is_dead_sibling(name, fleet, replica)]
        restored = 0
        for (holder, _), inboxes in zip(dead, self._inboxes(link, dead), strict=True):
            restored += self._restore(link, holder, inboxes, mark=False, ran=ran)
            # Not forgotten yet: a child that outlived it may keep a waiting connection open for a while.
            link.call("ZADD", self.keys.leases, "XX", int(link.call("TIME")[0]) * 1000, holder)
        return restored

    def leave(self, link: Link) -> None:
        """Give up the lease: nothing is held now."""
        keys = self.keys
        link.run("bury", (keys.leases, keys.holders, keys.suspects, keys.held), (keys.holder, self._end(link), 1))

    def _end(self, link: Link) -> str:
        return _text(link.call("ZSCORE", self.keys.leases, self.keys.holder) or b"")

    def _inboxes(self, link: Link, holders: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
        if not holders:
            return []
        entries = link.call("HMGET", self.keys.holders, *(holder for holder, _ in holders))
        return [json.loads(entry) if entry else {} for entry in entries]

    def _look_after(self, link: Link, holder: str, end: str, inboxes: Mapping[str, str], *, old: bool) -> None:
        keys = self.keys
        held = Keys(keys.prefix, holder).held
        left = link.run("bury", (keys.leases, keys.holders, keys.suspects, held, *inboxes), (holder, end, int(old)))
        if left:
            self._restore(link, holder, inboxes, mark=True)

    def _restore(
        self, link: Link, holder: str, inboxes: Mapping[str, str], *, mark: bool, ran: Container[str] | None = None
    ) -> int:
        theirs = Keys(self.keys.prefix, holder)
        if inboxes:
            link.run("empty_inbox", [key for pair in inboxes.items() for key in pair], ())
        flat = link.call("HGETALL", theirs.held)
        entries = sorted(zip(flat[::2], flat[1::2], strict=True), key=lambda entry: int(entry[0]), reverse=True)
        moved = 0
        size = _CHUNK if all(b"\n" in entry for _, entry in entries) else _CHUNK_OF_LARGE
        for start in range(0, len(entries), size):
            chunk = [(tag, _envelope(link, theirs, tag, entry)) for tag, entry in entries[start : start + size]]
            pairs = [part for tag, envelope in chunk for part in (tag, _restored(envelope, ran))]
            moved += int(link.run("restore", (theirs.held, theirs.mark), (int(mark), *pairs)))
        return moved


def _awake_and_asleep() -> float:
    """Seconds by a clock that also runs while the machine sleeps: its leases run out meanwhile."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _envelope(link: Link, keys: Keys, tag: bytes, entry: bytes) -> bytes:
    """The envelope of a message that is held; empty where there is none any more."""
    _, cut, envelope = entry.partition(b"\n")
    return envelope if cut else link.call("LINDEX", keys.apart(_text(tag)), 0) or b""


def _restored(raw: bytes, ran: Container[str] | None) -> bytes:
    return after_crash(raw) if ran is None or headers_of(raw).get("id") in ran else given_back(raw)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
