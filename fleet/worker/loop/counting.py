"""Counts tasks by name beside the record: how their runs ended, how long they took and how long they had waited."""

from __future__ import annotations

import time
from pathlib import Path

from fleet.file_access import make_folders
from fleet.replica.task_counters import TaskCounters, TaskEnd, counters_path
from fleet.worker.task.call import Outcome
from fleet.worker.task.job import Job

_BY_ENDING: dict[str, TaskEnd] = {
    "revoked": "revoked",
    "expired": "revoked",
    "terminated": "revoked",
    "lost": "lost",
    "timeout": "failed",
}
_BY_STATE: dict[str, TaskEnd] = {
    "success": "done",
    "ignored": "done",
    "failure": "failed",
    "retry": "retried",
    "dead": "dead",
}


class TaskCounting:
    """Follows the jobs of one loop. Call it with the channel's lock held."""

    def __init__(self, record: Path) -> None:
        """record: of this replica. Raises OSError."""
        make_folders(record.parent)
        self.counters = TaskCounters(counters_path(record))
        self._waited, self._ended = self.counters.waited, self.counters.ended

    def on_start(self, job: Job) -> None:
        """It starts now. Only a message that says since when it waits is counted."""
        message = job.message
        sent_at = message.sent_at if message is not None else None
        if sent_at is not None:
            due = job.due
            seconds = time.time() - (due if due > sent_at else sent_at)
            self._waited(job.call.name, seconds if seconds > 0.0 else 0.0)

    def on_end(self, job: Job, outcome: Outcome) -> None:
        """It is over. A message that goes back to its queue, to come again, is not."""
        ending = job.ending
        end = (_BY_ENDING.get(ending) if ending is not None else None) or _BY_STATE.get(outcome.state)
        if end is None:
            return
        if job.message is None or ending == "unknown":
            self.counters.ended_unknown(end)
        elif ending is None and (handle := job.handle) is not None and handle.started_at:
            self._ended(job.call.name, end, handle.ended_at - handle.started_at)
        else:  # of a run that was ended at its limit, the limit
            self._ended(job.call.name, end, job.limit_seconds if ending == "timeout" else None)

    def every_second(self, _now: float) -> None:
        """Let readers see it."""
        self.counters.publish()
