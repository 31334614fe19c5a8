"""Who may read and who may act: names of this server, tokens, sessions, a proxy that knows who asks."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from fleet.errors import FleetError, Refused
from fleet.file_access import read_file

SESSION_SECONDS = 12 * 3600.0
MOST_SESSIONS = 1_000
LEAST_TOKEN = 20
VIA = "via dashboard"
_MOST_NAME = 100
_FOUR_IN_SIX = "::ffff:"
"""How an address of IPv4 looks to a server that listens on [::]."""
_TOKEN_BYTES = 1 << 16
_HINT = "a line per person, NAME TOKEN or TOKEN alone; `openssl rand -hex 32` makes a token"


@dataclass(frozen=True, slots=True)
class Token:
    """Who has it, and the digest of it; the token itself is kept nowhere."""

    name: str
    digest: bytes

    @classmethod
    def of(cls, name: str, token: str) -> Token:
        """Of a token as a person has it."""
        return cls(name, _digest(token))


def read_tokens(path: Path) -> tuple[Token, ...]:
    """The tokens of a file that nobody else can read. Raises FleetError."""
    try:
        text = read_file(path, limit_bytes=_TOKEN_BYTES, own=True).decode()
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise FleetError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}", hint=_HINT) from error
    if mode & 0o077:
        raise Refused(f"{path} can be read or changed by others", hint=f"chmod 0600 {path}")
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        name, token = (words[0], words[1]) if len(words) == 2 else ("token", words[0])
        if len(words) > 2 or len(token) < LEAST_TOKEN:
            raise FleetError(f"{path}:{number}: no token of at least {LEAST_TOKEN} characters", hint=_HINT)
        found.append(Token.of(_name(name), token))
    if not found:
        raise FleetError(f"{path} holds no token", hint=_HINT)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Policy:
    """Who gets in.

    hosts: names and addresses that a request may be for; lower case, without a port.  tokens: one of them is needed;
    none: whoever can connect.  trust_header: the proxy says in it who asks.  proxies: addresses it comes from; empty:
    the unix socket that is listened on.  is_secure: the browser speaks TLS to this server.  nobody: the name of
    someone who needs no token.
    """

    hosts: frozenset[str]
    tokens: tuple[Token, ...] = ()
    trust_header: str = ""
    proxies: frozenset[str] = frozenset()
    is_secure: bool = False
    may_act: bool = False
    nobody: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """Who asks. secret: what the mark of its pages is made with.  by_bearer: no browser sent this by itself."""

    name: str
    secret: str
    by_bearer: bool = False

    @property
    def by(self) -> str:
        """As the audit has it."""
        return f"{self.name} {VIA}"


class Denied(Exception):
    """The request is refused. ``needs_login``: a token would help."""

    def __init__(self, status: int, message: str, *, needs_login: bool = False) -> None:
        super().__init__(message)
        self.status, self.message, self.needs_login = status, message, needs_login


@dataclass(slots=True)
class Access:
    """Judges requests by a policy; keeps the sessions. Header names are lower case."""

    policy: Policy
    _sessions: dict[str, tuple[str, float]] = field(default_factory=dict)
    _key: bytes = field(default_factory=lambda: secrets.token_bytes(32))

    @property
    def cookie(self) -> str:
        """The name of the session's cookie."""
        return "__Host-fleet" if self.policy.is_secure else "fleet"

    def check_server(self, headers: Mapping[str, str]) -> None:
        """Raise Denied for a request that is for another name: a page of elsewhere whose name leads here."""
        host = host_name(headers.get("host", ""))
        if host not in self.policy.hosts:
            raise Denied(421, f"this server is not {host or 'without a name'!r}; see --host-name")

    def person(self, headers: Mapping[str, str], cookies: Mapping[str, str], peer: str) -> Person:
        """Who asks. Raises Denied."""
        policy = self.policy
        if policy.trust_header:
            return self._of_proxy(headers, peer)
        if not policy.tokens:
            return Person(policy.nobody, "")
        kind, _, token = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and (name := self.name_of(token.strip())):
            return Person(name, token, by_bearer=True)
        session = cookies.get(self.cookie, "")
        name, until = self._sessions.get(session, ("", 0.0))
        if not name or until < time.time():
            self._sessions.pop(session, None)
            raise Denied(401, "a token is needed", needs_login=True)
        return Person(name, session)

    def _of_proxy(self, headers: Mapping[str, str], peer: str) -> Person:
        if self.policy.proxies and peer.removeprefix(_FOUR_IN_SIX) not in self.policy.proxies:
            raise Denied(403, "only the proxy may ask")
        name = headers.get(self.policy.trust_header, "").strip()
        if not name:
            raise Denied(401, f"the proxy names nobody in {self.policy.trust_header}")
        return Person(_name(name), _name(name))

    def name_of(self, token: str) -> str:
        """Who has this token; '' for nobody. Takes as long for a wrong one."""
        digest, found = _digest(token), ""
        for one in self.policy.tokens:
            if hmac.compare_digest(one.digest, digest):
                found = one.name
        return found

    def log_in(self, token: str) -> str:
        """A new session for who has this token. Raises Denied."""
        name = self.name_of(token)
        if not name:
            raise Denied(401, "that is no token of this dashboard", needs_login=True)
        session, now = secrets.token_urlsafe(32), time.time()
        for old in [one for one, (_, until) in self._sessions.items() if until < now]:
            del self._sessions[old]
        while len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session] = (name, now + SESSION_SECONDS)
        return session

    def log_out(self, cookies: Mapping[str, str]) -> None:
        """End the session."""
        self._sessions.pop(cookies.get(self.cookie, ""), None)

    def page_mark(self, person: Person) -> str:
        """What only a page of this server knows, to be sent back with what changes something."""
        return hmac.new(self._key, f"page {person.secret}".encode(), hashlib.sha256).hexdigest()

    def check_page(self, headers: Mapping[str, str], person: Person) -> None:
        """Raise Denied for a request that no page of this server made."""
        if person.by_bearer:
            return
        self.check_origin(headers)
        given = headers.get("x-fleet-page", "")
        if not hmac.compare_digest(given.encode(), self.page_mark(person).encode()):
            raise Denied(403, "the page is old; load it again")

    def check_origin(self, headers: Mapping[str, str]) -> None:
        """Raise Denied for what a page of another server asks."""
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            raise Denied(403, "another site asked for this")
        origin = headers.get("origin", "")
        if origin and urlsplit(origin).netloc.lower() != headers.get("host", "").lower():
            raise Denied(403, "another site asked for this")


def host_name(host: str) -> str:
    """``localhost:80`` -> ``localhost``, ``[::1]:80`` -> ``::1``."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _name(text: str) -> str:
    """A name that can stand in an audit."""
    return "".join(one if one.isprintable() else "?" for one in text)[:_MOST_NAME]
