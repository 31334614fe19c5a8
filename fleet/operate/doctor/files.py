"""Checks of a fleet's files: permissions, what killed commands left, and program files that were edited."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from fleet.backends.supervisor.observe import UNSTARTED
from fleet.backends.supervisor.replica_files import Folder
from fleet.backends.supervisor.rpc import DaemonDown
from fleet.core.desired import RESERVED_PREFIX
from fleet.core.text.format import counted
from fleet.errors import FleetError
from fleet.operate.doctor.finding import Examined, Finding
from fleet.state import trust
from fleet.state.paths import Places


def trust_findings(places: Places) -> Iterator[Finding]:
    """Errors for what lets another account change this fleet: folders above it, its own folders and files."""
    for fault in trust.faults(places):
        yield Finding("error", "permissions", str(fault), fault.hint)


def privilege_findings(examined: Examined) -> Iterator[Finding]:
    """A warning where tasks run with every right of root."""
    replicas = examined.observed.replicas.values() if examined.observed else ()
    running = [one for one in replicas if one.running and not (one.spec is not None and one.spec.account.user)]
    running = [one for one in running if not one.group.startswith(RESERVED_PREFIX)]
    if running and os.geteuid() == 0:
        message = f"{counted(len(running), 'replica')} of this fleet run as root: a task can change anything here"
        hint = "name an account in the manifest (`spec: {user: …}`), or run fleet as one; see docs/security.md"
        yield Finding("warning", "privileges", message, hint)


def permission_findings(examined: Examined) -> Iterator[Finding]:
    """Findings unless all belongs to this account and nobody else can read or write it: folders 0700, files 0600.

    Those that other accounts pass through may be 0711."""
    places = examined.places
    yield from trust_findings(places)
    told = {fault.path for fault in trust.faults(places)}  # not to be put right before a person has looked
    folders = [*places.folders, *(places.account_records(uid) for uid in places.account_uids())]
    files = [*places.specs.glob("*"), *places.conf_d.glob("*.conf"), *places.records.glob("*"), places.supervisord_conf]
    passable = places.passable()
    private = [path for path in (places.root, *folders) if path not in passable]
    wanted = [*((path, 0o711) for path in passable), *((path, 0o700) for path in private)]
    for path, allowed in [*wanted, *((path, 0o600) for path in files)]:
        try:
            status = path.lstat()
        except OSError:
            continue
        if path not in told and (mode := stat.S_IMODE(status.st_mode)) & ~allowed:
            message = f"{path} has mode {mode:04o}, not {allowed:04o}"
            yield Finding("error", "permissions", message, remedy=partial(_chmod, path, allowed))


def leftover_findings(examined: Examined) -> Iterator[Finding]:
    """Files left by killed commands, other programs and people."""
    folder, places = examined.folder, examined.places
    if leftovers := folder.leftovers():
        message = f"{len(leftovers)} temporary files of a command that was killed"
        yield Finding("warning", "files", message, remedy=partial(remove_files, leftovers))
    for path in folder.foreign():
        hint = "supervisord would run it: move it away; until then nothing starts"
        yield Finding("error", "files", f"{path} is not fleet's", hint)
    known = set(examined.observed.replicas) if examined.observed is not None else None
    if known is None or examined.observed is None or not examined.observed.up:
        return
    if stale := tuple(path for path in sorted(places.records.glob("*.rec")) if path.stem not in known):
        message = f"{len(stale)} records of replicas that are gone"
        yield Finding("warning", "files", message, remedy=partial(remove_files, stale))
    if stale := tuple(places.spec_file(name) for name in sorted(folder.documents() - known)):
        message = f"{len(stale)} launch documents of replicas that are gone; they may hold secrets"
        yield Finding("warning", "files", message, remedy=partial(remove_files, stale))


def program_findings(examined: Examined) -> Iterator[Finding]:
    """Program files that differ from what runs."""
    if examined.observed is None or not examined.observed.up:
        return
    running = {name for name, replica in examined.observed.replicas.items() if replica.note != UNSTARTED}
    if edited := examined.folder.edited(running):
        message = f"program files were edited or removed by hand: {', '.join(sorted(edited))}"
        yield Finding("error", "files", message, remedy=partial(_mend, examined.folder, running))
    if not examined.daemon.is_configured():
        message = f"{examined.places.supervisord_conf} is not as fleet wrote it"
        count = len(running)
        yield Finding("error", "files", message, remedy=partial(_restore, examined, count))
        return
    try:
        examined.rpc.reload()
    except DaemonDown:
        return
    except FleetError as error:
        yield Finding("error", "conf.d", error.message, error.hint)


def _restore(examined: Examined, replicas: int) -> str:
    examined.daemon.restore_configuration(replicas=replicas)
    return "written again"


def remove_files(paths: Sequence[Path]) -> str:
    for path in paths:
        path.unlink(missing_ok=True)
    return f"removed {len(paths)} {'file' if len(paths) == 1 else 'files'}"


def _chmod(path: Path, mode: int) -> str:
    path.chmod(mode)
    return f"{path} has mode {mode:04o} now"


def _mend(folder: Folder, running: set[str]) -> str:
    return f"restored {', '.join(folder.restore(running))}"
