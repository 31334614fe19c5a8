"""Whether something outside answers: one attempt over TCP, a unix socket, Redis or HTTP. Stdlib only."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

PORTS = {"redis": 6379, "rediss": 6379, "amqp": 5672, "pyamqp": 5672, "amqps": 5671, "http": 80, "https": 443}
"""Schemes that can be asked, and their ports where the URL gives none; ``tcp`` needs one, ``unix`` has a path."""
SCHEMES = (*PORTS, "tcp", "unix", "redis+socket")
_OPEN = (b"+PONG", b"-NOAUTH", b"-NOPERM", b"-DENIED")


def url_problem(url: str) -> str:
    """What is wrong with the URL itself; '' where it can be asked."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in SCHEMES:
        return f"its scheme is none of {', '.join(SCHEMES)}"
    if parts.scheme in {"unix", "redis+socket"}:
        return "" if parts.path else "it names no socket"
    if not parts.hostname:
        return "it names no host"
    return "it names no port" if port is None and parts.scheme == "tcp" else ""


def why_silent(url: str, *, timeout_seconds: float) -> str:
    """Why nothing answers at ``url``, '' where something does. The text never holds a password of the URL."""
    if problem := url_problem(url):
        return problem
    parts = urlsplit(url)
    try:
        if parts.scheme in {"http", "https"}:
            return _http(parts, timeout_seconds)
        with _connected(parts, timeout_seconds) as connection:
            return _ping(connection) if parts.scheme in {"redis", "redis+socket"} else ""
    except TimeoutError:
        return f"no answer within {timeout_seconds:g} s"
    except (OSError, http.client.HTTPException) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextlib.contextmanager
def _connected(parts: SplitResult, timeout_seconds: float) -> Iterator[socket.socket]:
    if parts.scheme in {"unix", "redis+socket"}:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_seconds)
            connection.connect(parts.path)
            yield connection
        return
    place = (parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0))
    with socket.create_connection(place, timeout=timeout_seconds) as connection:
        yield connection


def _ping(connection: socket.socket) -> str:
    """Redis answers PING; one that is still loading its data answers with an error."""
    connection.sendall(b"PING\r\n")
    answer = connection.recv(256)
    if answer.startswith(_OPEN):
        return ""
    return answer.decode(errors="replace").strip().lstrip("-") or "it closed the connection"


def _http(parts: SplitResult, timeout_seconds: float) -> str:
    """A status below 400 is an answer; the certificate of https must be one that this machine trusts."""
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    if parts.scheme == "https":
        context = ssl.create_default_context()
        client: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=timeout_seconds, context=context
        )
    else:
        client = http.client.HTTPConnection(host, port, timeout=timeout_seconds)
    try:
        client.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        status = client.getresponse().status
    finally:
        client.close()
    return "" if status < http.HTTPStatus.BAD_REQUEST else f"status {status}"
