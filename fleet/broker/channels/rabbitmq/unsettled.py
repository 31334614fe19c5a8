"""What RabbitMQ has pushed and what was neither acknowledged nor given back yet."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fleet.broker.channels.rabbitmq.frames import send_acks
from fleet.broker.channels.rabbitmq.window import Subscription


class Unsettled:
    """Delivery tag -> its subscription, oldest first. ``done``: may be acknowledged with the next ``settle``."""

    def __init__(self) -> None:
        self.done: set[int] = set()
        self._sources: dict[int, Subscription] = {}

    def add(self, tag: int, source: Subscription) -> None:
        source.unsettled += 1
        self._sources[tag] = source

    def queue_of(self, tag: int) -> str:
        """The queue that a message came from."""
        return self._sources[tag].queue

    def settle(self, amqp: Any, channel_id: int) -> None:
        """Send the acknowledgements: one for all of the oldest that are done, one for each other."""
        done = self.done
        if not done:
            return
        last = 0
        for tag in self._sources:
            if tag not in done:
                break
            last = tag
        single = sorted(tag for tag in done if tag > last)
        for tag in done:
            self._sources.pop(tag).unsettled -= 1
        self.done = set()
        send_acks(amqp, channel_id, up_to=last, single=single)

    def reject(self, channel: Any, tags: Collection[int], *, requeue: bool = True) -> None:
        """Put these back into their queues, the first to be the next that is taken; else they are dead letters."""
        for tag in sorted(tags, reverse=True):
            self._sources.pop(tag).unsettled -= 1
            channel.basic_reject(tag, requeue=requeue)

    def clear(self) -> None:
        """Forget all: the connection is lost, and the broker delivers them again."""
        self.done.clear()
        self._sources.clear()
