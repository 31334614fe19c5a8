"""URLs of things outside that can be asked whether they answer: what is wrong with one, and what identifies it."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

PORTS = {
    "redis": 6379,
    "rediss": 6379,
    "amqp": 5672,
    "pyamqp": 5672,
    "amqps": 5671,
    "http": 80,
    "https": 443,
    "postgres": 5432,
    "postgresql": 5432,
    "mysql": 3306,
    "memcached": 11211,
}
"""Schemes that can be asked, and their ports where the URL gives none; ``tcp`` needs one, ``unix`` has a path."""
SCHEMES = (*PORTS, "tcp", "unix", "redis+socket")


def url_problem(url: str) -> str:
    """What is wrong with the URL itself; '' where it can be asked."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in SCHEMES:
        return f"its scheme is none of {', '.join(SCHEMES)}"
    if parts.scheme in {"unix", "redis+socket"}:
        return "" if parts.path else "it names no socket"
    if not parts.hostname:
        return "it names no host"
    return "it names no port" if port is None and parts.scheme == "tcp" else ""


def without_account(url: str) -> str:
    """The URL without name and password, and without its query where that is no part of a request."""
    parts = urlsplit(url)
    query = parts.query if parts.scheme in {"http", "https"} else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))
