"""The body of a task message: decoded when it is needed, in the process that runs the task."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from fleet.broker.delivery import MOST_BODY_BYTES
from fleet.broker.json_text import is_mapping, loads

CONTENT_TYPE = "application/json"
ACCEPT_JSON: tuple[str, ...] = ("json",)


class BadMessage(Exception):
    """A message that is no task, or cannot be decoded."""


class Payload(NamedTuple):
    """What a task is called with, and what follows it (callbacks, errbacks, chain, chord)."""

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    embed: Mapping[str, Any]


class Encoded(Protocol):
    """A body as it came, and what decoding it takes. A delivery is one, and a call that was made of it."""

    @property
    def body(self) -> bytes | str: ...

    @property
    def headers(self) -> Mapping[str, Any]: ...

    @property
    def content_type(self) -> str: ...

    @property
    def content_encoding(self) -> str: ...


def payload_of(message: Encoded, accept: Collection[str]) -> Payload:
    """The arguments in a body, decoded now: once, in the process that runs the task. Raises BadMessage."""
    return payload_in(decoded(message, accept))


def decoded(message: Encoded, accept: Collection[str] = ACCEPT_JSON) -> Any:
    """The body as Python values. Raises BadMessage for what is not accepted or cannot be decoded."""
    if not isinstance(message.content_type, str) or message.content_type not in _content_types(frozenset(accept)):
        known = ", ".join(sorted(accept))
        raise BadMessage(f"its content type {message.content_type!r} is not accepted (accepted: {known})")
    try:
        body = message.body
        if len(body) > MOST_BODY_BYTES:
            raise ValueError(f"it is longer than {MOST_BODY_BYTES:,} bytes")
        if compression := message.headers.get("compression"):
            body = _decompressed(body, compression)
        if message.content_type == CONTENT_TYPE and not _has_extended_types(body):
            return loads(body)
        return _loads(body, message.content_type, message.content_encoding)
    except Exception as error:
        raise BadMessage(f"its body cannot be decoded: {type(error).__name__}: {error}") from error


def _has_extended_types(body: bytes | str) -> bool:
    return ('"__type__"' in body) if isinstance(body, str) else (b'"__type__"' in body)


def _decompressed(body: bytes | str, compression: str) -> Any:
    from fleet.broker.decompression import decompress

    return decompress(body.encode() if isinstance(body, str) else body, compression)


def _loads(body: bytes | str, content_type: str, content_encoding: str) -> Any:
    from kombu.serialization import loads as loads_any

    return loads_any(body, content_type, content_encoding, accept={content_type})


@lru_cache(maxsize=32)
def _content_types(accept: frozenset[str]) -> frozenset[str]:
    if accept <= {"json", CONTENT_TYPE}:
        return frozenset({CONTENT_TYPE})
    from kombu.serialization import prepare_accept_content

    return frozenset(prepare_accept_content(accept))


def payload_in(body: Any) -> Payload:
    if isinstance(body, dict) and "args" in body:
        return payload_of_body(body)
    return _payload_of_list(body)


def _payload_of_list(body: Any) -> Payload:
    if not isinstance(body, list | tuple) or len(body) != 3:
        raise BadMessage("its body is not [args, kwargs, embed]")
    args, kwargs, embed = body
    return _checked(args, kwargs, embed or {})


def payload_of_body(body: Mapping[str, Any]) -> Payload:
    embed = {name: body.get(name) for name in ("callbacks", "errbacks", "chord")}
    return _checked(body.get("args") or (), body.get("kwargs") or {}, {**embed, "chain": None})


def _checked(args: Any, kwargs: Any, embed: Any) -> Payload:
    if not isinstance(args, list | tuple):
        raise BadMessage(f"its arguments are {type(args).__name__}, not a list")
    if not (is_mapping(kwargs) and is_mapping(embed)):
        raise BadMessage("its keyword arguments are not a mapping")
    return Payload(args, kwargs, embed)
