"""An address to listen on, as text: a loopback host with a port, or a unix socket."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """host and port, or the path of a unix socket; ``path`` is empty where there is none. port 0: any that is free."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return UNIX + self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def listen_address(text: str, *, anywhere: bool = False) -> ListenAddress:
    """``127.0.0.1:9808``, ``[::1]:9808``, ``localhost:9808`` or ``unix:/run/fleet.sock``.

    anywhere: other addresses of this machine too.  Raises ValueError with a sentence for people, its hint after ``; ``.
    """
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"not an absolute path: {path!r}; write it like unix:/run/fleet-metrics.sock")
        return ListenAddress(path=path)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError(f"not an address: {text!r}; write it like 127.0.0.1:9808 or unix:/run/fleet-metrics.sock")
    if anywhere and not is_loopback(host) and not _is_address(host):
        raise ValueError(f"not an address: {host!r}; write it like 10.0.0.5:9810, [::]:9810 or 0.0.0.0:9810")
    if not anywhere and not is_loopback(host):
        hint = "listen on 127.0.0.1, and let a proxy that knows who asks serve others"
        raise ValueError(f"not an address of this machine alone: {host!r}; {hint}")
    return ListenAddress(host, int(port))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
