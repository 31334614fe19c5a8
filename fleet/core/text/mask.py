"""Passwords and tokens taken out of what is shown: URLs, and text that may hold some.

A URL is read as a careless person writes it, not as the standard has it: passwords hold ``@``, ``/``, ``#`` and ``?``
unescaped. Where two readings are possible, the one that hides more is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

MASK = "**"
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_USUAL_SCHEMES = frozenset(
    (
        *("amqp", "amqps", "pyamqp", "librabbitmq", "qpid", "redis", "rediss", "sentinel", "valkey", "valkeys"),
        *("sqs", "gcpubsub", "azurestoragequeues", "confluentkafka", "zookeeper", "mongodb", "memory", "filesystem"),
        *("sqla", "sqlalchemy", "sqlite", "mysql", "postgres", "postgresql", "oracle", "memcache", "rpc", "file"),
        *("http", "https", "ws", "wss", "ftp", "git", "ssh", "smtp", "smtps", "ldap", "s3", "unix"),
    )
)
"""Any other word before ``://`` may be a user without a scheme, and what follows a password that begins with ``//``."""
_NEXT_URL = r";(?=[A-Za-z][A-Za-z0-9+.-]*://)"
_PARAMETER = r"[?&;]([^=?&;]*)=([^&]*)"
_SECRET_WORD = r"(?i)pass|pwd|secret|token|credential|signature|auth|api.?key|access.?key|private.?key"
_SECRET_VARIABLE = (
    r"(?i)(^|_)"
    r"(PASSWORD|PASSWD|PASS|PWD|SECRET|TOKEN|CREDENTIALS?|(API|ACCESS|SECRET|PRIVATE|SIGNING|ENCRYPTION)_?KEY)$"
)
_QUOTED_URL = r"""(['"])(?P<quoted>[^'"\n]*?[A-Za-z][A-Za-z0-9+.-]*://[^'"\n]*)\1|(?P<bare>[^\s'"]*://[^\s'"]+)"""


def masked(url: str) -> str:
    """The URL, or list of URLs, for people and logs: without passwords, tokens and keys."""
    return ";".join(_one(part) for part in _parts(url))


def masked_text(text: str) -> str:
    """Prose with every URL in it masked."""
    return re.sub(_QUOTED_URL, _masked_match, text)


def without_url(text: str, url: str) -> str:
    """What a library said about this URL: neither it nor its password is left in the text."""
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, MASK)
    return masked_text(text)


def looks_secret(name: str) -> bool:
    """Whether a variable or setting of this name holds a secret, by its name."""
    return bool(re.search(_SECRET_WORD, name))


def holds_secret(variable: str, value: str) -> bool:
    """Whether an environment variable holds a secret, by its name or because its value is a URL with a password."""
    return bool(value) and (bool(re.search(_SECRET_VARIABLE, variable)) or ("://" in value and masked(value) != value))


def _masked_match(found: re.Match[str]) -> str:
    if (quoted := found["quoted"]) is not None:
        return f"{found[1]}{masked(quoted)}{found[1]}"
    return masked(found["bare"])


def _parts(urls: str) -> list[str]:
    """The URLs of a list. A part without an ``@`` may be the begin of a password that holds the separator."""
    parts: list[str] = []
    for part in re.split(_NEXT_URL, urls):
        if parts and ":" in re.sub(_SCHEME, "", parts[-1], count=1) and "@" not in parts[-1]:
            parts[-1] += f";{part}"
        else:
            parts.append(part)
    return parts


def _one(url: str) -> str:
    shown, at = "", 0
    for start, end in _merged(sorted(_spans(url))):
        shown += url[at:start] + MASK
        at = end
    return shown + url[at:]


def _spans(url: str) -> Iterator[tuple[int, int]]:
    """From and to of each secret in it."""
    scheme = re.match(_SCHEME, url)
    begin = scheme.end() if scheme else 0
    colon, last = url.find(":", begin), url.rfind("@")
    if 0 <= colon < last:
        yield colon + 1, last
    elif scheme and begin < last and scheme[0].lower().partition(":")[0].partition("+")[0] not in _USUAL_SCHEMES:
        yield begin - len("//"), last
    for found in re.finditer(_PARAMETER, url):
        if re.search(_SECRET_WORD, unquote(found[1])):
            yield found.span(2)


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    whole: list[tuple[int, int]] = []
    for start, end in spans:
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(end, whole[-1][1]))
        else:
            whole.append((start, end))
    return whole


def _secrets(url: str) -> set[str]:
    """The URL and every text in it that may be its password: a library shows the one it has understood."""
    spans = [(part[start:end], part[end : end + 1]) for part in _parts(url) for start, end in _spans(part)]
    ends = {text[:at] for text, mark in spans if mark == "@" for at, char in enumerate(text) if char == "@"}
    found = {url} | {text for text, _ in spans} | ends
    return {one for text in found for one in (text, unquote(text), repr(text)[1:-1]) if len(one) > 1}
