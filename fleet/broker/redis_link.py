"""One connection to a Redis, with one command at a time on it, or several sent together."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import redis
from redis.exceptions import NoScriptError, ResponseError

from fleet.broker.connection import ANSWER_SECONDS, RedisAccess

_MOST_TOLD = 8


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script: its text and the name by which the server remembers it."""

    text: str
    sha: str


@cache
def script(package: str, name: str) -> Script:
    """The script ``<name>.lua`` next to the modules of a package."""
    text = files(package).joinpath(f"{name}.lua").read_text()
    return Script(text, hashlib.sha1(text.encode()).hexdigest())


def packed(words: Sequence[Any]) -> bytes:
    """These words of a command as Redis reads them; before them a command says how many words it has."""
    encoded = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])


def command(*words: Any) -> bytes:
    """A whole command as Redis reads it."""
    return b"*%d\r\n%b" % (len(words), packed(words))


def answer_on(connection: Any) -> Any:
    """The next answer on a connection of redis-py; the ResponseError where the server refuses."""
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


class Link:
    """A connection that is up. Raises what redis-py raises."""

    def __init__(self, access: RedisAccess, *, name: str) -> None:
        self._connection = access.connect(name=name)
        self._hears: deque[tuple[float, Callable[[Any], object]]] = deque()

    def tell(self, packed: bytes, *, hear: Callable[[Any], object]) -> None:
        """Send a packed command and do not wait.

        ``hear`` gets the answer, or the ResponseError, from ``hear_now`` or before the next command that is waited for.
        """
        if len(self._hears) >= _MOST_TOLD:
            self.hear()
        self._connection.send_packed_command([packed], check_health=False)
        self._hears.append((time.monotonic(), hear))

    def hear_now(self) -> None:
        """Take the answer to what was told, if it is there."""
        if self._hears and self._connection.can_read(timeout=0):
            self.hear()

    def hear(self) -> None:
        """Take the answers to what was told. One that has not come by now is waited for as long as any, since it was
        asked for. Raises redis.TimeoutError."""
        while self._hears:
            told_at, hear = self._hears[0]
            limit_seconds = self._connection.socket_timeout or ANSWER_SECONDS
            if not self._connection.can_read(timeout=max(0.0, told_at + limit_seconds - time.monotonic())):
                raise redis.TimeoutError("no answer to what was told")
            answer = answer_on(self._connection)
            self._hears.popleft()
            hear(answer)

    def call(self, *command: Any) -> Any:
        """Send a command and wait for its answer."""
        self.send(*command)
        return self.read()

    def call_many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send several commands at once, then wait for their answers."""
        self.hear()
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [self.read() for _ in commands]

    def ask_many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The same, where a command that the server refuses is answered by its ``ResponseError``."""
        self.hear()
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [answer_on(self._connection) for _ in commands]

    def evaluate(self, lua: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script; a server that does not have it gets its text."""
        try:
            return self.call("EVALSHA", lua.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return self.call("EVAL", lua.text, len(keys), *keys, *arguments)

    def send(self, *command: Any) -> None:
        """Send a command; :meth:`read` takes its answer later."""
        self.hear()
        self._connection.send_command(*command)

    def read(self) -> Any:
        """Wait for the answer to what was sent."""
        return self._connection.read_response()

    def has_answer(self) -> bool:
        """Whether an answer is there, or a part of it."""
        return bool(self._connection.can_read(timeout=0))

    def fileno(self) -> int:
        """The socket, for select."""
        return int(self._connection._sock.fileno())

    def close(self) -> None:
        """Close the socket. Never raises."""
        with suppress(OSError, redis.RedisError):
            self._connection.disconnect()
