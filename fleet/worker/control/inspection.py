"""What ``celery inspect`` asks of a worker, answered in Celery's shapes. Nothing here changes anything."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet.broker.envelope import delivery_info_in
from fleet.broker.message_body import BadMessage
from fleet.worker.task.job import Job

if TYPE_CHECKING:
    from collections import Counter

    from fleet.worker.apps.base import Application, Remote
    from fleet.worker.loop.inflight import InFlight
    from fleet.worker.loop.live_settings import LiveSettings
    from fleet.worker.loop.revoked import Revoked
    from pools.base import BasePool

USUAL_DETAILS = ("exchange", "routing_key", "rate_limit")
_USAGE = "utime stime maxrss ixrss idrss isrss minflt majflt nswap inblock oublock msgsnd msgrcv nsignals nvcsw nivcsw"
_PRIORITY = 6
"""Priority of entries in Celery's timer; monitors show it."""


class Inspection:
    """The questions. Every answer is made of copies and atomic reads: it needs no lock in any thread."""

    def __init__(
        self,
        remote: Remote,
        node: str,
        *,
        replica: str,
        application: Application,
        pool: BasePool,
        inflight: InFlight,
        settings: LiveSettings,
        revoked: Revoked,
        totals: Counter[str],
    ) -> None:
        self._remote = remote
        self._node = node
        self._replica = replica
        self._application = application
        self._pool = pool
        self._inflight = inflight
        self._settings = settings
        self._revoked = revoked
        self._totals = totals
        self._started = time.monotonic()
        self.broker: Mapping[str, Any] = {}
        """How the broker is reached, without passwords. Known once there is a connection."""

    def ping(self, **_: Any) -> Any:
        """The answer to a ping."""
        return {"ok": "pong"}

    def clock(self, **_: Any) -> Any:
        """The logical clock."""
        return {"clock": self._remote.clock.value}

    def report(self, **_: Any) -> Any:
        """Versions and settings, for bug reports."""
        return {"ok": self._remote.report()}

    def conf(self, with_defaults: Any = False, **_: Any) -> Any:
        """The app's settings, secrets hidden."""
        return self._remote.settings(with_defaults=_is_true(with_defaults))

    # -- tasks in hand

    def active(self, safe: Any = False, **_: Any) -> Any:
        """What runs."""
        return [self._describe(job, safe=_is_true(safe)) for job in self._inflight.jobs() if _runs(job)]

    def reserved(self, **_: Any) -> Any:
        """What is here, has no date and has not started."""
        return [self._describe(job) for job in self._inflight.jobs() if _state(job) == "reserved"]

    def scheduled(self, **_: Any) -> Any:
        """What waits in this process for its date. What the broker keeps until then belongs to no worker yet."""
        return [
            {"eta": _iso(job.due), "priority": _PRIORITY, "request": self._describe(job)}
            for job in self._inflight.jobs()
            if _state(job) == "scheduled"
        ]

    def query_task(self, ids: Any = (), **_: Any) -> Any:
        """Where these tasks are, as far as they are here."""
        wanted = set(_list(ids))
        return {
            job.call.id: [_state(job), self._describe(job)] for job in self._inflight.jobs() if job.call.id in wanted
        }

    def revoked(self, **_: Any) -> Any:
        """Ids that must not run."""
        return self._revoked.ids()

    def _describe(self, job: Job, *, safe: bool = False) -> dict[str, Any]:
        told = job.describe() | {"hostname": self._node, "delivery_info": _delivery_info(job)}
        return told if safe else told | _arguments(job)

    # -- what it can and does

    def registered(self, taskinfoitems: Any = None, builtins: Any = False, **_: Any) -> Any:
        """Names of tasks and some of their attributes; Celery's own are left out."""
        items = [str(item) for item in _list(taskinfoitems)] or list(USUAL_DETAILS)
        names = self._application.task_names()
        shown = [name for name in names if _is_true(builtins) or not name.startswith("celery.")]
        return [self._with_details(name, items) for name in shown]

    def _with_details(self, name: str, items: Sequence[str]) -> str:
        details = self._remote.task_details(name, items)
        text = " ".join(f"{item}={value}" for item, value in details.items())
        return f"{name} [{text}]" if text else name

    def active_queues(self, **_: Any) -> Any:
        """What is consumed, in the shape of kombu's queues."""
        entities = self._application.queue_entities()
        return [_queue(name, entities.get(name)) for name in self._settings.queue_names()]

    def memsample(self, **_: Any) -> Any:
        """Resident memory of the worker's own process, like ``48.25MB``."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return f"{pages * os.sysconf('SC_PAGE_SIZE') / (1 << 20):.2f}MB"

    def stats(self, **_: Any) -> Any:
        """Facts about this worker."""
        pool, scaler = self._pool, self._settings.autoscaler
        found = {
            "total": dict(self._totals),
            "pid": os.getpid(),
            "clock": str(self._remote.clock.value),
            "uptime": round(time.monotonic() - self._started),
            "pool": _plain({**self._pool_facts(), **pool.info}),
            "broker": dict(self.broker),
            "prefetch_count": max(pool.limit, self._settings.spec.task.prefetch or 0),
            "rusage": _usage(),
            "replica": self._replica,
        }
        if scaler is not None:
            bounds = scaler.bounds
            found["autoscaler"] = {
                "max": bounds.most,
                "min": bounds.least,
                "current": pool.limit,
                "qty": len(self._inflight.running) + self._inflight.waiting_count,
            }
        return found

    def _pool_facts(self) -> dict[str, Any]:
        pool, policy = self._pool, self._settings.spec.task
        return {
            "implementation": pool.name,
            "max-concurrency": pool.limit,
            "processes": [os.getpid()],
            "max-tasks-per-child": pool.max_tasks_per_child or "N/A",
            "timeouts": [policy.soft_time_limit_seconds or 0, policy.time_limit_seconds or 0],
            "busy": pool.busy_slots,
        }


def _runs(job: Job) -> bool:
    return bool(job.started_at) and not job.settled


def _state(job: Job) -> str:
    if _runs(job):
        return "active"
    if job.settled:
        return "ready"
    return "scheduled" if job.due > time.time() else "reserved"


def _arguments(job: Job) -> dict[str, Any]:
    """The arguments themselves where JSON can carry them; else the representation that came with the message."""
    if job.message is None:
        return {}
    try:
        found = {"args": list(job.message.args), "kwargs": dict(job.message.kwargs)}
        json.dumps(found)
    except (BadMessage, TypeError, ValueError):
        return {}
    return found


def _delivery_info(job: Job) -> dict[str, Any]:
    properties = job.delivery.properties
    info = delivery_info_in(properties)
    return {
        "exchange": info.get("exchange") or "",
        "routing_key": info.get("routing_key") or job.delivery.queue,
        "priority": properties.get("priority"),
        "redelivered": job.delivery.redelivered,
    }


def _queue(name: str, entity: Any) -> dict[str, Any]:
    from kombu import Exchange, Queue  # not at the top: imported only when asked for

    found = entity if entity is not None else Queue(name, Exchange("", type="direct"), routing_key=name)
    return dict(_plain(found.as_dict(recurse=True)))


def _plain(value: Any) -> Any:
    """As JSON can carry it."""
    return json.loads(json.dumps(value, default=repr))


def _usage() -> dict[str, Any]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {name: getattr(usage, f"ru_{name}") for name in _USAGE.split()}


def _iso(at: float) -> str | None:
    return datetime.fromtimestamp(at, UTC).isoformat() if at else None


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple, set)) else [value]


def _is_true(value: Any) -> bool:
    """Whether the value is true; Celery's command line sends words."""
    return value.lower() in ("1", "true", "yes", "on") if isinstance(value, str) else bool(value)
