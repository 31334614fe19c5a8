"""What becomes of a message that has just come: it waits for a slot or for its date, or it ends without running."""

from __future__ import annotations

import logging
import time
from collections.abc import Container, Sequence

from fleet.broker.channels.base import Channel, ChannelLost
from fleet.broker.delivery import Delivery
from fleet.broker.message_body import BadMessage
from fleet.worker.apps.base import Application
from fleet.worker.loop.admission import Admission
from fleet.worker.loop.completion import Completion
from fleet.worker.loop.connection import Connection
from fleet.worker.loop.inflight import MOST_DELAYED, InFlight
from fleet.worker.loop.settlement import Settlement
from fleet.worker.task.call import Outcome
from fleet.worker.task.job import Job, unreadable_job
from fleet.worker.task.listeners import TaskEvent, TaskListener, tell

log = logging.getLogger("fleet.worker")


class Receiving:
    """Takes deliveries in; what may run is put in ``inflight.waiting``."""

    def __init__(
        self,
        application: Application,
        admission: Admission,
        *,
        channel: Channel,
        connection: Connection,
        inflight: InFlight,
        settlement: Settlement,
        completion: Completion,
        revoked: Container[str],
        listeners: Sequence[TaskListener],
    ) -> None:
        self._application = application
        self._admission = admission
        self._channel = channel
        self._connection = connection
        self._inflight = inflight
        self._settlement = settlement
        self._completion = completion
        self._revoked = revoked
        self._listeners = listeners

    def receive(self, deliveries: Sequence[Delivery]) -> bool:
        """Take messages in. False when the connection broke: those that were not taken in are given back."""
        for place, delivery in enumerate(deliveries):
            try:
                self._take(delivery)
            except ChannelLost as error:
                self._settlement.lost = error
                # Sent as soon as there is a connection.
                self._settlement.give_back([unreadable_job(left) for left in deliveries[place:]])
                self._connection.lose(error)
                return False
        return True

    def place_due(self) -> None:
        """Place again those whose date or turn has come."""
        while (job := self._inflight.pop_due()) is not None:
            if job.settled:
                self._settlement.give_back([job])
            else:
                self._place_or_bury(job)

    def _take(self, delivery: Delivery) -> None:
        try:
            job = self._admission.job_of(delivery)
        except BadMessage as error:
            self._bury(delivery, str(error))
            return
        except Exception as error:
            log.exception("a message in queue %s cannot be taken in", delivery.queue)
            self._bury(delivery, f"{type(error).__name__}: {error}")
            return
        job.connection_number = self._completion.connection_number
        if delivery.redelivered and (self._is_running(job) or self._completion.told_before(job)):
            return
        if log.isEnabledFor(logging.DEBUG):
            log.debug("Task %s[%s] received", job.call.name, job.call.id)
        self._place_or_bury(job)
        if self._listeners and job.ending is None and self._application.knows(job.call.name):
            tell(self._listeners, TaskEvent.RECEIVED, job)

    def _bury(self, delivery: Delivery, error: str) -> None:
        log.error("a message in queue %s is no task: %s", delivery.queue, error)
        job = unreadable_job(delivery)
        job.connection_number = self._completion.connection_number
        self._completion.conclude(job, Outcome("dead", error=f"no task message: {error}"))

    def _is_running(self, job: Job) -> bool:
        """Whether a broken connection brought the message of a running task again; it then belongs to that task."""
        known = self._inflight.same_run(job)
        if known is None or (not known.acked and self._channel.holds(known.delivery)):
            return False  # another message of the same task: the broker still waits for our word about the running one
        known.delivery, known.connection_number = job.delivery, job.connection_number
        if known.acked:
            known.acked = False
            self._settlement.ack(known)
        return True

    def _place_or_bury(self, job: Job) -> None:
        try:
            self._place(job)
        except ChannelLost:
            raise
        except Exception as error:
            log.exception("Task %s[%s] cannot be taken in", job.call.name, job.call.id)
            self._completion.end_unstartable(job, error)

    def _place(self, job: Job) -> None:
        """Put a job where it belongs: to run, to wait, or to end."""
        verdict = self._admission.examine(job, now=time.time(), revoked=self._revoked)
        if verdict.way == "run":
            self._inflight.waiting.append(job)
        elif verdict.way == "later":
            self._put_off(job)
        else:
            job.ending, job.detail = verdict.ending, verdict.detail
            log.warning("Task %s[%s] does not run: %s", job.call.name, job.call.id, verdict.detail)
            self._completion.end_unreported(job)

    def _put_off(self, job: Job) -> None:
        if self._channel.delay(job.delivery, due=job.due):
            return
        self._inflight.delay(job, until=job.due)
        if self._inflight.delayed_count == MOST_DELAYED:
            log.warning("%d tasks wait for their date in this worker: it fetches no more for now", MOST_DELAYED)
