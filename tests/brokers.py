"""Brokers as the channel tests see them: an address, options, and queues of one test's own."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from fleet.broker.channels import open_channel
from fleet.broker.delivery import Delivery
from fleet.broker.publisher import Outgoing, Publisher, depths
from fleet.core.spec import QueueSpec
from tests.conftest import eventually


@dataclass
class Broker:
    """One broker, and a queue name that nobody else uses."""

    kind: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)
    queue: str = field(default_factory=lambda: f"q-{uuid4().hex[:8]}")

    @property
    def keeps_order(self) -> bool:
        """Whether a message that is given back returns to the head of its queue."""
        return self.kind in ("redis", "rabbitmq")

    def channel(self, *queues: QueueSpec, replica: str = "g.0", slots: int = 10, fleet: str = "") -> Any:
        """An open channel."""
        channel = open_channel(
            self.url,
            queues=queues or (QueueSpec(self.queue),),
            replica=replica,
            fleet=fleet or self.queue,
            prefetch_hint=slots,
            options=self.options,
        )
        channel.open()
        return channel

    def send(self, *values: Any, queue: str = "", priority: int | None = None) -> None:
        """Send plain values, in order."""
        properties = {} if priority is None else {"priority": priority}
        with Publisher(self.url, options=self.options) as publisher:
            name = queue or self.queue
            publisher.send_many(Outgoing(name, json.dumps(value), properties=properties) for value in values)

    def depth(self, queue: str = "") -> int | None:
        """How many messages wait."""
        return depths(self.url, [queue or self.queue], options=self.options)[queue or self.queue]


def values(deliveries: Sequence[Delivery]) -> list[Any]:
    """What :meth:`Broker.send` sent."""
    return [json.loads(delivery.body) for delivery in deliveries]


def gather(channel: Any, count: int) -> list[Delivery]:
    """Fetch until ``count`` messages are here; RabbitMQ pushes them when it likes."""
    found: list[Delivery] = []

    def enough() -> bool:
        found.extend(channel.fetch(count - len(found)))
        channel.tend()
        return len(found) >= count

    eventually(enough, every=0.005)
    return found


def filesystem(folder: Path) -> dict[str, Any]:
    """Transport options of kombu's filesystem transport."""
    for name in ("queue", "control"):
        (folder / name).mkdir(exist_ok=True)
    queue = str(folder / "queue")
    return {"data_folder_in": queue, "data_folder_out": queue, "control_folder": str(folder / "control")}


def stays_empty(channel: Any, *, looks: int = 5) -> bool:
    """Whether some more fetches bring nothing."""
    for _ in range(looks):
        if channel.fetch(5):
            return False
        time.sleep(0.02)
    return True
