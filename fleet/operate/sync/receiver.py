"""A webhook: a signed request makes the source look now. Nothing of what it says is believed or used."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping

from fleet.errors import FleetError
from fleet.operate.http_server import BoundedServer, Listening, QuietHandler

MOST_BYTES = 5 << 20
PATIENCE_SECONDS = 5.0
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


class Receiver(Listening):
    """Listens from ``with`` to its end, in threads of its own. ``look_now`` is called for every signed request."""

    def __init__(self, listen: str, secret: str, look_now: Callable[[], None]) -> None:
        host, _, port = listen.rpartition(":")
        try:
            server = _Server((host.strip("[]"), int(port)), secret.encode(), look_now)
        except OSError as error:
            hint = "another program has the port; see spec.receiver.listen"
            raise FleetError(f"cannot listen on {listen}: {error.strerror}", hint=hint) from error
        super().__init__(server, name="receiver")


class _Server(BoundedServer):
    def __init__(self, address: tuple[str, int], secret: bytes, look_now: Callable[[], None]) -> None:
        self.secret = secret
        self.look_now = look_now
        super().__init__(address, _Handler)


class _Handler(QuietHandler):
    timeout = PATIENCE_SECONDS
    server: _Server
    server_version = "fleet"
    sys_version = ""

    def do_POST(self) -> None:  # noqa: N802
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
