"""Sees a controller that stands still: tells of it once, and ends it, so that supervisord starts it again.

It heals all others and not itself. Part of the program that keeps the logs, because that runs as long as supervisord
does. Most looks cost one ``stat``.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fleet.core.desired import CONTROLLER_GROUP, replica_name
from fleet.errors import FleetError
from fleet.replica.process_identity import started_ticks
from fleet.state.paths import Places

LOOK_SECONDS = 5.0
PATIENCE_SECONDS = 30.0
"""After the first look that finds it stuck: a machine that slept for an hour has made it late, too."""
UNREAD_SECONDS = 30.0
"""A younger heartbeat is not read; how late one must be is for :mod:`fleet.state.controller_heartbeat` to say."""
CONTROLLER = replica_name(CONTROLLER_GROUP, 0)
_AUDIT_PATIENCE_SECONDS = 1.0


def send_waiting(places: Places) -> subprocess.Popen[bytes]:
    """Have the notifications of a fleet sent by a process of its own."""
    environ = {**os.environ, "FLEET_HOME": str(places.root.parent)}
    nothing = subprocess.DEVNULL
    command = [sys.executable, "-P", "-m", "fleet", "notify", "send", "--fleet", places.fleet]
    return subprocess.Popen(command, env=environ, cwd="/", stdin=nothing, stdout=nothing, stderr=nothing)


@dataclass(slots=True)
class ControllerWatch:
    """The controller of one fleet. now: Unix seconds.  send: has what is told then sent."""

    places: Places
    now: Callable[[], float] = time.time
    send: Callable[[Places], subprocess.Popen[bytes] | None] = send_waiting
    _looked_at: float = 0.0
    _told: float = field(default=0.0, init=False)
    _stuck: tuple[int, int] | None = field(default=None, init=False)
    _stuck_since: float = field(default=0.0, init=False)
    _sender: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def look(self) -> None:
        """Look, at most every few seconds; end it when it has been stuck for a while. Never raises."""
        now = self.now()
        if 0 <= now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        if self._sender is not None and self._sender.poll() is not None:
            self._sender = None
        with contextlib.suppress(FleetError, OSError):
            if now - self.places.controller_heartbeat.stat().st_mtime <= UNREAD_SECONDS:
                self._stuck = None
            else:
                self._look_at_late(now)

    def _look_at_late(self, now: float) -> None:
        from fleet.state import controller_heartbeat

        beat = controller_heartbeat.read(self.places.controller_heartbeat)
        ticks = started_ticks(beat.pid) if beat.pid > 0 else None
        if ticks is None or not self.places.program_file(CONTROLLER).exists():
            return  # one that was removed, or died, is not stuck: a death is an event of its own
        # The process wrote this heartbeat itself, so how long it has lived changes nothing.
        problem, process = beat.problem(math.inf, now=now), (beat.pid, ticks)
        if problem and beat.at != self._told:
            self._told = beat.at
            self._tell({"event": "controller.stuck", "by": "fleet", "replica": CONTROLLER, "reason": problem})
        if not problem or process != self._stuck:
            self._stuck, self._stuck_since = (process if problem else None), now
        elif now - self._stuck_since >= PATIENCE_SECONDS:
            self._end(beat.pid, problem)

    def _end(self, pid: int, problem: str) -> None:
        """Kill it, if it is the controller: the file may name anybody."""
        from fleet.backends.supervisor.processes import read_mark, signal_marked

        mark = read_mark(pid, self.places.specs)
        if mark is None or mark.replica != CONTROLLER:
            return
        if signal_marked(pid, self.places.specs, signal.SIGKILL):
            entry = {"event": "heal.started", "replica": CONTROLLER, "class": "stuck", "step": "kill", "heals": 0}
            self._tell({**entry, "reason": problem})

    def _tell(self, entry: dict[str, Any]) -> None:
        from fleet.state.audit import Audit

        with contextlib.suppress(FleetError, OSError):
            Audit(self.places.audit, now=self.now, patience_seconds=_AUDIT_PATIENCE_SECONDS).write(entry)
            if self._sender is None:
                self._sender = self.send(self.places)
