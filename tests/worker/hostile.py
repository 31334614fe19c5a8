"""Random messages such as no producer in its right mind would send: a good one, with some of it made absurd."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import kombu
import redis

ABSURD: Sequence[Any] = (
    None,
    True,
    False,
    0,
    -1,
    2**31,
    2**63 - 1,
    -(2**63),
    10**400,
    1e20,
    1e308,
    -1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    " ",
    "x" * 100_000,
    "\0",
    "\ud800",
    "\U0010ffff\u202e",
    "1970-01-01",
    "0001-01-01T00:00:00",
    "0001-01-01T00:00:00+14:00",
    "not a date",
    [],
    {},
    [None],
    [[1e308, 1e308]],
    [10**400, -1],
    {"a": {"b": [1, {"c": None}]}},
    {"\ud800": 1},
)
LIMITS: Sequence[Any] = (*ABSURD, [1e308, None], [None, 1e12], [1e20, None], [10**400, 10**400], ["3", "4"], [-1, 0])
HEADERS = (
    *("lang", "task", "id", "root_id", "parent_id", "group", "group_index", "meth", "shadow", "eta", "expires"),
    *("retries", "timelimit", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting"),
    *("stamped_headers", "stamps", "compression", "redelivered", "x-fleet-attempts", "x-fleet-sent-at", "x-death"),
    *("chain", "callbacks", "errbacks", "chord", "delivery_info", "properties", "args", "hostname", "is_eager"),
)
PROPERTIES = ("correlation_id", "reply_to", "priority", "delivery_mode", "delivery_info", "delivery_tag", "expiration")


class Hostile:
    """Makes messages for one task and one queue, always the same for the same seed."""

    def __init__(self, task: str, queue: str, *, seed: int) -> None:
        self._task = task
        self._queue = queue
        self._random = random.Random(seed)

    def envelopes(self, count: int) -> Iterator[bytes]:
        """As they lie in a list of Redis."""
        for _ in range(count):
            yield self._envelope()

    def send_to_redis(self, url: str, count: int) -> None:
        """Push them as they are."""
        with redis.Redis.from_url(url) as client:
            for raw in self.envelopes(count):
                client.lpush(self._queue, raw)

    def send_to_rabbitmq(self, url: str, count: int) -> None:
        """Publish them, as far as py-amqp can write them down."""
        with kombu.Connection(url) as connection:
            kombu.Queue(self._queue, kombu.Exchange(self._queue), routing_key=self._queue)(
                connection.channel()
            ).declare()
            channel = connection.channel()
            for _ in range(count):
                while not self._publish(channel):
                    pass
            channel.close()

    def _publish(self, channel: Any) -> bool:
        document = self._document()
        body = self._body(document)
        headers = document["headers"] if isinstance(document["headers"], dict) else {}
        kind = "application/json"
        if self._random.random() < 0.2:
            kind = self._random.choice(("", "application/x-python-serialize", "\udcff"))
        properties = {"correlation_id": "c", "reply_to": "r"}
        try:
            message = channel.prepare_message(body, content_type=kind, headers=headers, properties=properties)
            if len(message._serialize_properties()) > 100_000 or not _is_finite(headers):
                return False  # over which the broker closes the connection
        except Exception:
            return False  # this client cannot say it
        channel.basic_publish(message, exchange="", routing_key=self._queue)
        return True

    def _envelope(self) -> bytes:
        document = self._document()
        kind = self._random.random()
        if kind < 0.05:
            return self._random.randbytes(self._random.randrange(300))
        body = self._body(document)
        document["body"] = base64.b64encode(body).decode()
        if kind < 0.15:
            document[self._random.choice(list(document))] = self._random.choice(ABSURD)
        if kind > 0.97:
            document["headers"] = _deep(self._random.choice((900, 5000)))
        try:
            raw = json.dumps(document).encode()
        except (RecursionError, ValueError):
            return b"{}"
        return raw[: self._random.randrange(len(raw))] if kind < 0.08 else raw

    def _document(self) -> dict[str, Any]:
        task_id = str(uuid.UUID(int=self._random.getrandbits(128)))
        headers = {"lang": "py", "task": self._task, "id": task_id, "retries": 0, "timelimit": [None, None]}
        headers |= {"eta": None, "expires": None, "root_id": task_id, "parent_id": None, "origin": "gen1@here"}
        properties: dict[str, Any] = {"correlation_id": task_id, "reply_to": "", "delivery_mode": 2, "priority": 0}
        properties |= {"delivery_info": {"exchange": "", "routing_key": self._queue}, "body_encoding": "base64"}
        properties["delivery_tag"] = task_id
        for _ in range(self._random.randrange(4)):
            name = self._random.choice(HEADERS)
            headers[name] = self._random.choice(LIMITS if name == "timelimit" else ABSURD)
        if self._random.random() < 0.2:
            headers["timelimit"] = self._random.choice(LIMITS)
        if self._random.random() < 0.1:
            headers.pop(self._random.choice(list(headers)))
        if self._random.random() < 0.2:
            properties[self._random.choice(PROPERTIES)] = self._random.choice(ABSURD)
        document = {"headers": headers, "properties": properties, "body": ""}
        return {**document, "content-type": "application/json", "content-encoding": "utf-8"}

    def _body(self, document: dict[str, Any]) -> bytes:
        kind = self._random.random()
        if kind < 0.1:
            return self._random.randbytes(self._random.randrange(300))
        if kind < 0.2:
            return b"[" * self._random.choice((10, 900, 100_000))
        if kind < 0.4:
            headers, document["headers"] = document["headers"], {}
            first = {"utc": self._random.choice((True, False, None)), "args": [], "kwargs": {}}
            return json.dumps({**headers, **first}).encode()
        body: list[Any] = [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
        if kind < 0.7:
            body[self._random.randrange(3)] = self._random.choice(ABSURD)
        if kind < 0.5:
            body[2] = {self._random.choice(("callbacks", "errbacks", "chain", "chord")): self._random.choice(ABSURD)}
        return json.dumps(body).encode()


def _is_finite(headers: dict[str, Any]) -> bool:
    return not any(word in repr(headers) for word in ("inf", "nan"))


def _deep(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(levels):
        found = {"a": found}
    return found
