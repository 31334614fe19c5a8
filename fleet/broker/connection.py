"""How a broker is reached: by its URL, with the password masked and a clear error when it does not answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any

from fleet.core.text.mask import masked, without_url
from fleet.errors import Unreachable

if TYPE_CHECKING:
    import kombu

REDIS_SCHEMES = frozenset({"redis", "rediss", "redis+socket"})
AMQP_SCHEMES = frozenset({"amqp", "amqps", "pyamqp"})
PRIORITY_STEPS = (0, 3, 6, 9)
SEPARATOR = "\x06\x16"
ANSWER_SECONDS = 20.0
_SQL_SCHEMES = ("sqla", "sqlalchemy")
_NOT_FOR_ENGINES = frozenset({"confirm_publish", "visibility_timeout"})
"""SQLAlchemy refuses options that it does not know; these are set for every transport."""


def scheme(url: str) -> str:
    """``redis`` of ``redis://host``; a URL without one is a host that speaks AMQP."""
    return url.partition("://")[0] if "://" in url else "amqp"


def is_redis(url: str) -> bool:
    """Whether one Redis server is meant. A list of servers, and sentinels, are left to kombu, which fails over."""
    return scheme(url) in REDIS_SCHEMES and ";" not in url


def is_rabbitmq(url: str) -> bool:
    """Whether an AMQP 0-9-1 broker is meant, or a list of them."""
    return scheme(url) in AMQP_SCHEMES


_LIMITS = ("socket_timeout", "socket_connect_timeout")


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """A Redis URL and its options as kombu reads them: how to connect, and which keys hold a queue."""

    parameters: Mapping[str, Any]
    prefix: str = ""
    separator: str = SEPARATOR
    steps: tuple[int, ...] = PRIORITY_STEPS

    def connect(self, *, name: str = "") -> Any:
        """A new connection that is up. Raises what redis-py raises."""
        parameters = dict(self.parameters)
        make = parameters.pop("connection_class")
        connection = make(**parameters)
        connection.connect()
        if name:
            _introduce(connection, name)
        return connection

    def within(self, seconds: float) -> RedisAccess:
        """The same access, with this as the longest wait for the connection and for each answer."""
        limits = {name: min(limit, seconds) for name in _LIMITS if (limit := self.parameters.get(name))}
        return replace(self, parameters={**self.parameters, **limits})

    def lists(self, queue: str) -> tuple[str, ...]:
        """The keys of one queue, urgent messages first: kombu keeps a list per priority step."""
        name = self.prefix + queue
        return tuple(f"{name}{self.separator}{step}" if step else name for step in self.steps)

    def list_of(self, queue: str, priority: object) -> str:
        """The key a message of that priority goes to: the highest step that is not above it, as kombu rounds."""
        wanted = min(max(_whole(priority), 0), 9)
        index = max((index for index, step in enumerate(self.steps) if step <= wanted), default=0)
        return self.lists(queue)[index]


def _introduce(connection: Any, name: str) -> None:
    """Set the name that CLIENT LIST shows; without the permission there is none."""
    from redis.exceptions import ResponseError

    with suppress(ResponseError):
        connection.send_command("CLIENT", "SETNAME", "".join(name.split()))
        connection.read_response()


def _whole(priority: object) -> int:
    try:
        return int(priority)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        return 0


def redis_access(url: str, options: Mapping[str, Any] | None = None) -> RedisAccess:
    """Read a Redis URL as kombu does, so that both reach the same keys. Raises Unreachable for a URL that cannot be."""
    try:
        channel = _unconnected_channel(url, dict(options or {}))
        parameters = channel._connparams()
    except Exception as error:
        raise unreachable(url, error) from error
    for name in ("max_connections", "retry_on_timeout", "client_name"):
        parameters.pop(name, None)
    parameters.update(health_check_interval=0, protocol=2)
    if _takes(parameters["connection_class"], "driver_info"):
        # redis-py reads its own version from the disk for each connection, and tells it to the server.
        parameters["driver_info"] = None
    parameters["socket_timeout"] = parameters.get("socket_timeout") or ANSWER_SECONDS
    if "path" not in parameters:
        parameters["socket_connect_timeout"] = parameters.get("socket_connect_timeout") or ANSWER_SECONDS
        parameters["socket_keepalive"] = True
        parameters.update({} if parameters.get("socket_keepalive_options") else {"socket_keepalive_options": {}})
    return RedisAccess(parameters, channel.global_keyprefix, channel.sep, tuple(channel.priority_steps))


@cache
def _takes(connection_class: type, parameter: str) -> bool:
    """Whether one of its constructors has this parameter."""
    constructors = [vars(one)["__init__"] for one in connection_class.__mro__ if "__init__" in vars(one)]
    return any(parameter in signature(one).parameters for one in constructors)


def _unconnected_channel(url: str, options: dict[str, Any]) -> Any:
    """kombu's Redis channel without a connection: only its reading of URL and options is needed."""
    import kombu

    transport = kombu.Connection(url, transport_options=options).transport
    channel = transport.Channel.__new__(transport.Channel)
    channel.connection = transport
    for name in transport.Channel.from_transport_options:
        if name in options:
            setattr(channel, name, options[name])
    return channel


def kombu_connection(
    url: str,
    *,
    options: Mapping[str, Any] | None = None,
    heartbeat_seconds: float | None = None,
    answer_seconds: float = ANSWER_SECONDS,
) -> kombu.Connection:
    """A kombu connection, not yet connected; publisher confirms are on where the transport knows them.

    answer_seconds: how long to wait for the connection, and for the lock of a database in a file.
    """
    import kombu

    settings = {**_options_in(url, answer_seconds), **(options or {})}
    if scheme(url).startswith(_SQL_SCHEMES):
        settings = {name: value for name, value in settings.items() if name not in _NOT_FOR_ENGINES}
    if is_rabbitmq(url):
        settings.setdefault("confirm_publish", True)
    try:
        connection = kombu.Connection(url, transport_options=settings, connect_timeout=answer_seconds)
    except Exception as error:
        raise unreachable(url, error) from error
    if heartbeat_seconds is not None:
        connection.heartbeat = float(connection.heartbeat or heartbeat_seconds)  # of a URL's query it is text
    return connection


def _options_in(url: str, answer_seconds: float) -> dict[str, Any]:
    """Options that kombu needs and that people write in the URL, or leave out.

    ``filesystem:///srv/queue``: one folder for both directions, made where it is missing.
    """
    if scheme(url) == "filesystem" and (path := url.partition("://")[2].partition("?")[0]):
        control = os.path.join(path, "control")
        os.makedirs(control, mode=0o700, exist_ok=True)
        return {"data_folder_in": path, "data_folder_out": path, "control_folder": control}
    if scheme(url) in ("sqla+sqlite", "sqlalchemy+sqlite"):
        return {"connect_args": {"timeout": answer_seconds}}  # for the lock that another worker holds
    return {}


def broker_errors(connection: kombu.Connection) -> tuple[type[BaseException], ...]:
    """Errors that mean that this connection cannot be used any more."""
    from kombu.exceptions import OperationalError

    return (*connection.connection_errors, *connection.channel_errors, OperationalError, OSError)


def connect_now(connection: kombu.Connection, *, within_seconds: float | None = None) -> None:
    """Connect, without kombu's pauses between tries: callers have a back-off of their own.

    within_seconds: after that long, a try that failed is not repeated.
    """
    connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=within_seconds)


def unreachable(url: str, error: BaseException) -> Unreachable:
    """The same failure as Unreachable, with the password masked."""
    text = without_url(str(error), url) or type(error).__name__
    return Unreachable(f"the broker {masked(url)} does not answer: {text}", hint=_hint(url, text))


def _hint(url: str, text: str) -> str:
    lowered = text.lower()
    if any(word in lowered for word in ("auth", "access_refused", "noperm", "password", "login")):
        return "the server refuses this user or password: check the broker URL, or the secret it comes from"
    if "socket" in scheme(url):
        return "is the server running, and may this user open its socket? `fleet doctor` looks at both"
    if "no such transport" in lowered or "unsupported" in lowered:
        return "write the URL like redis://host:6379/0 or amqp://user:password@host:5672/vhost"
    return "is the server running, and is the address right? `fleet doctor` tries it"
