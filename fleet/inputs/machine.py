"""What this machine gives to workers: cores, and the real paths of a release."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


FIRST_INDEX = "FLEET_FIRST_INDEX"
"""Variable of a pod with several replicas: their lowest index, which is another one in each pod."""


def first_index(environ: Mapping[str, str]) -> int:
    """Where the replicas of this machine's groups begin to be counted."""
    said = environ.get(FIRST_INDEX, "")
    return int(said) if said.isascii() and said.isdigit() else 0


def cpus(cgroup: Path = CGROUP, own: Path = OWN_CGROUP) -> int:
    """Cores this process may use: its affinity, bounded by the quotas of the control groups around it, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quotas = [*_quotas(cgroup, own), float(allowed)]
    return max(1, min(allowed, math.ceil(min(quotas))))


def _quotas(cgroup: Path, own: Path) -> Iterator[float]:
    for folder in _folders(cgroup, own):
        if (words := _words(folder / "cpu.max")) and len(words) == 2 and words[0] != "max":
            yield int(words[0]) / int(words[1])
    quota, period = (_words(cgroup / "cpu" / f"cpu.cfs_{what}_us") for what in ("quota", "period"))
    if quota and period and int(quota[0]) > 0:
        yield int(quota[0]) / int(period[0])


def _folders(cgroup: Path, own: Path) -> Iterator[Path]:
    """Every control group around this process (version 2), from the innermost out; the smallest quota applies."""
    lines = (line.split(":", 2) for line in _text(own).splitlines())
    inner = next((parts[2] for parts in lines if len(parts) == 3 and parts[0] == "0"), "/")
    place = cgroup / inner.strip("/")
    yield place
    while place != cgroup and cgroup in place.parents:
        place = place.parent
        yield place


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def real_paths(written: Iterable[str | None], *, base: str) -> Mapping[str, str]:
    """Each path as written -> where it leads now, from ``base`` where it is relative.

    Only the folders on the way are followed, never the last part of a program's path: ``.venv/bin/python`` is itself a
    link to the system's interpreter, and following it would leave the virtual environment.
    """
    return {path: real_path(path, base=base) for path in written if path}


def real_path(path: str, *, base: str) -> str:
    """The real path of ``path``, from ``base`` where it is relative."""
    whole = os.path.normpath(os.path.join(base, os.path.expanduser(path)))
    if os.path.isdir(whole):
        return os.path.realpath(whole)
    folder, name = os.path.split(whole)
    return os.path.join(os.path.realpath(folder), name)
