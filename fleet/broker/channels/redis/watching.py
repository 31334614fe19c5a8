"""A waiting connection that also says when other keys have changed, so that a replica at rest need not ask again and
again.

A waiting command names one list. What comes elsewhere (to lists of lower urgency, to further queues, to the sets of
messages with a date) is found by asking. At rest a replica names those keys once, and the server tells once, on the
same connection and also while that waits, when one of them has changed: its client-side caching, which needs RESP3
(Redis 6 or newer). Where the server does not know it or refuses it, the replica goes on asking.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import redis
from redis.exceptions import InvalidResponse, NoScriptError, ResponseError

from fleet.broker.channels.redis.scripts import Link, Prepared
from fleet.broker.connection import RedisAccess

_RECEIVED_AT_ONCE = 1 << 16


class Push(list[Any]):
    """What the server says by itself."""


class _Incomplete(Exception):
    """The rest of a reply has not come yet."""


class Replies:
    """Splits what a server sends, in RESP2 or RESP3, into replies: None, int, bytes, ResponseError, list or Push."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Any]:
        """The replies that are complete now."""
        self._buffer += data
        found, at = [], 0
        try:
            while at < len(self._buffer):
                reply, at = _reply(self._buffer, at)
                found.append(reply)
        except _Incomplete:
            pass
        del self._buffer[:at]
        return found


def _reply(buffer: bytearray, at: int) -> tuple[Any, int]:
    end = buffer.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete
    kind, line, at = chr(buffer[at]), bytes(buffer[at + 1 : end]), end + 2
    if kind in _LINES:
        return _LINES[kind](line), at
    if kind == "$":
        return _bulk(buffer, at, int(line))
    if kind not in _ITEMS:
        raise InvalidResponse(f"a reply that begins with {kind!r}")
    if int(line) < 0:
        return None, at
    items = []
    for _ in range(_ITEMS[kind] * int(line)):
        item, at = _reply(buffer, at)
        items.append(item)
    return (Push(items) if kind == ">" else items), at


def _bulk(buffer: bytearray, at: int, length: int) -> tuple[bytes | None, int]:
    if length < 0:
        return None, at
    if len(buffer) < at + length + 2:
        raise _Incomplete
    return bytes(buffer[at : at + length]), at + length + 2


def _refusal(text: str) -> ResponseError:
    return NoScriptError(text) if text.startswith("NOSCRIPT") else ResponseError(text)


_LINES: dict[str, Any] = {
    "+": bytes,
    ":": int,
    "_": lambda _: None,
    "-": lambda line: _refusal(line.decode(errors="replace")),
}
_ITEMS = {"*": 1, ">": 1, "~": 1, "%": 2}


class WatchingLink(Link):
    """A connection with one command at a time on it, and what the server says in between. While a command waits on it
    at the server, nothing else may be sent.

    watches: whether the server is to tell of a change, and has not told yet.
    """

    def __init__(self, access: RedisAccess, *, name: str) -> None:
        super().__init__(access, name=name)
        self.watches = False
        self._replies = Replies()
        self._answers: deque[Any] = deque()
        self._can_watch = self._is_accepted("HELLO", 3) and self._is_accepted("CLIENT", "TRACKING", "ON", "OPTIN")

    def watch(self, keys: Sequence[str]) -> bool:
        """From now on the server tells of the next change of one of these; whether it does.

        What has changed before is not told: look after this, not before.
        """
        self.watches = self._can_watch  # before it is said: the change may be told in the same breath
        is_accepted = self.watches and self._is_accepted("CLIENT", "CACHING", "YES")  # of the next command's keys
        if not (is_accepted and self._is_accepted("EXISTS", *keys)):
            self._can_watch = self.watches = False
        return self._can_watch

    def run_prepared(self, prepared: Prepared, arguments: Sequence[Any]) -> Any:
        """Run a prepared script with some more arguments."""
        return self.evaluate(prepared.script, prepared.keys, (*prepared.arguments, *arguments))

    def hear_now(self) -> None:
        """Nothing: what was told is heard before the next command, also before one that waits."""

    def hear(self) -> None:
        """Wait for the answers to what was told."""
        while self._hears:
            answer = self._answer()
            _, hear = self._hears.popleft()
            hear(answer)

    def read(self) -> Any:
        """Wait for the answer to what was sent."""
        answer = self._answer()
        if isinstance(answer, ResponseError):
            raise answer
        return answer

    def _answer(self) -> Any:
        while not self._answers:
            self._receive()
        return self._answers.popleft()

    def has_answer(self) -> bool:
        """Read what has come; whether an answer is among it. For a socket that is readable."""
        if not self._answers:
            self._receive()
        return bool(self._answers)

    def _is_accepted(self, *command: Any) -> bool:
        try:
            self.call(*command)
        except ResponseError:
            return False
        return True

    def _receive(self) -> None:
        data = self._connection._sock.recv(_RECEIVED_AT_ONCE)
        if not data:
            raise redis.ConnectionError("the server has closed the connection")
        for reply in self._replies.feed(data):
            if not isinstance(reply, Push):
                self._answers.append(reply)
            elif reply[:1] == [b"invalidate"]:
                self.watches = False
