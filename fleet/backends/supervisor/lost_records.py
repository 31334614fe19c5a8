"""Writes lost or damaged records again, of programs that keep none of their own: their launcher wrote them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from fleet.backends.supervisor.processes import is_launcher
from fleet.backends.supervisor.replica_files import Folder
from fleet.backends.supervisor.rpc import Process, ProcessState
from fleet.core.spec import FLEETS_ACCOUNT
from fleet.replica import record as records
from fleet.replica.record import Record


def renew(folder: Folder, rows: Iterable[Process]) -> bool:
    """Of these processes, those that became their program and have no record that can be read; whether there were any.

    Those of other accounts are left alone: in their folders the account may have put anything.
    """
    renewed = False
    for row in rows:
        file = folder.places.record_file(row.group)
        if row.state is not ProcessState.RUNNING or not row.pid or records.read(file) is not None:
            continue
        launch = folder.launch(row.group)
        if launch is None or launch.spec.kind != "command" or launch.spec.account != FLEETS_ACCOUNT:
            continue
        if not is_launcher(row.pid):
            with contextlib.suppress(OSError):
                began = float(row.started_at)
                record = Record(file, digest=launch.digest, slots=0, foreign=True, pid=row.pid, started_at=began)
                record.become("ready")
                record.close()
                renewed = True
    return renewed
