"""The other side of the shop's webhooks, as a local server: `python3 -m shop.partner`.

It answers `POST /orders` that is signed rightly with a receipt, and `GET /stock/<warehouse>/<article>`
with a number. Each answer takes a moment, as answers over a network do.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shop import settings

WAREHOUSES = ("north", "south", "east", "west")
ANSWER_SECONDS = 0.2


def signature(body: bytes) -> str:
    """What the header X-Signature says of a body."""
    return hmac.new(settings.stripe_key(), body, hashlib.sha256).hexdigest()


def receipt(body: bytes) -> str:
    """What the partner answers to an order."""
    return hashlib.sha256(b"receipt " + body).hexdigest()[:12]


def in_stock(warehouse: str, article: str) -> int:
    """How many of an article a warehouse has."""
    return hashlib.sha256(f"{warehouse}/{article}".encode()).digest()[0]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_POST(self) -> None:
        """An order."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(ANSWER_SECONDS)
        if hmac.compare_digest(signature(body), self.headers.get("X-Signature", "")):
            self._answer(200, {"receipt": receipt(body)})
        else:
            self._answer(403, {"error": "wrong signature"})

    def do_GET(self) -> None:
        """A question about stock."""
        _, _, warehouse, article = self.path.split("/")
        time.sleep(ANSWER_SECONDS)
        self._answer(200, {"count": in_stock(warehouse, article)})

    def log_message(self, *_: object) -> None:
        """Not a line for each request."""

    def _answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """A port that is free; many clients may knock at once."""

    daemon_threads = True
    request_queue_size = 256


def main() -> None:
    """Listen, and write where."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    address = settings.state() / "partner.url"
    address.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with Server(("127.0.0.1", 0), Handler) as server:
        fresh = address.with_suffix(".new")
        fresh.write_text(f"http://127.0.0.1:{server.server_port}")
        fresh.replace(address)  # whole or not at all
        server.serve_forever()


if __name__ == "__main__":
    main()
