"""A webhook: a signed request makes the source look now. Nothing of what it says is believed or used."""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any

from fleet.errors import FleetError

MOST_BYTES = 5 << 20
PATIENCE_SECONDS = 5.0
MOST_AT_ONCE = 8
SIGNATURES = ("X-Hub-Signature-256", "X-Gitea-Signature", "X-Fleet-Signature")
TOKEN = "X-Gitlab-Token"


def is_signed(headers: Mapping[str, str], body: bytes, secret: bytes) -> bool:
    """Whether a request was made by somebody who knows the secret.

    HMAC-SHA256 of the body in hex, with or without ``sha256=`` before it; or the secret itself, as GitLab sends it.
    """
    wanted = hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
    for name in SIGNATURES:
        given = headers.get(name, "").strip().removeprefix("sha256=")
        if given and hmac.compare_digest(given.encode("utf-8", "replace"), wanted):
            return True
    token = headers.get(TOKEN, "")
    return bool(token) and hmac.compare_digest(token.encode("utf-8", "replace"), secret)


class Receiver:
    """Listens from ``with`` to its end, in threads of its own. ``look_now`` is called for every signed request."""

    def __init__(self, listen: str, secret: str, look_now: Callable[[], None]) -> None:
        host, _, port = listen.rpartition(":")
        try:
            self._server = _Server((host.strip("[]"), int(port)), secret.encode(), look_now)
        except OSError as error:
            hint = "another program has the port; see spec.receiver.listen"
            raise FleetError(f"cannot listen on {listen}: {error.strerror}", hint=hint) from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)

    @property
    def port(self) -> int:
        """The port, chosen by the system where 0 was asked for."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Receiver:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], secret: bytes, look_now: Callable[[], None]) -> None:
        self.secret = secret
        self.look_now = look_now
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__(address, _Handler)

    def process_request(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """At most a few at once; the others are let go at once."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """A caller that hangs up or dawdles is no news."""


class _Handler(BaseHTTPRequestHandler):
    timeout = PATIENCE_SECONDS
    server: _Server
    server_version = "fleet"
    sys_version = ""

    def do_POST(self) -> None:
        """202 for a signed request, 401 for any other; the body is read only to check its signature."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._answer(411)
        elif int(length) > MOST_BYTES:
            self._answer(413)
        elif not is_signed(self.headers, self.rfile.read(int(length)), self.server.secret):  # type: ignore[arg-type]
            self._answer(401)
        else:
            self.server.look_now()
            self._answer(202)

    def _answer(self, code: int) -> None:
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news; what they lead to is."""
