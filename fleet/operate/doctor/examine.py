"""What is wrong with a fleet on this machine, and what can be fixed without losing tasks.

Looks at the daemon, its socket and descriptors, processes without a supervisor, permissions, files left by killed
commands and the embedded broker. Touches nothing unless asked to: ``fix`` runs the remedies of findings that have one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from fleet.backends.supervisor.backend import SupervisorBackend
from fleet.backends.supervisor.daemon import Daemon
from fleet.backends.supervisor.replica_files import Folder
from fleet.backends.supervisor.rpc import SupervisorRpc
from fleet.core.observed import Observed
from fleet.errors import FleetError, Unreachable
from fleet.operate.doctor.broker import broker_findings, broker_server_findings, outside_broker_findings
from fleet.operate.doctor.daemon import (
    daemon_findings,
    descriptor_findings,
    descriptor_limit_findings,
    socket_path_findings,
)
from fleet.operate.doctor.files import (
    leftover_findings,
    permission_findings,
    privilege_findings,
    program_findings,
    trust_findings,
)
from fleet.operate.doctor.finding import Examined, Finding, Severity
from fleet.operate.doctor.notifications import notification_findings
from fleet.operate.doctor.processes import (
    crash_findings,
    image_findings,
    merging_findings,
    replica_findings,
    stray_findings,
)
from fleet.operate.doctor.state import home_findings, space_findings, state_findings
from fleet.settings import Settings
from fleet.state.lock import holder
from fleet.state.paths import Places

_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


def examine(places: Places, settings: Settings, *, embedded_wanted: bool = False) -> list[Finding]:
    """Everything found, worst first. ``embedded_wanted``: the manifest says ``broker: embedded``."""
    if not places.run.is_dir():
        return [
            *trust_findings(places),
            *descriptor_limit_findings(0),
            *broker_server_findings(settings, wanted=embedded_wanted),
            _nothing(places),
        ]
    rpc = SupervisorRpc(places.socket, timeout_seconds=settings.rpc_timeout_seconds)
    backend = SupervisorBackend(places, rpc_timeout_seconds=settings.rpc_timeout_seconds)
    try:
        folder = Folder(places)
        examined = Examined(places, settings, rpc, Daemon(places, rpc), folder, _observed(backend), embedded_wanted)
        found = [finding for check in _CHECKS for finding in check(examined)]
    finally:
        rpc.close()
        backend.close()
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


def fix(findings: Sequence[Finding]) -> list[str]:
    """Run the remedies, in the order of the findings; what each did, or why it could not. Hold the fleet's lock."""
    done = []
    for finding in findings:
        if finding.remedy is not None:
            try:
                done.append(f"{finding.subject}: {finding.remedy()}")
            except (FleetError, OSError) as error:
                done.append(f"{finding.subject}: could not be fixed: {error}")
    return done


def _observed(backend: SupervisorBackend) -> Observed | None:
    try:
        return backend.observe()
    except Unreachable:
        return None


def _nothing(places: Places) -> Finding:
    return Finding("info", "fleet", f"{places.root} does not exist: {places.fleet!r} never ran here")


def _lock_findings(examined: Examined) -> Iterator[Finding]:
    if (who := holder(examined.places)) is not None and who.pid != os.getpid():
        yield Finding("info", "lock", f"held by {who}")


_CHECKS: tuple[Callable[[Examined], Iterator[Finding]], ...] = (
    daemon_findings,
    socket_path_findings,
    descriptor_findings,
    stray_findings,
    replica_findings,
    image_findings,
    merging_findings,
    permission_findings,
    privilege_findings,
    leftover_findings,
    program_findings,
    state_findings,
    space_findings,
    home_findings,
    broker_findings,
    outside_broker_findings,
    crash_findings,
    notification_findings,
    _lock_findings,
)
