"""Deliveries read straight from the socket of a py-amqp connection: whatever has come in one go, without waiting.

py-amqp reads each frame with three system calls and builds four objects for each message, which would be most of what
a message costs a worker. Here the frames of deliveries on one channel are taken apart directly; everything else is
handed to py-amqp, and its own blocking reads (for the answer to a declaration) hand deliveries here.
"""

from __future__ import annotations

from collections.abc import Callable
from ssl import SSLWantReadError
from struct import Struct, error
from typing import Any, NamedTuple

from amqp.basic_message import Message as AmqpMessage
from amqp.exceptions import UnexpectedFrame

from fleet.broker.envelope import JUNK_CONTENT_TYPE

_HEAD = Struct(">BHI")
_TAG_AND_FLAG = Struct(">QB")
_SIZE = Struct(">Q")
_LENGTH = Struct(">I")
_ACK = Struct(">BHIHHQBB")
_DELIVER = b"\x00\x3c\x00\x3c"
_METHOD, _CONTENT_HEAD, _CONTENT_BODY = 1, 2, 3
_END = 0xCE
_AT_ONCE = 65536
_TEXT, _NOTHING, _BOOLEAN, _TABLE, _ARRAY = b"SVtFA"
_NUMBERS = {ord("I"): Struct(">i"), ord("l"): Struct(">q"), ord("L"): Struct(">q"), ord("d"): Struct(">d")}


class Pushed(NamedTuple):
    """A delivery as it came: its properties are still encoded, for it may be given back unread."""

    consumer: str
    tag: int
    redelivered: bool
    exchange: str
    routing_key: str
    head: bytes
    body: bytes

    def properties(self) -> dict[str, Any]:
        """The properties, by py-amqp's names; the headers are ``application_headers``. What nobody can read has none,
        and a content type of its own."""
        try:
            return _properties(self.head)
        except Exception:  # py-amqp raises whatever struct, datetime and decimal do
            return {"content_type": JUNK_CONTENT_TYPE}


class Inlet:
    """Reads one connection, and passes on the deliveries of one of its channels."""

    def __init__(self, connection: Any, channel_id: int, on_pushed: Callable[[Pushed], object]) -> None:
        self._connection = connection
        self._channel_id = channel_id
        self._on_pushed = on_pushed
        self._others = connection.on_inbound_frame
        self._begun: tuple[str, int, bool, str, str] | None = None
        self._head = b""
        self._parts: list[bytes] = []
        self._missing = 0
        connection.on_inbound_frame = self.take

    def read(self) -> None:
        """Read everything that has arrived. Raises OSError when the broker has closed the connection."""
        transport = self._connection.transport
        received = _received(transport.sock)
        if not received:
            return
        data = transport._read_buffer + received
        transport._read_buffer = b""
        start, end = 0, len(data)
        while end - start >= 8:
            kind, channel, size = _HEAD.unpack_from(data, start)
            stop = start + 7 + size
            if stop >= end:
                break
            if data[stop] != _END:
                raise UnexpectedFrame(f"a frame ends with {data[stop]:#04x}")
            payload = data[start + 7 : stop]
            start = stop + 1
            self.take((kind, channel, payload))
        transport._read_buffer = data[start:]

    def take(self, frame: tuple[int, int, bytes]) -> Any:
        """One frame, read here or by py-amqp. True when it completes something."""
        kind, channel, payload = frame
        if channel != self._channel_id:
            return self._others(frame)
        if kind == _METHOD and payload[:4] == _DELIVER:
            self._begin(payload)
        elif kind == _CONTENT_HEAD and self._begun is not None:
            self._head = payload
            self._missing = _SIZE.unpack_from(payload, 4)[0]
        elif kind == _CONTENT_BODY and self._begun is not None:
            self._parts.append(payload)
            self._missing -= len(payload)
        else:
            return self._others(frame)
        self._connection.bytes_recv += 1
        if kind == _METHOD or self._missing > 0:
            return False
        self._complete()
        return True

    def _begin(self, payload: bytes) -> None:
        consumer, at = _short_text(payload, 4)
        tag, flag = _TAG_AND_FLAG.unpack_from(payload, at)
        exchange, at = _short_text(payload, at + 9, errors="replace")
        routing_key, _ = _short_text(payload, at, errors="replace")
        self._begun = (consumer, tag, bool(flag & 1), exchange, routing_key)

    def _complete(self) -> None:
        assert self._begun is not None
        begun, head, parts = self._begun, self._head, self._parts
        self._begun = None
        self._parts = []
        self._on_pushed(Pushed(*begun, head, parts[0] if len(parts) == 1 else b"".join(parts)))


def send_acks(connection: Any, channel_id: int, *, up_to: int, single: list[int]) -> None:
    """Acknowledge everything up to a tag (0: nothing), and some single ones: one write for all."""
    frames = [_ACK.pack(_METHOD, channel_id, 13, 60, 80, up_to, 1, _END)] if up_to else []
    frames += [_ACK.pack(_METHOD, channel_id, 13, 60, 80, tag, 0, _END) for tag in single]
    if frames:
        connection.transport.write(b"".join(frames))
        connection.bytes_sent += 1


def _received(sock: Any) -> bytes:
    """All that is there. Not by a flag of ``recv``: neither TLS nor gevent's sockets know it."""
    chunks: list[bytes] = []
    encrypted = hasattr(sock, "pending")
    before = sock.gettimeout()
    sock.settimeout(0)
    try:
        while True:
            chunk = sock.recv(_AT_ONCE)
            if not chunk:
                raise ConnectionResetError("the broker has closed the connection")
            chunks.append(chunk)
            if len(chunk) < _AT_ONCE and not encrypted:
                break
    except (BlockingIOError, SSLWantReadError):
        pass
    finally:
        sock.settimeout(before)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _short_text(data: bytes, at: int, *, errors: str = "strict") -> tuple[str, int]:
    start = at + 1
    stop = start + data[at]
    return data[start:stop].decode(errors=errors), stop


def _properties(head: bytes) -> dict[str, Any]:
    """The same as py-amqp makes of the header, several times faster for the headers of task messages."""
    flags = head[12] << 8 | head[13]
    try:
        return _read_properties(head, flags)
    except (_Unusual, UnicodeDecodeError, IndexError, error):
        message = AmqpMessage()
        message._load_properties(60, head, 12)
        return dict(message.properties)


_SHORT_TEXTS = ((0x0400, "correlation_id"), (0x0200, "reply_to"), (0x0100, "expiration"), (0x0080, "message_id"))
_RARE = 0x007F


class _Unusual(Exception):
    """A header that only py-amqp can read."""


def _read_properties(head: bytes, flags: int) -> dict[str, Any]:
    if flags & _RARE:
        raise _Unusual
    properties: dict[str, Any] = {}
    at = 14
    if flags & 0x8000:
        properties["content_type"], at = _short_text(head, at)
    if flags & 0x4000:
        properties["content_encoding"], at = _short_text(head, at)
    if flags & 0x2000:
        stop = at + 4 + _LENGTH.unpack_from(head, at)[0]
        properties["application_headers"] = _table(head, at + 4, stop)
        at = stop
    if flags & 0x1000:
        properties["delivery_mode"] = head[at]
        at += 1
    if flags & 0x0800:
        properties["priority"] = head[at]
        at += 1
    for flag, name in _SHORT_TEXTS:
        if flags & flag:
            properties[name], at = _short_text(head, at)
    return properties


def _table(data: bytes, at: int, stop: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    while at < stop:
        start = at + 1
        at = start + data[at]
        name = data[start:at].decode()
        kind = data[at]
        if kind == _NOTHING:
            found[name] = None
            at += 1
        elif kind == _TEXT:
            start = at + 5
            at = start + _LENGTH.unpack_from(data, at + 1)[0]
            found[name] = data[start:at].decode()
        else:
            found[name], at = _value(data, at)
    return found


def _array(data: bytes, at: int, stop: int) -> list[Any]:
    found = []
    while at < stop:
        value, at = _value(data, at)
        found.append(value)
    return found


def _value(data: bytes, at: int) -> tuple[Any, int]:
    """The value that begins at this place with its kind, and the place behind it."""
    kind = data[at]
    at += 1
    if kind == _NOTHING:
        return None, at
    if kind == _BOOLEAN:
        return bool(data[at]), at + 1
    if (number := _NUMBERS.get(kind)) is not None:
        return number.unpack_from(data, at)[0], at + number.size
    if kind not in (_TEXT, _TABLE, _ARRAY):
        raise _Unusual
    start = at + 4
    stop = start + _LENGTH.unpack_from(data, at)[0]
    if kind == _TEXT:
        return data[start:stop].decode(), stop
    return (_table if kind == _TABLE else _array)(data, start, stop), stop
