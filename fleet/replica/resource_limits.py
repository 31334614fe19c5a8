"""Limits of a replica: a control group (version 2) where one can be made, else what the kernel offers a process.

A control group bounds the replica with all that it starts. Without one, memory is a limit of address space for each
process, and processors are those it may run on. Which of them holds is told in the replica's log.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

from fleet.core.spec import LimitsSpec
from fleet.core.text.format import size

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
_PERIOD_MICROSECONDS = 100_000
_PREFIX = "fleet-"


class CannotLimit(Exception):
    """A limit cannot be set; the message says which and why."""


def limit(
    limits: LimitsSpec,
    *,
    nice: int,
    name: str,
    say: Callable[[str], None],
    cgroup: Path = CGROUP,
    own: Path = OWN_CGROUP,
) -> None:
    """Limit this process and what it starts. ``name``: of the fleet and the replica. Raises CannotLimit."""
    if nice:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
        except OSError as error:
            raise CannotLimit(f"nice {nice}: {error.strerror}; a negative one needs root") from error
    if limits.open_files is not None:
        _set("limits.openFiles", resource.RLIMIT_NOFILE, limits.open_files)
    wanted = _wanted(limits)
    if not wanted:
        return
    place, why = _joined(wanted, name, cgroup, own)
    if place is not None:
        say(f"limits {_listed(limits)}: control group {place}")
        return
    say(f"limits {_listed(limits)}: of each process, because no control group can be used ({why})")
    if limits.memory_bytes is not None:
        _set("limits.memory", resource.RLIMIT_AS, limits.memory_bytes)
    if limits.cpus is not None:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[: math.ceil(limits.cpus)])


def _listed(limits: LimitsSpec) -> str:
    memory = f"memory {size(limits.memory_bytes)}" if limits.memory_bytes is not None else ""
    return ", ".join(filter(None, (memory, f"cpus {limits.cpus:g}" if limits.cpus is not None else "")))


def _set(field: str, which: int, value: int) -> None:
    """Soft and hard limit, the soft one alone where the hard one is out of reach."""
    try:
        resource.setrlimit(which, (value, value))
    except (OSError, ValueError) as error:
        raise CannotLimit(f"{field} {value}: {error}") from error


def _wanted(limits: LimitsSpec) -> dict[str, str]:
    """File of a control group -> what is written into it."""
    files = {}
    if limits.memory_bytes is not None:
        files["memory.max"] = str(limits.memory_bytes)
    if limits.cpus is not None:
        files["cpu.max"] = f"{max(1000, round(limits.cpus * _PERIOD_MICROSECONDS))} {_PERIOD_MICROSECONDS}"
    return files


def _joined(files: dict[str, str], name: str, cgroup: Path, own: Path) -> tuple[Path | None, str]:
    """The control group that this process is in now, or why there is none."""
    needed = {file.partition(".")[0] for file in files}
    why = "version 2 is not mounted"
    for parent in _parents(cgroup, own):
        given = set(_text(parent / "cgroup.subtree_control").split())
        if not needed <= given:
            why = f"{parent} gives no {' and no '.join(sorted(needed - given))} to groups below it"
            continue
        place = parent / f"{_PREFIX}{name}"
        try:
            place.mkdir(exist_ok=True)
            for file, text in files.items():
                (place / file).write_text(text)
            (place / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as error:
            why = f"{place}: {error.strerror}"
            with contextlib.suppress(OSError):
                place.rmdir()
            continue
        _remove_empty(parent, keep=place)
        return place, ""
    return None, why


def _remove_empty(parent: Path, *, keep: Path) -> None:
    """Control groups of replicas that are gone; the kernel refuses those in which something runs."""
    for place in parent.glob(f"{_PREFIX}*"):
        if place != keep:
            with contextlib.suppress(OSError):
                place.rmdir()


def _parents(cgroup: Path, own: Path) -> Iterator[Path]:
    """The control groups around this process, from the innermost out, the ones that fleet made left out."""
    line = next((text for text in _text(own).splitlines() if text.startswith("0::")), None)
    if line is None or not (cgroup / "cgroup.controllers").exists():
        return
    place = cgroup / line.removeprefix("0::").strip("/")
    while True:
        if not place.name.startswith(_PREFIX):
            yield place
        if place == cgroup or cgroup not in place.parents:
            return
        place = place.parent


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
