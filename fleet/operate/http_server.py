"""An HTTP server in threads of its own that answers only a few requests at once, and ends with its ``with``."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MOST_AT_ONCE = 8


class BoundedServer(ThreadingHTTPServer):
    """Callers beyond ``MOST_AT_ONCE`` are let go at once; nothing that a caller does is printed."""

    daemon_threads = True

    def __init__(self, address: Any, handler: type[BaseHTTPRequestHandler]) -> None:
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, where there is room."""
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A caller that hangs up or dawdles is no news."""


class QuietHandler(BaseHTTPRequestHandler):
    """Answers in one piece; requests are no news."""

    def answer(self, status: int, body: bytes, content_type: str) -> None:
        """Send it whole; of a request for the head alone, without the body."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


class Listening:
    """Serves from ``with`` to its end. name: of the thread."""

    def __init__(self, server: BoundedServer, *, name: str) -> None:
        self._bound = server
        self._thread = threading.Thread(target=server.serve_forever, name=name, daemon=True)

    @property
    def port(self) -> int:
        """The port, chosen by the system where 0 was asked for."""
        return int(self._bound.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bound.shutdown()
        self._bound.server_close()
        self._thread.join()
