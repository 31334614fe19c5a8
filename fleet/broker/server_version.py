"""The version of the embedded broker's server, and what is known to be wrong with it.

The known holes are a list beside this module; ``checked`` is the day on which its versions were compared with what is
published. A version without one is not proven to be sound, and a distribution may have mended one without changing the
version.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache

from fleet.errors import Refused

LEAST = (6, 2, 0)
"""LMOVE and what the scripts of the channel call."""
HINT = "install a newer Redis or Valkey, or name one: FLEET_REDIS_SERVER"
_SAYS = r"(?i)(redis|valkey)\S* server\s+v=(\d+)\.(\d+)\.(\d+)"
_TIMEOUT_SECONDS = 20.0
Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Server:
    """product: redis or valkey."""

    product: str
    version: Version

    def __str__(self) -> str:
        return f"{self.product.title()} {_text(self.version)}"


@dataclass(frozen=True, slots=True)
class Advisory:
    """One known hole. fixed: the first sound version of each branch that has one; later branches are sound."""

    id: str
    what: str
    product: str
    since: Version
    fixed: tuple[Version, ...]

    def concerns(self, server: Server) -> bool:
        """Whether this version has the hole, as far as the list knows."""
        if server.product != self.product or server.version < self.since:
            return False
        of_branch = [fix for fix in self.fixed if fix[:2] == server.version[:2]]
        return server.version < (of_branch[0] if of_branch else max(self.fixed))


@lru_cache(maxsize=8)
def server_at(path: str) -> Server | None:
    """What the program says of itself; None where it says nothing that is understood."""
    import subprocess

    try:
        said = subprocess.run([path, "--version"], capture_output=True, timeout=_TIMEOUT_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(_SAYS, said.decode(errors="replace"))
    return Server(found[1].lower(), (int(found[2]), int(found[3]), int(found[4]))) if found else None


def check_server(path: str) -> None:
    """Raise Refused for a server that is too old for fleet."""
    server = server_at(path)
    if server is not None and server.version < LEAST:
        raise Refused(f"{path} is {server}; fleet needs {_text(LEAST)} or newer", hint=HINT)


def known_holes(server: Server) -> tuple[Advisory, ...]:
    """The advisories that concern a server, in the order of the list."""
    return tuple(advisory for advisory in advisories() if advisory.concerns(server))


def warning(path: str) -> str:
    """What to say of a server with known holes; ``""`` where none is known."""
    server = server_at(path)
    holes = known_holes(server) if server is not None else ()
    if not holes:
        return ""
    ids = ", ".join(dict.fromkeys(hole.id for hole in holes))
    return f"{path} is {server}, which has known holes ({ids}), unless whoever packaged it has mended them"


@lru_cache(maxsize=1)
def advisories() -> tuple[Advisory, ...]:
    """The whole list."""
    from importlib.resources import files

    text = (files(__package__) / "advisories.json").read_text()
    return tuple(
        Advisory(one["id"], one["what"], one["product"], _version(one["since"]), tuple(map(_version, one["fixed"])))
        for one in json.loads(text)
    )


def _version(text: str) -> Version:
    major, minor, patch = map(int, text.split("."))
    return major, minor, patch


def _text(version: Version) -> str:
    return ".".join(map(str, version))
