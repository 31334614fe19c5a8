"""Serves the pages: on which address, with or without TLS, until it is told to end."""

from __future__ import annotations

import contextlib
import grp
import os
import socket
import stat
import threading
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from fleet.core.text.listen import ListenAddress
from fleet.errors import FleetError
from fleet.operate.dashboard.app import Dashboard

MOST_CONNECTIONS = 300
_BACKLOG = 128
_END_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Tls:
    """A certificate with its key, as files."""

    certificate: Path
    key: Path


class DashboardServer:
    """Listens from ``with`` to its end, in a thread of its own. Raises FleetError where it cannot listen."""

    def __init__(
        self, dashboard: Dashboard, address: ListenAddress, *, tls: Tls | None = None, socket_group: str = ""
    ) -> None:
        """socket_group: accounts that may use the unix socket, besides this one."""
        self._dashboard = dashboard
        self._path = address.path
        self._socket = _listening(address, socket_group)
        config = uvicorn.Config(
            dashboard.app,
            http="h11",
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=_END_SECONDS,
            ssl_certfile=tls.certificate if tls is not None else None,
            ssl_keyfile=tls.key if tls is not None else None,
        )
        try:
            config.load()
        except (OSError, ValueError) as error:
            self._close()
            raise FleetError(f"cannot use the certificate and its key: {error}") from error
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="dashboard", daemon=True
        )

    @property
    def address(self) -> ListenAddress:
        """Where it listens; the port, chosen by the system where 0 was asked for."""
        if self._path:
            return ListenAddress(path=self._path)
        host, port, *_ = self._socket.getsockname()
        return ListenAddress(str(host), int(port))

    def __enter__(self) -> DashboardServer:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._dashboard.let_go()
        self._server.should_exit = True
        self._thread.join()
        self._close()

    def _close(self) -> None:
        self._socket.close()
        if self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def _listening(address: ListenAddress, group: str) -> socket.socket:
    try:
        return _unix_socket(address.path, group) if address.path else _tcp_socket(address)
    except OSError as error:
        hint = "another program has that address, or it is not this machine's; see --listen"
        raise FleetError(f"cannot listen on {address}: {error.strerror or error}", hint=hint) from error


def _tcp_socket(address: ListenAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address.host, address.port))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _unix_socket(path: str, group: str) -> socket.socket:
    """For this account, and the group where one is named. A socket that nobody listens on is replaced."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode) and not _answers(path):
            os.unlink(path)
    made = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        made.bind(path)
        if group:
            os.chown(path, -1, _group_id(group))
            os.chmod(path, 0o660)
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def _group_id(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise FleetError(f"there is no group {group!r}", hint="see --socket-group") from None


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0
