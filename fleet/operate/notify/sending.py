"""How the processes that know of news have them sent: without waiting for a receiver any longer than a moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.core.desired import CONTROLLER_GROUP, replica_name
from fleet.errors import FleetError
from fleet.operate.notify.notifier import Background, Notifier, Receivers
from fleet.replica import launch_document
from fleet.replica.launch_document import DocumentError
from fleet.state import controller_heartbeat
from fleet.state.controller_heartbeat import LATE_SECONDS
from fleet.state.paths import Places

if TYPE_CHECKING:
    from fleet.inputs.manifest import LoadedManifest

PATIENCE_SECONDS = 5.0
"""So long a command that has done its work waits for receivers at most. What has not arrived by then waits in the
fleet's folder for the controller."""


def receivers_of(loaded: LoadedManifest, secrets: Callable[[], Mapping[str, str]]) -> Receivers:
    """Whom a manifest wants to be told."""
    return Receivers(loaded.manifest.spec.notify, secrets, Path(loaded.origin.base))


def secrets_of_controller(places: Places) -> Mapping[str, str]:
    """Name -> value, as the controller of a fleet was started with; none where it was not."""
    try:
        return launch_document.read(places.spec_file(replica_name(CONTROLLER_GROUP, 0))).secrets
    except DocumentError:
        return {}


@contextmanager
def told(places: Places, receivers: Receivers | None, *, now: Callable[[], float]) -> Iterator[None]:
    """What is written into the audit in here is sent at its end: by the controller where one works, else from here."""
    if receivers is None or not receivers.notifications:
        yield
        return
    notifier = Notifier(places, receivers, now=now)
    with contextlib.suppress(FleetError):
        notifier.begin()
    try:
        yield
    finally:
        if not _has_controller(places, now=now()):
            background = Background()
            background.start(notifier.look)
            background.wait(PATIENCE_SECONDS)


def _has_controller(places: Places, *, now: float) -> bool:
    heartbeat = controller_heartbeat.read(places.controller_heartbeat)
    return heartbeat.pid > 0 and now - heartbeat.next_at <= LATE_SECONDS and _lives(heartbeat.pid)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True
