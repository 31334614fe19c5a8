"""Serves what a pod tells of its replicas over HTTP: to the scaler and to Prometheus. No request changes anything."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.operate.http_server import BoundedServer, Listening, QuietHandler
from fleet.operate.metrics.exposition import negotiated
from fleet.operate.metrics.pod_samples import PodReplica, pod_samples
from fleet.replica.pod_report import METRICS_PATH, PATH, PodReport, reported, together
from fleet.replica.process_identity import lives
from fleet.replica.record import RecordView, read
from fleet.replica.task_counters import counters_path, read_counters

_PATIENCE_SECONDS = 5.0
FindRecords = Callable[[], Mapping[str, Path]]
"""Name of a replica -> the path of its record."""


@dataclass(slots=True)
class PodReader:
    """Reads the replicas of one pod; may be asked by many threads.

    find: their records.  several: the pod has more than one. What those have counted that have ended stays in the sum
    then, so that it does not go back when one of them restarts.
    """

    fleet: str
    find: FindRecords
    several: bool = False
    _last: dict[tuple[str, int, int], PodReport] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def report(self) -> PodReport | None:
        """All of them together; None where no process of a worker lives."""
        now = time.time()
        records = {name: read(path) for name, path in self.find().items()}
        living = {
            (name, one.pid, one.started_ticks): reported(one, now=now)
            for name, one in records.items()
            if one is not None and _lives(one)
        }
        if not living:
            return None
        if not self.several:
            return next(iter(living.values()))
        with self._lock:
            self._last |= living
            return together(list(living.values()), every=list(self._last.values()), pid=os.getpid())

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """As Prometheus reads them, in the format that an Accept header prefers, and their content type."""
        return negotiated(pod_samples(self.fleet, self._replicas(), now=time.time()), accept)

    def _replicas(self) -> list[PodReplica]:
        found = []
        for name, path in self.find().items():
            record = read(path)
            alive = record is not None and _lives(record)
            found.append(PodReplica(name, record, alive, read_counters(counters_path(path))))
        return found


def _lives(record: RecordView) -> bool:
    return lives(record.pid, record.started_ticks)


class PodServer(Listening):
    """Listens from ``with`` to its end, in threads of its own. Raises OSError where it cannot listen."""

    def __init__(self, reader: PodReader, *, port: int, host: str = "") -> None:
        super().__init__(_Server((host, port), reader), name="report")


class _Server(BoundedServer):
    def __init__(self, address: tuple[str, int], reader: PodReader) -> None:
        self.reader = reader
        super().__init__(address, _Handler)


class _Handler(QuietHandler):
    server: _Server
    timeout = _PATIENCE_SECONDS
    server_version = "fleet"
    sys_version = ""

    def do_GET(self) -> None:  # noqa: N802
        path = self.path.partition("?")[0]
        if path == METRICS_PATH:
            self.answer(200, *self.server.reader.metrics(self.headers.get("Accept", "")))
            return
        report = self.server.reader.report() if path == PATH else None
        body = b"" if report is None else json.dumps(report.to_json()).encode()
        self.answer(404 if report is None else 200, body, "application/json")
