"""The Lua scripts next to this file, and a connection that speaks them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import redis
from redis.exceptions import NoScriptError

from fleet.broker.connection import RedisAccess


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its text and the name by which the server remembers it."""

    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """The script ``<name>.lua``."""
    text = files(__package__).joinpath(f"{name}.lua").read_text()
    return Script(text, hashlib.sha1(text.encode()).hexdigest())


class Prepared:
    """A script with its keys and first arguments, packed once: packing them each time would cost more than the rest."""

    def __init__(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> None:
        self.name = name
        self.keys = tuple(keys)
        self.arguments = tuple(arguments)
        words = ("EVALSHA", script(name).sha, len(keys), *keys, *arguments)
        self._count = len(words)
        self._packed = _packed(words)

    def with_more(self, arguments: Sequence[Any]) -> bytes:
        """The whole command."""
        return b"*%d\r\n%b%b" % (self._count + len(arguments), self._packed, _packed(arguments))


def _packed(words: Sequence[Any]) -> bytes:
    encoded = [str(word).encode() for word in words]
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded])


class Link:
    """One connection to Redis with one command at a time on it. Raises what redis-py raises."""

    def __init__(self, access: RedisAccess, *, name: str) -> None:
        self._connection = access.connect(name=name)

    def call(self, *command: Any) -> Any:
        """Send a command and wait for its answer."""
        self._connection.send_command(*command)
        return self._connection.read_response()

    def call_many(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Send several commands at once, then wait for their answers."""
        self._connection.send_packed_command(self._connection.pack_commands(commands))
        return [self._connection.read_response() for _ in commands]

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run a script; a server that does not know it (any more) is told."""
        lua = script(name)
        try:
            return self.call("EVALSHA", lua.sha, len(keys), *keys, *arguments)
        except NoScriptError:
            return self.call("EVAL", lua.text, len(keys), *keys, *arguments)

    def run_prepared(self, prepared: Prepared, arguments: Sequence[Any]) -> Any:
        """Run a prepared script with some more arguments."""
        self._connection.send_packed_command([prepared.with_more(arguments)], check_health=False)
        try:
            return self._connection.read_response()
        except NoScriptError:
            return self.run(prepared.name, prepared.keys, (*prepared.arguments, *arguments))

    def send(self, *command: Any) -> None:
        """Send a command; :meth:`read` takes its answer later."""
        self._connection.send_command(*command)

    def read(self) -> Any:
        """Wait for the answer to what was sent."""
        return self._connection.read_response()

    def fileno(self) -> int:
        """The socket, for select."""
        return int(self._connection._sock.fileno())

    def close(self) -> None:
        """Let go of the socket. Never raises."""
        with suppress(OSError, redis.RedisError):
            self._connection.disconnect()
