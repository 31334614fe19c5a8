"""What a pod tells of its worker, for the scaler of a fleet in a cluster: as JSON over HTTP, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fleet.replica.record import RecordView

PORT = 9465
PATH = "/report"


@dataclass(frozen=True, slots=True)
class PodReport:
    """The worker of one pod at one moment.

    ended, busy_seconds: counted since the process began, runs that ended in a retry included.  reserved: messages it
    holds, those that run and those that wait in it for a slot.  counts: it counts its own work.
    """

    pid: int
    state: str
    slots: int
    busy: int
    ended: int
    busy_seconds: float
    reserved: int
    counts: bool

    def to_json(self) -> dict[str, Any]:
        """A plain JSON document; :func:`report_of` reads it back."""
        return asdict(self)


def reported(record: RecordView, *, now: float) -> PodReport:
    """What a record says, of a process that lives."""
    running = sum(max(0.0, now - task.since) for task in record.tasks)
    return PodReport(
        pid=record.pid,
        state=record.state,
        slots=record.slots,
        busy=record.busy,
        ended=record.processed + record.retried,
        busy_seconds=round(record.busy_seconds + running, 3),
        reserved=record.reserved,
        counts=not record.foreign,
    )


def report_of(document: Mapping[str, Any]) -> PodReport:
    """A report as :meth:`PodReport.to_json` writes it. Raises ValueError for anything else."""
    try:
        kinds = {"pid": int, "state": str, "slots": int, "busy": int, "ended": int, "reserved": int, "counts": bool}
        values = {name: kind(document[name]) for name, kind in kinds.items()}
        return PodReport(busy_seconds=float(document["busy_seconds"]), **values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no report of a worker: {error!r}") from error


def pod_index(pod: str) -> int:
    """A number for the name of a replica: the same for one pod, others for others. Brokers tell holders by it."""
    return int(hashlib.sha256(pod.encode()).hexdigest()[:10], 16)
