"""Whether something outside answers: one attempt over TCP, a unix socket, Redis or HTTP. Stdlib only."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from threading import Thread
from urllib.parse import SplitResult, urlsplit

from fleet.core.text.outside_url import PORTS, url_problem

_OPEN = (b"+PONG", b"-NOAUTH", b"-NOPERM", b"-DENIED")


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


def why_silent_soon(url: str, *, timeout_seconds: float) -> str:
    """As :func:`why_silent`, but a name that is looked up for longer than that is not waited for."""
    answers: list[str] = []
    thread = Thread(target=lambda: answers.append(why_silent(url, timeout_seconds=timeout_seconds)), daemon=True)
    thread.start()
    thread.join(2 * timeout_seconds)
    return answers[0] if answers else f"no answer within {2 * timeout_seconds:g} s"


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
