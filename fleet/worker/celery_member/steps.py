"""Where the member hooks into Celery's worker: two bootsteps and a few signals, added when the worker is made."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from pathlib import Path
from typing import Any

from celery import bootsteps, signals

from fleet.replica import record as records
from fleet.replica.record import Record
from fleet.replica.task_counters import TaskCounters, counters_path
from fleet.worker.celery_member.member import Member

log = logging.getLogger("fleet.worker")

_member: Member | None = None
_worker: Any = None


def join() -> None:
    """From now on the worker that this process makes is a member of its fleet."""
    signals.worker_init.connect(on_worker_init, weak=False)


def hold_no_more_than_slots(worker: Any) -> None:
    """One message for each slot, as fleet's own worker, where neither the app nor the manifest says otherwise.

    Celery's four would wait behind one that runs, where no free worker gets them and neither the broker nor a busy solo
    worker can count them.
    """
    said_by_app = not {"worker_prefetch_multiplier", "CELERYD_PREFETCH_MULTIPLIER"}.isdisjoint(
        worker.app.conf.table(with_defaults=False)
    )
    if not said_by_app and not any(argument.startswith("--prefetch-multiplier") for argument in sys.argv):
        worker.prefetch_multiplier = 1


def apply_settings(app: Any) -> None:
    """What the manifest says and ``celery worker`` has no option for. Before the worker has a connection or a child."""
    if seconds := os.environ.get("FLEET_VISIBILITY_TIMEOUT"):
        options = {**(app.conf.broker_transport_options or {}), "visibility_timeout": float(seconds)}
        app.conf.broker_transport_options = options
    if acks := os.environ.get("FLEET_TASK_ACKS"):
        app.conf.task_acks_late = acks == "late"
        for task in app.tasks.values():
            task.acks_late = acks == "late"


def on_worker_init(sender: Any, **_: Any) -> None:
    """The worker has its options, and nothing has started."""
    global _member, _worker
    path = Path(os.environ["FLEET_RECORD"])
    try:
        record = Record(path, digest=os.environ["FLEET_DIGEST"], slots=int(sender.concurrency))
        _member = Member(record, _counters(path))
        _worker = sender
        hold_no_more_than_slots(sender)
        apply_settings(sender.app)
        sender.app.steps["worker"].add(PoolStep)
        sender.app.steps["consumer"].add(ConsumerStep)
        _connect(_member)
    except Exception as error:
        if _member is not None:
            _member.give_up(error)
        else:
            records.expect_none(path)
        raise  # Celery logs what a receiver raises


def _counters(record: Path) -> TaskCounters | None:
    """None where they are switched off, or cannot be kept."""
    if os.environ.get("FLEET_TASK_COUNTERS") == "off":
        return None
    try:
        return TaskCounters(counters_path(record))
    except OSError as error:
        log.warning("tasks are not counted by name: %s: %s", error.filename or record, error.strerror or error)
        return None


def _connect(member: Member) -> None:
    def on_shutting_down(**_: Any) -> None:
        member.leaving = True  # in a signal handler: no more than this

    def on_revoked(sender: Any = None, terminated: bool = False, **_: Any) -> None:
        if not terminated:  # else its job ends, too
            member.guarded(member.jobs.count)(failed=False, name=str(getattr(sender, "name", "") or ""))

    def on_useless(**_: Any) -> None:
        member.guarded(member.jobs.count)(failed=True)

    signals.worker_shutting_down.connect(on_shutting_down, weak=False)
    signals.task_revoked.connect(on_revoked, weak=False)
    signals.task_unknown.connect(on_useless, weak=False)
    signals.task_rejected.connect(on_useless, weak=False)
    atexit.register(_on_exit)


def _on_exit() -> None:
    """At the very end, whichever way the worker was told to go."""
    if _member is not None:
        clean = _member.leaving or not getattr(_worker, "exitcode", None)
        _member.guarded(_member.finish)(clean=clean)


class PoolStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """In the worker, once its pool has started."""

    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        if _member is not None:
            _member.guarded(_member.start)(worker.pool)

    def stop(self, worker: Any) -> None:
        pass


class ConsumerStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """In the consumer, at each connection: after the queues are known and before the loop consumes."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        if _member is not None:
            _member.guarded(_member.intake.attach)(consumer)

    def start(self, consumer: Any) -> None:
        if _member is not None:
            _member.intake.start(consumer)

    def stop(self, consumer: Any) -> None:  # noqa: ARG002
        if _member is not None:
            _member.intake.stop()
