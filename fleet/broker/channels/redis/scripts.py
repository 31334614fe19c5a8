"""The Lua scripts next to this file, and a connection that runs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

from redis.exceptions import NoScriptError, ResponseError

from fleet.broker import redis_link
from fleet.broker.channels.redis.large_replies import ReplyReader
from fleet.broker.redis_link import Script, packed

script = partial(redis_link.script, __package__)
"""The script ``<name>.lua``."""


def read_all() -> None:
    """Read every script now, and not when it is used first."""
    for file in files(__package__).iterdir():
        if file.name.endswith(".lua"):
            script(file.name.removesuffix(".lua"))


class Prepared:
    """A script with its keys and first arguments, packed once: packing them each time would cost more than the rest."""

    def __init__(self, name: str, keys: Sequence[str], arguments: Sequence[Any], *, with_text: bool = False) -> None:
        """with_text: its text goes along each time, so that it runs also on a server that does not have it yet."""
        self.script: Script = script(name)
        self.keys = tuple(keys)
        self.arguments = tuple(arguments)
        name_or_text = ("EVAL", self.script.text) if with_text else ("EVALSHA", self.script.sha)
        words = (*name_or_text, len(keys), *keys, *arguments)
        self._count = len(words)
        self._packed = packed(words)

    def with_more(self, arguments: Sequence[Any]) -> bytes:
        """The packed command, ready to be sent."""
        return b"*%d\r\n%b%b" % (self._count + len(arguments), self._packed, packed(arguments))


class Link(redis_link.Link):
    """One connection to Redis with one command at a time on it. Raises what redis-py raises."""

    def run(self, name: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """Run one of the scripts here."""
        return self.evaluate(script(name), keys, arguments)

    def run_prepared(self, prepared: Prepared, arguments: Sequence[Any]) -> Any:
        """Run a prepared script with some more arguments."""
        self.hear()
        self._connection.send_packed_command([prepared.with_more(arguments)], check_health=False)
        try:
            return self._connection.read_response()
        except NoScriptError:
            return self.evaluate(prepared.script, prepared.keys, (*prepared.arguments, *arguments))

    def tell_prepared(self, prepared: Prepared, arguments: Sequence[Any], *, hear: Callable[[Any], object]) -> None:
        """Run a prepared script and do not wait. hear: gets the answer, as with ``tell``."""

        def heard(answer: Any) -> None:
            if isinstance(answer, NoScriptError):
                answer = self.run_prepared(prepared, arguments)
            elif isinstance(answer, ResponseError):
                raise answer
            hear(answer)

        self.tell(prepared.with_more(arguments), hear=heard)

    def call_together(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run these in one transaction; their answers, which may be large: bulk strings are bytearrays."""
        whole = (("MULTI",), *commands, ("EXEC",))
        self._connection.send_packed_command(self._connection.pack_commands(whole))
        replies = ReplyReader(self._connection._sock)
        answers = [replies.read() for _ in whole]
        for answer in (*answers, *(answers[-1] or ())):
            if isinstance(answer, ResponseError):
                raise answer
        if answers[-1] is None:
            raise ResponseError("the server did not run the transaction")
        return list(answers[-1])
