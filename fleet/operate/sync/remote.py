"""The address of a repository: which addresses are taken, and how git and a forge's API name it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

Transport = Literal["ssh", "https", "http", "file"]
_SCP = re.compile(r"(?:(?P<user>[A-Za-z0-9._-]+)@)?(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>(?!/?/)[^\x00-\x20]+)")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\]")
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository's address. ``url`` is what git gets; ``path`` is the repository's path on its host."""

    url: str
    transport: Transport
    host: str = ""
    path: str = ""

    @property
    def project(self) -> str:
        """``owner/name``, as the APIs of GitHub and GitLab call it."""
        return self.path.strip("/").removesuffix(".git")


def remote(url: str) -> Remote:
    """The address, or ValueError with a sentence and, after ``; ``, a hint."""
    if _UNPRINTABLE.search(url) or url.startswith("-"):
        raise ValueError(f"not the address of a repository: {url!r}; no blanks, and no - in front")
    if url.startswith("/"):
        return Remote(url, "file", path=url)
    if "://" in url:
        return _with_scheme(url)
    if found := _SCP.fullmatch(url):
        return Remote(url, "ssh", found["host"], found["path"])
    raise ValueError(
        f"not the address of a repository: {url!r}; ssh://…, git@host:path, https://…, or /an/absolute/path"
    )


def _with_scheme(url: str) -> Remote:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"not the address of a repository: {url!r}; {error}") from error
    match parts.scheme:
        case "file":
            if host or not parts.path.startswith("/"):
                raise ValueError(f"not a file of this machine: {url!r}; write file:///path")
            return Remote(url, "file", path=parts.path)
        case "ssh" | "https" | "http":
            pass
        case _:
            raise ValueError(f"{parts.scheme!r} is no transport for manifests; ssh, https and local paths are")
    if not (_HOST.fullmatch(host) or ":" in host) or not parts.path.strip("/"):
        raise ValueError(f"not the address of a repository: {url!r}; it needs a host and a path")
    if parts.password is not None or (parts.scheme != "ssh" and parts.username is not None):
        raise ValueError("the address holds a name or a password; put it under auth: {username, token}")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise ValueError("http has no protection on the way; use https or ssh")
    transport: Transport = "ssh" if parts.scheme == "ssh" else "https" if parts.scheme == "https" else "http"
    return Remote(url, transport, host, parts.path)
