"""Sees a controller that stands still, which cannot say so itself: it is written into the audit once, and sent.

Part of the program that keeps the logs, because that runs as long as supervisord does. Most looks cost one ``stat``;
what a late heartbeat needs is imported then.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.errors import FleetError
from fleet.state.paths import Places

if TYPE_CHECKING:
    import subprocess

LOOK_SECONDS = 5.0
LATE_SECONDS = 60.0
"""A younger heartbeat is not read; how late one must be is for :mod:`fleet.state.controller_heartbeat` to say."""
_AUDIT_PATIENCE_SECONDS = 1.0


def send_waiting(places: Places) -> subprocess.Popen[bytes]:
    """Have the notifications of a fleet sent by a process of its own."""
    import subprocess

    environ = {**os.environ, "FLEET_HOME": str(places.root.parent)}
    nothing = subprocess.DEVNULL
    command = [sys.executable, "-P", "-m", "fleet", "notify", "send", "--fleet", places.fleet]
    return subprocess.Popen(command, env=environ, cwd="/", stdin=nothing, stdout=nothing, stderr=nothing)


@dataclass(slots=True)
class ControllerWatch:
    """Looks at the heartbeat of one fleet's controller. now: Unix seconds.  send: has what is told then sent."""

    places: Places
    now: Callable[[], float] = time.time
    send: Callable[[Places], subprocess.Popen[bytes] | None] = send_waiting
    _looked_at: float = 0.0
    _told: float = 0.0
    _sender: subprocess.Popen[bytes] | None = field(default=None)

    def look(self) -> None:
        """Look, every LOOK_SECONDS; never raises."""
        now = self.now()
        if abs(now - self._looked_at) < LOOK_SECONDS:
            return
        self._looked_at = now
        if self._sender is not None and self._sender.poll() is not None:
            self._sender = None
        with contextlib.suppress(FleetError, OSError):
            if now - self.places.controller_heartbeat.stat().st_mtime > LATE_SECONDS:
                self._look_at_late(now)

    def _look_at_late(self, now: float) -> None:
        from fleet.core.desired import CONTROLLER_GROUP, replica_name
        from fleet.state import controller_heartbeat
        from fleet.state.audit import Audit

        name = replica_name(CONTROLLER_GROUP, 0)
        heartbeat = controller_heartbeat.read(self.places.controller_heartbeat)
        problem = heartbeat.problem(now, now=now)
        if not problem or heartbeat.at == self._told or not self._is_there(name, heartbeat.pid):
            return
        self._told = heartbeat.at
        entry = {"event": "controller.stuck", "by": "fleet", "replica": name, "reason": problem}
        Audit(self.places.audit, patience_seconds=_AUDIT_PATIENCE_SECONDS).write(entry)
        if self._sender is None:
            self._sender = self.send(self.places)

    def _is_there(self, name: str, pid: int) -> bool:
        """One that was removed, or died, is not stuck: a death is an event of its own."""
        return pid > 0 and self.places.program_file(name).exists() and Path(f"/proc/{pid}").exists()
