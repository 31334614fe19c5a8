"""XML-RPC over HTTP on a unix socket, as far as supervisord speaks it.

The standard library's client imports TLS and everything about e-mail for it, a tenth of the time of ``fleet status``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from xml.parsers import expat

LINE_BYTES = 65_536
_MOST_HEADERS = 100


class CallFault(Exception):
    """The other side refused a call, with a code and a text."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class HttpError(Exception):
    """An answer of HTTP that is no success: its code and reason."""


class Client:
    """Keeps one connection. What a daemon closed between two calls is connected once more."""

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._socket: socket.socket | None = None
        self._stream: BinaryIO | None = None

    def call(self, method: str, *params: Any) -> Any:
        """What the method answers. params: text, whole numbers, truth values, and lists and maps of them.

        Raises CallFault, HttpError, OSError (TimeoutError among them), and ValueError for an answer of another shape.
        """
        body = request_of(method, params)
        try:
            answer = self._asked(body)
        except (ConnectionResetError, ConnectionAbortedError, BrokenPipeError):
            self.close()
            answer = self._asked(body)
        return value_of(answer)

    def close(self) -> None:
        """Close the connection; the next call makes another."""
        for one in (self._stream, self._socket):
            if one is not None:
                one.close()
        self._socket = self._stream = None

    def _asked(self, body: bytes) -> bytes:
        if self._socket is None or self._stream is None:
            self._connect()
        assert self._socket is not None
        assert self._stream is not None
        head = (
            f"POST /RPC2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + body)
        answer, stays = _read_answer(self._stream)
        if not stays:
            self.close()
        return answer

    def _connect(self) -> None:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(self._timeout_seconds)
            connected.connect(str(self._path))
        except OSError:
            connected.close()
            raise
        self._socket, self._stream = connected, connected.makefile("rb")


def _read_answer(stream: BinaryIO) -> tuple[bytes, bool]:
    """The body of an answer, and whether the connection stays open after it."""
    first = _line(stream)
    if not first:
        raise ConnectionResetError("it closed the connection without an answer")
    version, _, said = first.partition(" ")
    code, _, reason = said.partition(" ")
    if not version.startswith("HTTP/1.") or not code.isdecimal():
        raise ConnectionError(f"no answer of HTTP: {first[:100]!r}")
    headers: dict[str, str] = {}
    while line := _line(stream):
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
        if len(headers) > _MOST_HEADERS:
            raise ConnectionError("an answer with too many headers")
    body, stays = _read_body(stream, headers), version != "HTTP/1.0"
    if code != "200":
        raise HttpError(f"HTTP {code} {reason}".strip())
    return body, stays and "content-length" in headers and headers.get("connection", "").lower() != "close"


def _read_body(stream: BinaryIO, headers: dict[str, str]) -> bytes:
    if "transfer-encoding" in headers:
        raise ConnectionError(f"an answer in another encoding: {headers['transfer-encoding']}")
    if "content-length" not in headers:
        return stream.read()
    length = headers["content-length"]
    if not length.isdecimal():
        raise ConnectionError(f"an answer of unknown length: {length!r}")
    body = stream.read(int(length))
    if len(body) < int(length):
        raise ConnectionError("it closed the connection within an answer")
    return body


def _line(stream: BinaryIO) -> str:
    line = stream.readline(LINE_BYTES + 1)
    if len(line) > LINE_BYTES:
        raise ConnectionError("an answer with too long a line")
    return line.decode("latin-1").rstrip("\r\n")


# what is asked


def request_of(method: str, params: tuple[Any, ...]) -> bytes:
    """A call as XML. Raises ValueError for a value that it cannot say."""
    values = "".join(f"<param>{_xml(value)}</param>" for value in params)
    call = f"<methodName>{_text(method)}</methodName><params>{values}</params>"
    return f"<?xml version='1.0'?><methodCall>{call}</methodCall>".encode("utf-8", "xmlcharrefreplace")


def _xml(value: Any) -> str:
    if isinstance(value, str):
        inner = f"<string>{_text(value)}</string>"
    elif isinstance(value, bool):
        inner = f"<boolean>{value:d}</boolean>"
    elif isinstance(value, int):
        inner = f"<int>{value}</int>"
    elif isinstance(value, dict):
        members = (f"<member><name>{_text(name)}</name>{_xml(one)}</member>" for name, one in value.items())
        inner = f"<struct>{''.join(members)}</struct>"
    elif isinstance(value, list | tuple):
        inner = f"<array><data>{''.join(map(_xml, value))}</data></array>"
    else:
        raise ValueError(f"XML-RPC has no word for {value!r}")
    return f"<value>{inner}</value>"


def _text(value: str) -> str:
    return value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


# what is answered


def value_of(answer: bytes) -> Any:
    """The value in an answer. Raises CallFault, and ValueError for what is none."""
    reader = _Reader()
    try:
        reader.read(answer)
    except expat.ExpatError as error:
        raise ValueError(f"no XML: {error}") from error
    if len(reader.values) != 1:
        raise ValueError("no answer to one call")
    (value,) = reader.values
    if reader.is_fault:
        raise CallFault(int(value["faultCode"]), str(value["faultString"]))
    return value


_SCALARS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("int", "i4", "i8"), int),
    "boolean": lambda text: {"0": False, "1": True}[text],
    "double": float,
    "string": str,
    "name": str,
    "nil": lambda _: None,
}


class _Reader:
    """Puts values on a stack; where a list or a map ends, what lies above its mark becomes one value."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.is_fault = False
        self._marks: list[int] = []
        self._text: list[str] = []
        self._is_bare = False

    def read(self, answer: bytes) -> None:
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.Parse(answer, True)

    def _start(self, tag: str, _: dict[str, str]) -> None:
        if tag in ("array", "struct"):
            self._marks.append(len(self.values))
        self._text.clear()
        self._is_bare = tag == "value"

    def _end(self, tag: str) -> None:
        if tag in _SCALARS:
            self.values.append(_SCALARS[tag]("".join(self._text)))
        elif tag == "value" and self._is_bare:  # text without a type
            self.values.append("".join(self._text))
        elif tag in ("array", "struct"):
            mark = self._marks.pop()
            inside = self.values[mark:]
            self.values[mark:] = [inside if tag == "array" else dict(zip(inside[::2], inside[1::2], strict=True))]
        elif tag == "fault":
            self.is_fault = True
        self._text.clear()
        self._is_bare = False
