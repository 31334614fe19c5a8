"""What the health checks of one replica have told so far, kept in a small file for all that look at the fleet."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from fleet.core.decode import decoded
from fleet.core.spec import HealthCheckSpec
from fleet.core.text.format import counted, duration
from fleet.file_access import SMALL_BYTES, read_file


class Wellness(StrEnum):
    """well: the last checks passed, but for fewer than make it unhealthy.  young: none has passed yet.
    unhealthy: too many failed, or none has passed in time."""

    WELL = "well"
    YOUNG = "young"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class HealthResult:
    """Checks of one process of a replica; times are Unix seconds, 0.0 for never.

    at: when the last one ended.  well_since: when one passed that followed none, or too many that failed.
    failures: how many have failed since one passed.  reason: why the last one failed, or ''.  most: as many make it
    unhealthy, if they are not in ``within_seconds`` of a process for which none has passed.
    """

    pid: int
    at: float = 0.0
    well_since: float = 0.0
    failures: int = 0
    reason: str = ""
    most: int = 3
    within_seconds: float = 60.0

    def after(self, reason: str, check: HealthCheckSpec, *, now: float) -> HealthResult:
        """With one check more. ``reason``: why it failed, or ''."""
        known = replace(self, at=now, most=check.failures, within_seconds=check.within_seconds)
        if reason:
            return replace(known, failures=self.failures + 1, reason=reason)
        was_well = self.well_since and self.failures < check.failures
        return replace(known, failures=0, reason="", well_since=self.well_since if was_well else now)

    def wellness(self, *, lived_seconds: float) -> tuple[Wellness, str]:
        """How a process that has lived so long is by these checks, and why."""
        if not self.well_since:
            why = f": {self.reason}" if self.reason else ""
            if self.failures and lived_seconds > self.within_seconds:
                return Wellness.UNHEALTHY, f"no health check has passed in {duration(round(lived_seconds))}{why}"
            return Wellness.YOUNG, f"no health check has passed yet{why}"
        if self.failures >= self.most:
            return Wellness.UNHEALTHY, f"{counted(self.failures, 'health check')} failed: {self.reason}"
        return Wellness.WELL, ""


def result_file(folder: Path, replica: str) -> Path:
    """Where the results of a replica's checks are. ``folder``: that of all results."""
    return folder / f"{replica}.json"


def read_result(path: Path, *, pid: int) -> HealthResult:
    """The results of this process; an empty one where there is none that makes sense."""
    try:
        found = decoded(HealthResult, json.loads(read_file(path, limit_bytes=SMALL_BYTES, own=True)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return HealthResult(pid)
    return found if found.pid == pid else HealthResult(pid)


def result_text(result: HealthResult) -> str:
    """As :func:`read_result` reads it."""
    return json.dumps(asdict(result), ensure_ascii=False)
