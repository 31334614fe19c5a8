"""Celery's events, for monitors such as Flower. Task events are off until they are enabled.

Listeners only note what happened; the thread that owns the control connection writes it out, in lists, a few times a
second. When that connection is away, events are dropped and counted, so that tasks never wait for a monitor.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fleet import __version__
from fleet.broker.channels.base import REST_SECONDS
from fleet.worker.task.call import Call, Outcome
from fleet.worker.task.listeners import TaskEvent

if TYPE_CHECKING:
    from fleet.worker.task.job import Job
    from fleet.worker.task.listeners import TaskListener
    from pools.base import BasePool

log = logging.getLogger("fleet.worker")

HEARTBEAT_SECONDS = 10.0
"""Between two heartbeats. Monitors call a worker offline after twice that; Celery's own beats every 2 s."""
UNHEARD_SECONDS = 60.0
"""The same at most where nobody has heard the last one: it goes out with a look of the loop. Monitors ask for
heartbeats when they start, and hear one at once."""
FLUSH_SECONDS = 0.25
MOST_NOTED = 20_000
LONGEST_LIST = 500
_MOST_TEXT = 10_000

Event = dict[str, Any]


class Clock(Protocol):
    """Lamport's clock, shared with what the app itself sends."""

    def forward(self) -> int:
        """One step on."""
        ...


class Reported(Protocol):
    """What makes the calls: ``report`` asks it to include what tasks return."""

    report: bool


class Publish(Protocol):
    """Sends one event, or a list of them."""

    def __call__(self, body: Event | list[Event], routing_key: str) -> object: ...


class _Noted(NamedTuple):
    """What happened, with all that may have changed when it is written out. eta, expires: Unix time, 0.0 for none."""

    event: TaskEvent
    at: float
    call: Call
    eta: float
    expires: float
    ending: str
    outcome: Outcome | None
    limit_seconds: float | None
    signum: int | None


class Events:
    """The events of one worker. Call ``on_event`` from any thread; everything else from the control connection's.

    on_first_noted: called, in the thread of ``on_event``, when there is something to flush.  beat_at: when the next
    heartbeat is due (monotonic).
    """

    def __init__(
        self,
        node: str,
        clock: Clock,
        *,
        admission: Reported,
        listeners: list[TaskListener],
        pool: BasePool,
        totals: Counter[str],
        on_heartbeat: Callable[[], bool],
    ) -> None:
        """listeners: those of the worker, to join and to leave.  totals: starts so far, by task.

        on_heartbeat: tells the app of a heartbeat; whether anything there wants to know.
        """
        self._on_heartbeat = on_heartbeat
        self._admission = admission
        self._listeners = listeners
        self._pool = pool
        self._totals = totals
        self._node = node
        self._clock = clock
        self._pid = os.getpid()
        self._noted: deque[_Noted] = deque()
        self._dropped = 0
        self._online = False
        self._number = 0
        self._unheard_until = 0.0
        self._is_awaited = False
        self.beat_at = 0.0
        self.on = False
        self.on_first_noted: Callable[[], object] = _nothing

    @property
    def noted(self) -> int:
        """How many task events the next flush will send."""
        return len(self._noted)

    # -- switching: the caller holds the channel's lock

    def switch(self, *, on: bool) -> bool:
        """Task events from now on, or none; whether that is a change."""
        if on == self.on:
            return False
        self.on = self._admission.report = on
        if on:
            self._listeners.append(self)
        else:
            self._listeners.remove(self)
        return True

    # -- the listener

    def on_event(self, event: TaskEvent, job: Job, outcome: Outcome | None = None) -> None:
        """Note an event for the next flush."""
        if len(self._noted) >= MOST_NOTED:
            self._dropped += 1
            return
        ending, limit = str(job.ending or ""), job.limit_seconds
        noted = _Noted(event, time.time(), job.call, job.due, job.expires_at, ending, outcome, limit, job.signum)
        is_first = not self._noted
        self._noted.append(noted)
        if is_first:
            self.on_first_noted()

    # -- the sender

    @property
    def is_hurried(self) -> bool:
        """Whether something is to go out with the next flush, and not only in time."""
        return bool(self._noted) or self.beat_at == 0.0

    def beat_soon(self) -> None:
        """Send a heartbeat with the next flush. Who heard earlier ones does not matter any more."""
        self._number += 1
        self.beat_at = self._unheard_until = 0.0

    def flush(self, publish: Publish) -> None:
        """Write out what was noted, and the worker's own heartbeat when it is due. Raises what ``publish`` raises."""
        if time.monotonic() >= self.beat_at:
            self.beat(publish)
        while self._noted:
            batch = list(islice(self._noted, LONGEST_LIST))
            publish([self._task_event(noted) for noted in batch], "task.multi")
            for _ in batch:
                self._noted.popleft()
        if self._dropped:
            log.warning("%d task events were dropped: the broker did not take them in time", self._dropped)
            self._dropped = 0

    def beat(self, publish: Publish) -> None:
        """The heartbeat is due: send it, unless nobody heard the last one. The first says that the worker is online."""
        now = time.monotonic()
        self.beat_at = now + HEARTBEAT_SECONDS
        if not self._online or now >= self._unheard_until:
            self._number += 1
            kind = "worker-heartbeat" if self._online else "worker-online"
            publish(self._worker_event(kind), kind.replace("-", "."))
        if self._online:
            self._is_awaited = self._on_heartbeat()
        self._online = True

    def hearing(self) -> Callable[[int | None], None]:
        """What to tell, for each topic, how many heard the heartbeat that is being sent; None: that is not known."""
        number, at = self._number, time.monotonic()
        is_heard = False

        def hear(listeners: int | None) -> None:
            nonlocal is_heard
            is_heard |= listeners != 0
            if number != self._number:  # another was sent meanwhile, or is to be sent because somebody asks for it
                return
            self._unheard_until = 0.0 if is_heard else at + UNHEARD_SECONDS - REST_SECONDS
            if not (is_heard or self._is_awaited):
                self.beat_at = at + UNHEARD_SECONDS

        return hear

    def connection_lost(self) -> None:
        """Note that the connection is lost; the next one sends ``worker-online`` again."""
        self._online = False
        self.beat_at = self._unheard_until = 0.0

    def say_goodbye(self, publish: Publish) -> None:
        """Send the last events, and ``worker-offline``."""
        self.flush(publish)
        publish(self._worker_event("worker-offline"), "worker.offline")

    # -- the words

    def _event(self, kind: str, at: float) -> Event:
        return {
            "type": kind,
            "hostname": self._node,
            "pid": self._pid,
            "clock": self._clock.forward(),
            "timestamp": at,
            "utcoffset": _utc_offset_hours(),
        }

    def _worker_event(self, kind: str) -> Event:
        return self._event(kind, time.time()) | {
            "freq": HEARTBEAT_SECONDS,
            "active": self._pool.busy_slots,
            "processed": self._totals.total(),
            "loadavg": [round(load, 2) for load in os.getloadavg()],
            "sw_ident": "fleet",
            "sw_ver": __version__,
            "sw_sys": platform.system(),
        }

    def _task_event(self, noted: _Noted) -> Event:
        kind = "failed" if noted.event is TaskEvent.UNKNOWN else noted.event.value
        event = self._event(f"task-{kind}", noted.at)
        event["uuid"] = noted.call.id
        fields = _FIELDS.get(noted.event)
        if fields is not None:
            event |= fields(noted)
        return event


def _nothing() -> None:
    pass


def _received(noted: _Noted) -> Event:
    headers = noted.call.headers
    retries = headers.get("retries")
    return {
        "name": noted.call.name,
        "args": str(headers.get("argsrepr") or "")[:_MOST_TEXT],
        "kwargs": str(headers.get("kwargsrepr") or "")[:_MOST_TEXT],
        "root_id": headers.get("root_id"),
        "parent_id": headers.get("parent_id"),
        "retries": retries if isinstance(retries, int) else 0,
        "eta": _iso(noted.eta),
        "expires": _iso(noted.expires),
    }


def _succeeded(noted: _Noted) -> Event:
    outcome = noted.outcome
    return {
        "result": outcome.result[:_MOST_TEXT] if outcome else "",
        "runtime": outcome.runtime_seconds if outcome else 0.0,
    }


def _failed(noted: _Noted) -> Event:
    outcome = noted.outcome
    return {
        "exception": _exception(noted)[:_MOST_TEXT],
        "traceback": outcome.traceback[-_MOST_TEXT:] if outcome else "",
    }


def _exception(noted: _Noted) -> str:
    """As Celery writes it: monitors group by it."""
    error = noted.outcome.error if noted.outcome else ""
    if noted.event is TaskEvent.UNKNOWN:
        return f"NotRegistered({noted.call.name!r})"
    if noted.ending == "timeout" and noted.limit_seconds is not None:
        return f"TimeLimitExceeded({noted.limit_seconds:g})"
    if noted.ending in ("lost", "raised"):
        return f"WorkerLostError({error!r})"
    return error


def _rejected(noted: _Noted) -> Event:
    return {"requeue": noted.outcome is not None and noted.outcome.state == "requeue"}


def _revoked(noted: _Noted) -> Event:
    return {"terminated": noted.ending == "terminated", "signum": noted.signum, "expired": noted.ending == "expired"}


_FIELDS: dict[TaskEvent, Callable[[_Noted], Event]] = {
    TaskEvent.RECEIVED: _received,
    TaskEvent.SUCCEEDED: _succeeded,
    TaskEvent.FAILED: _failed,
    TaskEvent.UNKNOWN: _failed,
    TaskEvent.RETRIED: _failed,
    TaskEvent.REJECTED: _rejected,
    TaskEvent.REVOKED: _revoked,
}


def _utc_offset_hours() -> float:
    """As Celery counts it: hours west of Greenwich, daylight saving included."""
    return (time.altzone if time.localtime().tm_isdst > 0 else time.timezone) / 3600


def _iso(at: float) -> str | None:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat() if at else None
