"""The one door to systemd: unit files in its folders, and ``systemctl``."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet.errors import FleetError, Unreachable
from fleet.operate.service.unit import HEADER
from fleet.state.files import write_whole

SYSTEM_FOLDER = Path("/etc/systemd/system")
_NO_SYSTEMD = "does systemd run this machine?"
_SHOWN = ("LoadState", "ActiveState", "SubState", "UnitFileState", "MainPID", "StatusText", "ExecMainStatus")


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of a unit. ``text`` is its file; None where there is none."""

    text: str | None
    active: str = "unknown"
    enabled: str = "unknown"
    main_pid: int = 0
    status: str = ""
    problem: str = ""


class Systemd:
    """One systemd: the machine's, or that of the user who runs this (``of_user``).

    folder: where its unit files are; the usual one where None.  Every call but ``state`` raises FleetError.
    """

    def __init__(self, *, of_user: bool, folder: Path | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self.of_user = of_user
        self._environ = environ
        self.folder = folder or (_user_folder(environ) if of_user else SYSTEM_FOLDER)

    def file(self, unit: str) -> Path:
        """Where the file of a unit is."""
        return self.folder / unit

    def install(self, unit: str, text: str, *, start: bool) -> None:
        """Write the file, have it read, and start the unit with the machine; ``start``: and now."""
        path = self.file(unit)
        self._refuse_foreign(path)
        write_whole(path, text, mode=0o644)
        self._systemctl("daemon-reload")
        self._systemctl("enable", *(["--now"] if start else []), unit)

    def uninstall(self, unit: str) -> bool:
        """Stop it, which drains its fleet, and remove its file; False where there was none."""
        path = self.file(unit)
        if not path.exists():
            return False
        self._refuse_foreign(path)
        self._systemctl("disable", "--now", unit)
        path.unlink()
        self._systemctl("daemon-reload")
        return True

    def state(self, unit: str) -> UnitState:
        """The file, and what systemd says of it; ``problem`` where it does not answer."""
        try:
            text = self.file(unit).read_text(errors="replace")
        except OSError:
            text = None
        try:
            said = self._systemctl("show", unit, f"--property={','.join(_SHOWN)}")
        except FleetError as error:
            return UnitState(text, problem=error.message)
        facts = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        active = f"{facts.get('ActiveState', 'unknown')} ({facts.get('SubState', 'unknown')})"
        pid = int(facts.get("MainPID") or 0)
        return UnitState(text, active, facts.get("UnitFileState") or "no", pid, facts.get("StatusText", ""))

    def lingers(self) -> bool:
        """Whether this user's services run without the user being logged in."""
        return Path("/var/lib/systemd/linger", self._environ.get("USER", "")).is_file()

    def _refuse_foreign(self, path: Path) -> None:
        if path.exists() and not path.read_text(errors="replace").startswith(HEADER):
            raise FleetError(f"{path} was not written by fleet", hint="move it away first")

    def _systemctl(self, *words: str) -> str:
        command = ["systemctl", *(["--user"] if self.of_user else []), "--no-pager", *words]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=dict(self._environ), check=False
            )
        except OSError as error:
            raise Unreachable(f"cannot run systemctl: {error.strerror}", hint=_NO_SYSTEMD) from error
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()[0]
            raise Unreachable(f"`{' '.join(command)}`: {said}", hint=_NO_SYSTEMD)
        return done.stdout


def _user_folder(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME") or Path.home()) / ".config")
    return Path(home) / "systemd" / "user"
