"""The log of one replica, kept within bounds: moved aside at a start, copied and cut while its writer goes on writing.

A replica writes to its own file, and so does whatever it starts: nothing lies between that could be slow or die. The
price is that the file has to be cut behind the writer's back. It is opened for appending, so a cut one is written from
its beginning again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from fleet.core.text.variables import count_in
from fleet.file_access import KEPT_BYTES, read_file

USUAL_BYTES = 10 << 20
VARIABLE = "FLEET_LOG_BYTES"


def limit_bytes_in(environ: Mapping[str, str]) -> int:
    """What the variable says, where it is a number above 0; the settings of a command refuse any other."""
    return count_in(environ, VARIABLE, usual=USUAL_BYTES)


LIMIT_BYTES = limit_bytes_in(os.environ)
"""Of one log; a pod, which keeps them in memory, says less."""
KEPT = 3


def dropped_file(folder: Path) -> Path:
    """Where the sums of what was dropped are kept, beside the logs."""
    return folder / "dropped.json"


def dropped_bytes(folder: Path) -> dict[str, int]:
    """Replica -> bytes of its log that were dropped in floods so far; nothing where that cannot be read."""
    try:
        found = json.loads(read_file(dropped_file(folder), limit_bytes=KEPT_BYTES, own=True))
        return {str(name): int(count) for name, count in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def aged(path: Path, number: int) -> Path:
    """The log that was moved aside ``number`` times."""
    return path.with_name(f"{path.name}.{number}")


def every_part(path: Path) -> list[Path]:
    """The log with what was moved aside, oldest first; only those that are there."""
    return [part for part in (*(aged(path, number) for number in range(KEPT, 0, -1)), path) if part.is_file()]


def move_aside(path: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
    """At a start, before the log is opened: one over the limit becomes ``.1``, older ones move up, three are kept."""
    try:
        if path.stat().st_size <= limit_bytes:
            return
    except OSError:
        return
    _move_up(path)
    with contextlib.suppress(OSError):
        os.replace(path, aged(path, 1))


def cut(path: Path, *, limit_bytes: int = LIMIT_BYTES) -> int:
    """While it is written: its last ``limit_bytes`` become ``.1``, and the log begins again.

    Returns how many bytes are in neither: what had grown past the limit before anybody looked.  What is written between
    the copy and the cut is lost, too: a few lines at most.  Raises OSError.
    """
    with path.open("r+b") as log:
        size = log.seek(0, os.SEEK_END)
        dropped = max(0, size - limit_bytes)
        _move_up(path)
        fresh = path.with_name(f".{path.name}.tmp")
        try:
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as copy:
                _copy(log.fileno(), copy.fileno(), begin=dropped, end=size)
            os.replace(fresh, aged(path, 1))
        except OSError:  # a full disk: room is worth more than an old log
            fresh.unlink(missing_ok=True)
            dropped = size
        log.truncate(0)
    return dropped


def empty(path: Path) -> int:
    """Cut it and keep nothing; how many bytes that were."""
    size = path.stat().st_size
    os.truncate(path, 0)
    return size


def _move_up(path: Path) -> None:
    for number in range(KEPT, 1, -1):
        with contextlib.suppress(OSError):
            os.replace(aged(path, number - 1), aged(path, number))


def _copy(source: int, target: int, *, begin: int, end: int) -> None:
    while begin < end:
        sent = os.sendfile(target, source, begin, end - begin)
        if sent == 0:
            return
        begin += sent
