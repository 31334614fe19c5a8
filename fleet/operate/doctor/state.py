"""Checks of what must last: a fleet's own files, room on their disk, and homes that are not ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from fleet.backends.supervisor.processes import configurations
from fleet.core.text.format import size
from fleet.errors import Damaged
from fleet.operate.doctor.finding import Examined, Finding, Severity
from fleet.operate.sync import ownership
from fleet.state import applied, decisions, migration, overrides
from fleet.state.audit import Audit
from fleet.state.revisions import History

LITTLE_BYTES = 256 << 20
LITTLE_INODES = 1000


def state_findings(examined: Examined) -> Iterator[Finding]:
    """Files that make no sense. What the controller decides again is removed; the rest is for a person to judge."""
    places = examined.places
    readers: list[tuple[Callable[[], object], Callable[[], str] | None]] = [
        (lambda: applied.load(places.applied), None),
        (lambda: overrides.read(places.overrides), None),
        (lambda: migration.read(places.migration), None),
        (lambda: decisions.read(places.decisions), partial(_remove, places.decisions)),
        (lambda: History(places.revisions).latest(), None),
        (lambda: ownership.read(places.state), None),
    ]
    for read, remedy in readers:
        try:
            read()
        except Damaged as error:
            yield Finding("error", "state", error.message, "" if remedy else error.hint, remedy=remedy)
    try:
        count = Audit(places.audit).unreadable()
    except Damaged as error:
        yield Finding("error", "state", error.message, error.hint)
        return
    if count:
        message = f"{count} lines of {places.audit} are damaged"
        yield Finding("warning", "state", message, "`fleet events` leaves them out")


def space_findings(examined: Examined) -> Iterator[Finding]:
    """Whether there is room for logs and state."""
    for folder in (examined.places.state, examined.places.run, examined.places.log):
        try:
            facts = os.statvfs(folder)
        except OSError:
            continue
        free = facts.f_bavail * facts.f_frsize
        if free < LITTLE_BYTES:
            severity: Severity = "error" if free < LITTLE_BYTES // 16 else "warning"
            hint = "`fleet down`, `pause` and `drain` work on a full disk; others do not"
            yield Finding(severity, "space", f"only {size(free)} are left for {folder}", hint)
        elif facts.f_files and facts.f_favail < LITTLE_INODES:
            yield Finding("warning", "space", f"only {facts.f_favail} files can be made in {folder}")


def home_findings(examined: Examined) -> Iterator[Finding]:
    """A fleet of this name that runs in another home."""
    places = examined.places
    for pid, path in sorted(configurations().items()):
        root = path.parent.parent
        if root.name == places.fleet and path != places.supervisord_conf:
            hint = f"FLEET_HOME={root.parent} works on that one; two of them share their queues"
            yield Finding("info", "home", f"a fleet {places.fleet!r} also runs in {root} (supervisord {pid})", hint)


def _remove(path: Path) -> str:
    decisions.forget(path)
    return f"removed {path}; static shares apply until the controller decides again"
