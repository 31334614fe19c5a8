"""What a pod tells of its worker, for the scaler of a fleet in a cluster: as JSON over HTTP, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleet.replica.record import RecordView

POD_VARIABLE = "FLEET_POD"
"""Variable of every container that fleet renders: the name of its pod."""
SECRET_PREFIX = "FLEET_SECRET_"
"""Of variables that hold values of secrets for the first process; the program does not see them."""
PORT = 9465
PATH = "/report"
METRICS_PATH = "/metrics"


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """What the container of a pod was given, but for the values of secrets."""
    return {name: value for name, value in environ.items() if not name.startswith(SECRET_PREFIX)}


@dataclass(frozen=True, slots=True)
class PodReport:
    """The worker of one pod at one moment, or its workers together.

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


def together(living: Sequence[PodReport], *, every: Sequence[PodReport], pid: int) -> PodReport:
    """The workers of one pod as one.  living: at least one.  every: these, and the last words of those that ended.

    It is ready when one of them is: what the others will do comes on top.
    """
    states = [one.state for one in living]
    return PodReport(
        pid=pid,
        state="ready" if "ready" in states else states[0],
        slots=sum(one.slots for one in living),
        busy=sum(one.busy for one in living),
        ended=sum(one.ended for one in every),
        busy_seconds=round(sum(one.busy_seconds for one in every), 3),
        reserved=sum(one.reserved for one in living),
        counts=all(one.counts for one in living),
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
