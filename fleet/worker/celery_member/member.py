"""A worker of Celery's as a member of its fleet: what it says of itself in its record, and when."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from fleet.replica.record import Record
from fleet.replica.task_counters import TaskCounters
from fleet.worker import sd_notify
from fleet.worker.celery_member.intake import Intake
from fleet.worker.celery_member.jobs import Jobs, waiting

log = logging.getLogger("fleet.worker")

_BEAT_SECONDS = 1.0


class Member:
    """Lives in the main process of one worker. Nothing that fails in it reaches the worker: the first failure ends it,
    and the record becomes one that the launcher would have written."""

    def __init__(self, record: Record, counters: TaskCounters | None = None) -> None:
        self.record = record
        self.leaving = False
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._ended = False
        self._pool: Any = None
        self._told_ready = self._told_leaving = False
        self.jobs = Jobs(record, self._lock, guard=self.guarded, counters=counters)
        self.intake = Intake(
            record, unstarted=lambda: self.jobs.unstarted, guard=self.guarded, on_again=self.jobs.reconnected
        )

    def guarded(self, function: Callable[..., None]) -> Callable[..., None]:
        """The function as Celery may call it: without effect in children and after a failure, and it never raises."""

        @functools.wraps(function)
        def call(*args: Any, **named: Any) -> None:
            if self._ended or os.getpid() != self._pid:
                return
            try:
                function(*args, **named)
            except Exception as error:
                self.give_up(error)

        return call

    def start(self, pool: Any) -> None:
        """The pool is there: count its jobs, and begin to beat."""
        self._pool = pool
        self.jobs.watch(pool)
        threading.Thread(target=self._beat_for_ever, name="fleet-member", daemon=True).start()

    def _beat_for_ever(self) -> None:
        """A thread of its own: a solo task keeps the loop, and a pool that drains keeps the main thread."""
        publish = self.guarded(self.publish)
        while not self._ended:
            publish()
            time.sleep(_BEAT_SECONDS)

    def publish(self) -> None:
        """Write everything into the record, the time included."""
        with self._lock:
            if self._ended:
                return
            record, intake = self.record, self.intake
            slots = 0 if self.leaving or self._pool is None else slots_of(self._pool)
            if slots and slots != record.slots:
                record.resize(slots)
            self.jobs.look(time.monotonic())
            record.waiting, record.line_up, record.resting = waiting(), intake.up, intake.consumes and intake.held
            record.become(self._state(), self._note())
            self.jobs.publish()
        self._notify()

    def _state(self) -> str:
        if self.leaving:
            return "draining"
        if not self.intake.consumes:
            return "starting"
        return "draining" if self.intake.held else "ready"

    def _note(self) -> str:
        notes = ["held"] if self.intake.consumes and self.intake.held and not self.leaving else []
        if self.intake.consumes and not self.intake.up and not self.leaving:
            notes.append("no connection to the broker")
        return "; ".join(notes)

    def _notify(self) -> None:
        if self.leaving and not self._told_leaving:
            self._told_leaving = sd_notify.tell("STOPPING=1") or True
        elif self.record.state == "ready" and not self._told_ready:
            self._told_ready = sd_notify.tell("READY=1", "STATUS=consuming") or True

    def finish(self, *, clean: bool) -> None:
        """The worker is gone. After a crash the record stays as it is: the launcher counts it."""
        with self._lock:
            if clean:
                self.leaving = True
                self.publish()
                self.record.become("stopped")
            self._ended = True

    def give_up(self, error: Exception) -> None:
        """The worker goes on without fleet, as one that keeps no record."""
        with self._lock:
            if self._ended:
                return
            self._ended = self.intake.off = True
        log.error("this worker keeps no record from now on: %r", error, exc_info=error)
        try:
            record, digest = self.record, self.record.digest
            Record(record.path, digest=digest, slots=record.slots, foreign=True).become("ready")
        except Exception as second:
            log.error("nor can its record be put away: %r", second)


def slots_of(pool: Any) -> int:
    """How many tasks this pool of Celery's runs at once; 0 where it cannot tell, because it has ended."""
    if type(pool).__module__.rpartition(".")[2] != "prefork":
        return int(pool.limit or 1)
    try:
        return int(pool.num_processes)
    except AttributeError:
        return 0
