"""Makes the health checks of a fleet's replicas; a program of fleet's own, beside the controller.

``python -m fleet.backends.supervisor.health_checker FLEET``. Each replica that has a check has a thread, so that one
whose check hangs delays no other; launch documents say which. What the checks tell is in a small file per replica. When
this program is not there, replicas stay what they were called last.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from fleet.errors import FleetError
from fleet.replica import record as records
from fleet.replica.account import forbid_new_privileges
from fleet.replica.health_check import HealthChecker
from fleet.replica.health_result import HealthResult, result_file, result_text
from fleet.replica.launch_document import DocumentError, LaunchDocument, read
from fleet.replica.process_identity import lives
from fleet.replica.record import RecordView
from fleet.state.files import write_whole
from fleet.state.paths import Places, home_of

LOOK_SECONDS = 1.0
"""Between two looks for launch documents, and between two checks of a replica that has not passed one."""
_FRESH_SECONDS = 3.0
_SPREAD = 0.1


@dataclass(slots=True)
class Checked:
    """The checks of one replica, in a thread of its own until ``over`` is set."""

    places: Places
    document: LaunchDocument
    over: threading.Event = field(default_factory=threading.Event)
    _checker: HealthChecker = field(default_factory=HealthChecker)
    _result: HealthResult = field(default_factory=lambda: HealthResult(0))

    def begin(self) -> None:
        name = f"health {self.document.replica}"
        threading.Thread(target=self._go_on, name=name, daemon=True).start()

    def end(self) -> None:
        """Make no more; the file goes with them."""
        self.over.set()
        self._checker.end()
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)

    def look(self) -> float:
        """Make one check, if there is a process to check. Returns the seconds until the next."""
        document = self.document
        record = self._record(document)
        if record is None:
            return LOOK_SECONDS
        reason = self._checker.why_unhealthy(document, pid=record.pid)
        if self.over.is_set() or self._record(document) is None:  # it ended meanwhile: the check says nothing
            return LOOK_SECONDS
        before = self._result if self._result.pid == record.pid else HealthResult(record.pid)
        self._result = before.after(reason, document.spec.health_check, now=time.time())
        with contextlib.suppress(FleetError):
            write_whole(self._file, result_text(self._result), lasting=False)
        interval = document.spec.health_check.interval_seconds
        return interval if self._result.well_since else min(LOOK_SECONDS, interval)

    def _go_on(self) -> None:
        if self.document.spec.no_new_privileges:  # of this thread, and of what it starts
            forbid_new_privileges()
        pause = 0.0
        while not self.over.wait(pause * random.uniform(1 - _SPREAD, 1 + _SPREAD)):
            pause = self.look()

    def _record(self, document: LaunchDocument) -> RecordView | None:
        """The record of the running process, once that is to be checked."""
        record = records.read(document.record)
        if record is None or record.digest != document.digest or not lives(record.pid, record.started_ticks):
            return None
        return record if record.state == "ready" and not record.awaited else None

    @property
    def _file(self) -> Path:
        return result_file(self.places.health, self.document.replica)


@dataclass(slots=True)
class HealthChecks:
    """The checks of one fleet."""

    places: Places
    _checked: dict[tuple[str, str], Checked] = field(default_factory=dict)
    _seen_ns: int = -1

    def look(self) -> None:
        """Begin the checks of replicas that have come, end those of replicas that are gone."""
        try:
            changed_ns = self.places.specs.stat().st_mtime_ns
        except OSError:
            return
        if changed_ns == self._seen_ns and time.time() - changed_ns / 1e9 > _FRESH_SECONDS:
            return
        self._seen_ns = changed_ns
        wanted = {(one.replica, one.digest): one for one in self._documents()}
        for key in self._checked.keys() - wanted.keys():
            self._checked.pop(key).end()
        for key, document in wanted.items():
            if key in self._checked:
                self._checked[key].document = document
            else:
                self._checked[key] = Checked(self.places, document)
                self._checked[key].begin()

    def end(self) -> None:
        for one in self._checked.values():
            one.end()

    def _documents(self) -> list[LaunchDocument]:
        found = []
        for path in self.places.specs.glob("*.json"):
            with contextlib.suppress(DocumentError):
                document = read(path)
                if document.spec.health_check.is_given:
                    found.append(document)
        return found


def main(fleet: str) -> None:
    """Until TERM."""
    over = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    checks = HealthChecks(Places.of(home_of(os.environ), fleet))
    while not over.is_set():
        checks.look()
        over.wait(LOOK_SECONDS)
    checks.end()


if __name__ == "__main__":
    main(sys.argv[1])
