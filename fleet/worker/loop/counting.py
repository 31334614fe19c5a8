"""Counts tasks by name beside the record: how their runs ended, how long they took and how long they had waited."""

from __future__ import annotations

import time
from pathlib import Path

from fleet.file_access import make_folders
from fleet.replica.task_counters import TaskCounters, TaskEnd, counters_path
from fleet.worker.task.call import Outcome
from fleet.worker.task.job import Job

_BY_ENDING: dict[str | None, TaskEnd] = {
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

    def on_start(self, job: Job) -> None:
        """It starts now. Only a message that says since when it waits is counted."""
        sent_at = job.message.sent_at if job.message is not None else None
        if sent_at is not None:
            now = time.time()
            since = max(sent_at, job.due)
            self.counters.waited(job.call.name, now - since if now > since else 0.0)

    def on_end(self, job: Job, outcome: Outcome) -> None:
        """It is over. A message that goes back to its queue, to come again, is not."""
        ending = job.ending
        end = _BY_ENDING.get(ending) or _BY_STATE.get(outcome.state)
        if end is None:
            return
        if ending == "unknown" or job.message is None:
            self.counters.ended_unknown(end)
        else:
            self.counters.ended(job.call.name, end, _run_seconds(job))

    def every_second(self, _now: float) -> None:
        """Let readers see it."""
        self.counters.publish()


def _run_seconds(job: Job) -> float | None:
    """How long it ran, by the pool's clock. Of a run that was ended at its limit, the limit."""
    handle = job.handle
    if job.ending is not None:
        return job.limit_seconds if job.ending == "timeout" else None
    return handle.ended_at - handle.started_at if handle is not None and handle.started_at else None
