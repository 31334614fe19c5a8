"""The envelope: how kombu writes one message into a list of Redis, read and written without kombu."""

from __future__ import annotations

import json
from base64 import b64encode
from binascii import a2b_base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from statistics import median_high
from typing import Any, NamedTuple
from uuid import uuid4

from fleet.broker.json_text import is_mapping, loads

SENT_AT_HEADER = "x-fleet-sent-at"
"""When a message was sent, in Unix seconds. Only fleet's own senders say so."""
ASKED_MESSAGES = 5
"""So many of the next messages of a queue are asked since when they wait."""
ATTEMPTS_HEADER = "x-fleet-attempts"
_MOST_ATTEMPTS = 2**31 - 1
JUNK_CONTENT_TYPE = "application/x-not-an-envelope"
_LARGE_BYTES = 8 << 10
_BODY_FIRST = b'{"body": "'


class Envelope(NamedTuple):
    """One message, its body as it was before base64."""

    body: bytes | str
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    content_type: str
    content_encoding: str

    @property
    def redelivered(self) -> bool:
        """Whether a worker had it before. kombu marks it in one place, Celery reads it from the other."""
        return bool(self.headers.get("redelivered") or delivery_info_in(self.properties).get("redelivered"))

    @property
    def attempts(self) -> int:
        """How often a replica died while it held this message."""
        return attempts_in(self.headers)


def attempts_in(headers: Mapping[str, Any]) -> int:
    """How often a process died with a message, as its headers say; 0 for what is no count."""
    count = headers.get(ATTEMPTS_HEADER)
    return min(count, _MOST_ATTEMPTS) if isinstance(count, int) and count > 0 else 0


def delivery_info_in(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """Exchange and routing key as the sender wrote them down; empty where that is no map."""
    info = properties.get("delivery_info")
    return info if is_mapping(info) else {}


def opened(raw: bytes | bytearray) -> Envelope:
    """Read an envelope. Other bytes become a body of a special content type, so that they are not read again."""
    try:
        if len(raw) >= _LARGE_BYTES and (large := _opened_large(raw)) is not None:
            return large
        document = _loads(raw)
        body = document["body"] or ""
        if document["properties"].get("body_encoding") == "base64":
            body = a2b_base64(body)
        return _envelope_of(document, body)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Envelope(bytes(raw), {}, {}, JUNK_CONTENT_TYPE, "binary")


def _opened_large(raw: bytes | bytearray) -> Envelope | None:
    """The same, where the body comes first, as kombu writes it: base64 needs no reader of JSON, which would copy it.

    None for an envelope that must be read as a whole, or is none.
    """
    if not raw.startswith(_BODY_FIRST):
        return None
    begin = len(_BODY_FIRST)
    end = raw.find(b'"', begin)
    try:
        document = _loads(_BODY_FIRST + raw[end:])
        if document["body"] or document["properties"]["body_encoding"] != "base64":
            return None
        with memoryview(raw) as view, view[begin:end] as encoded:
            return _envelope_of(document, a2b_base64(encoded, strict_mode=True))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _envelope_of(document: Mapping[str, Any], body: Any) -> Envelope:
    """Raises TypeError, KeyError or AttributeError for what is no envelope."""
    properties, headers = document["properties"], document.get("headers") or {}
    if not isinstance(headers, dict) or not isinstance(properties, dict):
        raise TypeError("headers and properties are maps")
    content_type = document.get("content-type") or "application/data"
    content_encoding = document.get("content-encoding") or "utf-8"
    if not (isinstance(body, str | bytes) and isinstance(content_type, str) and isinstance(content_encoding, str)):
        raise TypeError("the body and its type are text")
    if not isinstance(properties.get("delivery_info"), dict | None):
        properties["delivery_info"] = {}
    return Envelope(body, headers, properties, content_type, content_encoding)


def headers_of(raw: bytes | bytearray | str) -> Mapping[str, Any]:
    """Only the headers of an envelope; none where it is no envelope."""
    try:
        headers = loads(raw)["headers"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return headers if isinstance(headers, dict) else {}


def waits_since(sent_at: Any, eta: Any = None) -> float | None:
    """Since when a message waits, in Unix seconds, by its headers as they come (numbers or text): it was sent then, or
    was due then if it has a date. None where the message does not say."""
    try:
        sent = float(sent_at)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(sent, _moment(eta)) if isfinite(sent) else None


def agreed(moments: Sequence[float | None]) -> float | None:
    """Since when the next messages of a queue wait: the middle one of what they say, the later one of two.

    The word of one sender, who may have made it up, decides nothing beside others. None where half of them say nothing.
    """
    told = [moment for moment in moments if moment is not None]
    return median_high(told) if 2 * len(told) > len(moments) else None


def _moment(eta: Any) -> float:
    """A date of ISO 8601 in Unix seconds, in UTC where it does not say; 0.0 for anything else."""
    text = eta.decode(errors="replace") if isinstance(eta, bytes) else eta
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return 0.0


def sealed(
    queue: str,
    body: bytes | str,
    *,
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    content_type: str,
    content_encoding: str,
    exchange: str = "",
) -> bytes:
    """Write an envelope addressed straight to ``queue``, as kombu's producer would.

    exchange: one that passes it on; ``queue`` is then its routing key.
    """
    text = {
        "body": b64encode(body.encode() if isinstance(body, str) else body).decode(),
        "content-encoding": content_encoding,
        "content-type": content_type,
        "headers": dict(headers),
        "properties": {
            "delivery_mode": 2,
            "priority": 0,
            **properties,
            "delivery_info": {"exchange": exchange, "routing_key": queue},
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }
    return _dumps(text).encode()


def after_crash(raw: bytes) -> bytes:
    """The same message once more, its crash counted and marked as redelivered. What is no envelope stays as it is."""
    return _redelivered(raw, crashes=1)


def given_back(raw: bytes | bytearray) -> bytes:
    """The same message once more, marked as redelivered. What is no envelope stays as it is."""
    return _redelivered(raw, crashes=0)


def _redelivered(raw: bytes | bytearray, *, crashes: int) -> bytes:
    try:
        document = _loads(raw)
        headers, info = _headers_and_info(document)
        if crashes:
            headers[ATTEMPTS_HEADER] = attempts_in(headers) + crashes
        headers["redelivered"] = info["redelivered"] = True
        return _dumps(document).encode()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return bytes(raw)


def _headers_and_info(document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both maps, put in where a producer left them out."""
    if not document.get("headers"):
        document["headers"] = {}
    properties = document["properties"]
    if not isinstance(properties.get("delivery_info"), dict):
        properties["delivery_info"] = {}
    return document["headers"], properties["delivery_info"]


def _loads(raw: bytes | bytearray) -> Any:
    """JSON; kombu's own reader only where its extended types occur, because it is ten times slower."""
    if b'"__type__"' not in raw:
        return loads(raw)
    from kombu.utils.json import loads as extended

    return extended(raw)


def _dumps(document: Any) -> str:
    """JSON; kombu's own writer only where plain JSON cannot."""
    try:
        return json.dumps(document)
    except TypeError:
        from kombu.utils.json import dumps

        return str(dumps(document))
