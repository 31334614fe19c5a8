"""What the checks of the doctor look at, and what they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from fleet.backends.supervisor.daemon import Daemon
from fleet.backends.supervisor.replica_files import Folder
from fleet.backends.supervisor.rpc import SupervisorRpc
from fleet.core.observed import Observed
from fleet.settings import Settings
from fleet.state.paths import Places

KILL_AFTER_SECONDS = 5.0
Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. ``severity``: error, warning or info; ``remedy`` fixes it and returns what it did."""

    severity: Severity
    subject: str
    message: str
    hint: str = ""
    remedy: Callable[[], str] | None = field(default=None, compare=False, repr=False)

    @property
    def fixable(self) -> bool:
        """Whether ``fleet doctor --fix`` can fix it."""
        return self.remedy is not None


@dataclass(frozen=True, slots=True)
class Examined:
    """What every check looks at."""

    places: Places
    settings: Settings
    rpc: SupervisorRpc
    daemon: Daemon
    folder: Folder
    observed: Observed | None
    embedded_wanted: bool
