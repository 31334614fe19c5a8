"""One worker's place on the broker for commands, replies and events: kombu's pidbox, on one connection.

The only module behind remote control that knows kombu. Nothing in it retries by itself: waiting for a broker here
would block the loop.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kombu import Exchange, Producer, pidbox
from kombu.exceptions import InconsistencyError

from fleet.broker.connection import is_redis, kombu_connection, scheme
from fleet.broker.envelope import sealed

if TYPE_CHECKING:
    from fleet.worker.apps.base import Remote

HEARTBEAT_SECONDS = 60.0
LONGEST_SEND_SECONDS = 5.0
MOST_ANSWERS = 1000
_FANOUT_FOR_EVENTS = frozenset({"redis", "gcpubsub"})
_SHOWN = (
    "hostname",
    "userid",
    "virtual_host",
    "port",
    "insist",
    "transport",
    "connect_timeout",
    "login_method",
    "uri_prefix",
    "heartbeat",
    "failover_strategy",
)

Dispatch = Callable[[str, Mapping[str, Any]], Any]


class NoFanout(Exception):
    """This transport cannot send one message to all workers."""


class Mailbox:
    """An open connection with a listening node. After any error of a method it cannot be used any more."""

    def __init__(self, url: str, node: str, remote: Remote, *, options: Mapping[str, Any], dispatch: Dispatch) -> None:
        connection = kombu_connection(url, options=_patience(url, options), heartbeat_seconds=HEARTBEAT_SECONDS)
        if not connection.transport.implements.exchange_type >= {"fanout"}:
            raise NoFanout
        self._connection = connection
        self._name = node
        self._event_exchange = remote.event_exchange
        self._topics: dict[str, list[str]] = {}
        try:
            connection.connect()
            box = pidbox.Mailbox(
                remote.namespace,
                type="fanout",
                connection=connection,
                clock=remote.clock,
                accept=["json"],
                serializer="json",
                **remote.queue_options,
            )
            self._box = box
            self._node = _Node(node, channel=connection.channel(), handlers=_Handlers(dispatch), mailbox=box)
            _keep_client(self._node.channel)
            self._node.listen(callback=self._on_message)
            self._publish = _event_publisher(connection, self._node.channel, remote, node)
        except BaseException:
            self.close()
            raise

    @property
    def facts(self) -> dict[str, Any]:
        """How the broker is reached, without its password."""
        info = self._connection.info()
        return {name: info[name] for name in _SHOWN if name in info} | {"ssl": bool(info.get("ssl"))}

    def fds(self) -> list[int]:
        """Sockets on which a command may come, if the transport has sockets."""
        with suppress(Exception):
            return _sockets(self._connection)
        return []

    def drain(self) -> None:
        """Read the commands that have come; each is dispatched and answered."""
        with suppress(TimeoutError, socket.timeout):
            while True:
                self._connection.drain_events(timeout=0)

    def ask_all(self, method: str, arguments: Mapping[str, Any], *, quiet_seconds: float, until: float) -> list[Any]:
        """Ask every worker on this broker; one ``{node: reply}`` from each.

        It ends when all who were asked have answered, where the broker says how many these are; when no answer has
        come for so long; or at ``until`` (monotonic). Commands are answered meanwhile.
        """
        found: list[Any] = []
        asked: list[int] = []

        def on_reply(reply: Any) -> None:
            found.append(reply)
            if time.monotonic() >= until or (asked and len(found) >= sum(asked)):
                raise _LateEnough

        with self._connection.channel() as channel:
            _keep_client(channel, on_published=asked.append)
            with suppress(_LateEnough):
                self._box.multi_call(
                    method,
                    dict(arguments),
                    timeout=quiet_seconds,
                    limit=MOST_ANSWERS,
                    callback=on_reply,
                    channel=channel,
                )
            if getattr(channel, "_in_poll", None):
                channel._in_poll = None  # kombu's channel on Redis ends its BRPOP first, which takes up to a second
        return found

    @property
    def beats(self) -> bool:
        """Whether the broker wants to hear from this connection."""
        return bool(self._connection.supports_heartbeats)

    def beat(self) -> None:
        """Keep the connection. Call it at least every quarter of ``HEARTBEAT_SECONDS``."""
        if self.beats:
            self._connection.heartbeat_check(rate=2)

    def publish(self, body: Any, routing_key: str) -> None:
        """Send an event, or a list of them."""
        self._publish(body, routing_key)

    def sealed_event(self, body: Any, routing_key: str) -> tuple[list[str], bytes]:
        """An event as Redis gets it, and the topics to which it goes."""
        exchange, channel = self._event_exchange, self._node.channel
        if routing_key not in self._topics:
            found = getattr(channel, "_get_publish_topics", None)  # since kombu 5.7; before, there is one
            names = found(exchange, routing_key) if found else [channel._get_publish_topic(exchange, routing_key)]
            self._topics[routing_key] = [f"{channel.global_keyprefix}{name}" for name in names]
        payload = sealed(
            routing_key,
            json.dumps(body),
            headers={"hostname": self._name},
            properties={"delivery_mode": 1},
            content_type="application/json",
            content_encoding="utf-8",
            exchange=exchange,
        )
        return self._topics[routing_key], payload

    def rest(self) -> None:
        """On Redis, close what is only for sending: it is opened again when something is to be sent."""
        if self._connection.transport.driver_type == "redis" and self._node.channel._pool is not None:
            self._node.channel._pool.disconnect(inuse_connections=False)

    def close(self) -> None:
        """Close the connection. Never raises."""
        with suppress(Exception):
            self._connection.release()

    def _on_message(self, body: Any, message: Any) -> None:
        if isinstance(body, dict) and isinstance(body.get("method"), str):
            self._node.handle_message(body, message)


class _LateEnough(Exception):
    """Answers still come, and nobody waits for more."""


class _Node(pidbox.Node):  # type: ignore[misc]
    """Replies at once or not at all."""

    def reply(self, data: Any, exchange: str, routing_key: str, ticket: str, **_: Any) -> None:
        to = Exchange(exchange, type="direct", delivery_mode="transient", durable=False)
        headers = {"ticket": ticket, "clock": self.mailbox.clock.forward()}
        with suppress(InconsistencyError):  # the sender is gone
            Producer(self.channel, auto_declare=False).publish(
                data, exchange=to, routing_key=routing_key, declare=[to], headers=headers, serializer="json"
            )


class _Handlers(dict[str, Callable[..., Any]]):
    """Accepts every method name: an unknown one gets an answer too."""

    def __init__(self, dispatch: Dispatch) -> None:
        super().__init__()
        self._dispatch = dispatch

    def __missing__(self, method: str) -> Callable[..., Any]:
        return lambda _state, **arguments: self._dispatch(method, arguments)


def _event_publisher(connection: Any, channel: Any, remote: Remote, node: str) -> Callable[[Any, str], None]:
    fanout = connection.transport.driver_type in _FANOUT_FOR_EVENTS
    exchange = Exchange(remote.event_exchange, type="fanout" if fanout else "topic")
    producer = Producer(channel, exchange=exchange, serializer="json", auto_declare=False)
    exchange(producer.channel).declare()

    def publish(body: Any, routing_key: str) -> None:
        producer.publish(body, routing_key=routing_key, headers={"hostname": node}, delivery_mode=1)

    return publish


def _keep_client(channel: Any, on_published: Callable[[int], object] | None = None) -> None:
    """On Redis kombu makes a new client for each command, which costs more than the command.

    on_published: gets how many subscribers each message to all had; called on Redis only.
    """
    make = getattr(channel, "_create_client", None)
    if make is None:
        return
    client = make()
    channel._create_client = lambda asynchronous=False: make(asynchronous) if asynchronous else client
    if on_published is not None:
        publish = client.publish
        client.publish = lambda *args, **kwargs: on_published(publish(*args, **kwargs))


def _patience(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A server that hangs must not hold up the loop for long; confirmations are for tasks."""
    found = dict(options)
    if is_redis(url):
        return found | {"socket_timeout": LONGEST_SEND_SECONDS, "socket_connect_timeout": LONGEST_SEND_SECONDS}
    if scheme(url) in ("amqp", "amqps", "pyamqp"):
        return found | {"confirm_publish": False, "write_timeout": LONGEST_SEND_SECONDS}
    return found


def _sockets(connection: Any) -> list[int]:
    transport = connection.transport
    if transport.driver_type == "amqp" and hasattr(connection.connection, "sock"):
        return [connection.connection.sock.fileno()]
    found = []
    for channel in getattr(connection.connection, "channels", ()) or ():
        link = getattr(getattr(channel, "subclient", None), "connection", None)
        if link is not None and link._sock is not None:
            found.append(link._sock.fileno())
    return found
