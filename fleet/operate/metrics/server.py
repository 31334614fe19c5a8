"""Serves metrics over HTTP, on a loopback address or a unix socket. Reading only: no request changes anything."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import Any

from fleet.core.text.listen import ListenAddress
from fleet.errors import FleetError
from fleet.operate.http_server import BoundedServer, Listening, QuietHandler
from fleet.operate.metrics.collecting import Collect
from fleet.operate.metrics.exposition import negotiated

PATIENCE_SECONDS = 10.0
_INDEX = b'<!doctype html><title>fleet metrics</title><p><a href="/metrics">metrics</a></p>\n'


class MetricsServer(Listening):
    """Listens from ``with`` to its end, in threads of its own. Raises FleetError where it cannot listen."""

    def __init__(self, address: ListenAddress, collect: Collect) -> None:
        self._path = address.path
        kind = _UnixServer if address.path else _ServerOfSix if ":" in address.host else _Server
        try:
            self._server = kind(address.path or (address.host, address.port), collect)
        except OSError as error:
            hint = "another program has that address, or it is not this machine's; see --listen"
            raise FleetError(f"cannot listen on {address}: {error.strerror or error}", hint=hint) from error
        super().__init__(self._server, name="metrics")

    @property
    def address(self) -> ListenAddress:
        """Where it listens; the port, chosen by the system where 0 was asked for."""
        if self._path:
            return ListenAddress(path=self._path)
        return ListenAddress(str(self._server.server_address[0]), self.port)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


class _Server(BoundedServer):
    def __init__(self, address: Any, collect: Collect) -> None:
        self.collect = collect
        super().__init__(address, _Handler)


class _ServerOfSix(_Server):
    address_family = socket.AF_INET6


class _UnixServer(_Server):
    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """For this account alone. A socket that nobody listens on is left over, and replaced."""
        path = str(self.server_address)
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.lstat(path).st_mode) and not _answers(path):
                os.unlink(path)
        before = os.umask(0o177)
        try:
            self.socket.bind(path)
        finally:
            os.umask(before)
        self.server_name, self.server_port = path, 0

    def get_request(self) -> tuple[Any, Any]:
        """A caller over a unix socket has no address."""
        request, _ = self.socket.accept()
        return request, ("", 0)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


class _Handler(QuietHandler):
    timeout = PATIENCE_SECONDS
    server: _Server
    server_version = "fleet"
    sys_version = ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802
        """``/metrics``, and a page that points there."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            body, content_type = negotiated(self.server.collect(), self.headers.get("Accept", ""))
            self.answer(200, body, content_type)
        elif path == "/":
            self.answer(200, _INDEX, "text/html; charset=utf-8")
        else:
            self.answer(404, b"there is /metrics\n", "text/plain; charset=utf-8")

    def do_HEAD(self) -> None:  # noqa: N802
        """The same without the body."""
        self.do_GET()
