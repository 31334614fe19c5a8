"""Ends a controller that has stopped looking, so that supervisord starts it again: it heals all others, not itself."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fleet.backends.supervisor.processes import read_mark, signal_marked
from fleet.core.desired import CONTROLLER_GROUP
from fleet.errors import FleetError
from fleet.replica.process_identity import started_ticks
from fleet.state import controller_heartbeat
from fleet.state.audit import Audit
from fleet.state.paths import Places

LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
"""After the first look that finds it stuck: a machine that slept for an hour has made it late, too."""
_NAME = f"{CONTROLLER_GROUP}.0"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class ControllerWatch:
    """The controller of one fleet. now: Unix seconds."""

    places: Places
    now: Callable[[], float] = time.time
    _looked_at: float = 0.0
    _stuck: tuple[int, int] | None = field(default=None, init=False)
    _stuck_since: float = field(default=0.0, init=False)

    def look(self) -> None:
        """Look, at most every few seconds; end it when it has been stuck for a while. Never raises."""
        now = self.now()
        if 0 <= now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        beat = controller_heartbeat.read(self.places.controller_heartbeat)
        ticks = started_ticks(beat.pid) if beat.pid > 0 else None
        if ticks is None:
            return
        uptime_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / _TICKS
        problem, process = beat.problem(uptime_seconds, now=now), (beat.pid, ticks)
        if not problem or process != self._stuck:
            self._stuck, self._stuck_since = (process if problem else None), now
        elif now - self._stuck_since >= PATIENCE_SECONDS:
            self._end(beat.pid, problem)

    def _end(self, pid: int, problem: str) -> None:
        """Kill it, if it is the controller: the file may name anybody."""
        mark = read_mark(pid, self.places.specs)
        if mark is not None and mark.replica == _NAME and signal_marked(pid, self.places.specs, signal.SIGKILL):
            self._tell(problem)

    def _tell(self, problem: str) -> None:
        entry = {"event": "heal.started", "replica": _NAME, "class": "stuck", "step": "kill"}
        with contextlib.suppress(FleetError):
            Audit(self.places.audit, now=self.now).write({**entry, "reason": problem, "heals": 0})
