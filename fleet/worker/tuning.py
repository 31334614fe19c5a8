"""What may change while the worker runs: slots, queues, limits, log level. For the loop, control and new manifests."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fleet.core.desired import QueueSpec
from fleet.core.desired import TaskPolicy as Wishes

if TYPE_CHECKING:
    from fleet.worker.consumer import Consumer

log = logging.getLogger("fleet.worker")


class Tuning:
    """Changes one running worker. Every call is idempotent; the caller holds the channel's lock."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.queues: tuple[QueueSpec, ...] = consumer.options.spec.queues

    def set_slots(self, count: int) -> None:
        """So many slots. PoolError where the pool cannot change them."""
        pool = self._consumer.pool
        if count > pool.limit:
            pool.grow(count - pool.limit)
        elif count < pool.limit:
            pool.shrink(pool.limit - count)
        else:
            return
        self._consumer.on_resized()
        log.info("%d slots", count)

    def set_queues(self, queues: Sequence[QueueSpec]) -> None:
        """Consume these queues and no others. What was fetched from others and has not started goes back."""
        wanted = tuple(queues)
        if wanted == self.queues:
            return
        self.queues = wanted
        self._consumer.on_requeued({queue.name for queue in wanted})
        log.info("consuming %s", ", ".join(queue.name for queue in wanted) or "no queue")

    def set_wishes(self, wishes: Wishes) -> None:
        """The manifest's delivery and limits, for tasks that start from now on."""
        self._consumer.intake.wish(wishes)

    def set_time_limits(self, task_name: str, *, soft_seconds: float | None, hard_seconds: float | None) -> None:
        """Limits of one task, over what the app and the manifest say; a message's own still win."""
        self._consumer.intake.limit(task_name, soft_seconds, hard_seconds)

    def set_log_level(self, level: str) -> None:
        """From DEBUG to CRITICAL."""
        logging.getLogger().setLevel(level)
