"""The logs of many replicas as one: merged by time, from a moment on, followed as they grow."""

from __future__ import annotations

import heapq
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from fleet.core.desired import group_of
from fleet.replica.log_rotation import every_part

FOLLOW_SECONDS = 0.25
_BLOCK_BYTES = 1 << 16
_LONGEST_LINE_BYTES = 1 << 20
MOST_BYTES = 32 << 20
"""How much of the end of one log is looked at."""
_STAMP = re.compile(r"[\[(]?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?\s?(Z|[+-]\d\d:?\d\d)?")
_JSON_KEYS = ("time", "at", "timestamp", "ts")


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """One line of one replica's log. ``at`` is its own time, else that of the line before it, else 0."""

    at: float
    replica: str
    number: int
    text: str = field(compare=False)


def files(folder: Path) -> dict[str, Path]:
    """Replica name -> its log; the supervisor's own is left out."""
    return {path.stem: path for path in sorted(folder.glob("*.*.log"))}


def chosen(known: Sequence[str], names: Sequence[str]) -> list[str]:
    """The replicas that names (of groups or replicas) stand for; all of them where none is named."""
    return [one for one in known if not names or one in names or group_of(one) in names]


def merged(
    logs: dict[str, Path], *, since: float = 0.0, last: int | None = None, until: Mapping[Path, int] | None = None
) -> list[Line]:
    """Lines of all logs by time, from ``since`` on, at most the ``last`` of them.

    until: where following begins, so that no line is there twice.
    """
    parts = [_of_one(replica, path, since=since, last=last, until=until or {}) for replica, path in logs.items()]
    lines = list(heapq.merge(*parts))
    return lines if last is None else lines[max(0, len(lines) - last) :]


def follow(
    folder: Path,
    names: Sequence[str],
    *,
    from_sizes: dict[Path, int],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Line]:
    """Lines as they are written; does not end. Replicas that appear later are followed too."""
    tails: dict[str, _Tail] = {}
    while True:
        known = files(folder)
        for replica in chosen(list(known), names):
            if replica not in tails:
                tails[replica] = _Tail(replica, known[replica], from_sizes.get(known[replica], 0))
        fresh = sorted(line for tail in tails.values() for line in tail.read())
        yield from fresh
        if not fresh:
            sleep(FOLLOW_SECONDS)


def sizes(logs: dict[str, Path]) -> dict[Path, int]:
    """Where the last whole line of each log ends now: where following begins."""
    return {path: _whole_bytes(path) for path in logs.values() if path.exists()}


def _whole_bytes(path: Path) -> int:
    with suppress(OSError), _open(path) as file:
        end = file.seek(0, os.SEEK_END)
        begin = file.seek(max(0, end - _BLOCK_BYTES))
        found = file.read(end - begin).rfind(b"\n")
        return end if found < 0 < begin else begin + found + 1
    return 0


class _Tail:
    """The growing end of one log; a log that was cut or replaced is read from its beginning."""

    def __init__(self, replica: str, path: Path, offset: int) -> None:
        self.replica, self.path, self.offset = replica, path, offset
        self._inode = self._inode_now()
        self._rest = b""
        self._clock = Clock()
        self._number = 0

    def read(self) -> list[Line]:
        try:
            size = self.path.stat().st_size
        except OSError:
            return []
        if size < self.offset or self._inode_now() != self._inode:
            self.offset, self._rest, self._inode = 0, b"", self._inode_now()
        if size == self.offset:
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            chunk = file.read(_LONGEST_LINE_BYTES)
        self.offset += len(chunk)
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LONGEST_LINE_BYTES:  # a line without an end: shown in parts
            whole, self._rest = [*whole, self._rest], b""
        return [self._line(raw) for raw in whole]

    def _line(self, raw: bytes) -> Line:
        text = raw.decode(errors="replace")
        self._number += 1
        return Line(self._clock.read(text) or time.time(), self.replica, self._number, text)

    def _inode_now(self) -> int:
        try:
            return self.path.stat().st_ino
        except OSError:
            return 0


def _of_one(replica: str, path: Path, *, since: float, last: int | None, until: Mapping[Path, int]) -> list[Line]:
    """Of the log and what was moved aside from it, no more than is asked for."""
    found: list[Line] = []
    for part in reversed(every_part(path)):
        if since and _written_at(part) < since:
            break
        found = [*_of_part(replica, part, since=since, last=last, until=until.get(part)), *found]
        if last is not None and not since and len(found) >= last:
            break
    return [replace(line, number=number) for number, line in enumerate(found)]


def _of_part(replica: str, path: Path, *, since: float, last: int | None, until: int | None) -> list[Line]:
    raw = _lines_since(path, since, until) if since else _tail(path, last, until)
    lines, clock = [], Clock()
    for number, text in enumerate(raw):
        at = clock.read(text)
        if at >= since:
            lines.append(Line(at, replica, number, text))
    return lines


class Clock:
    """The times of the lines of one log. A line without a zone has that of the last line that had one, else this
    machine's: a worker's own lines say their zone, those that its libraries print often do not."""

    def __init__(self) -> None:
        self._zone = ""
        self._at = 0.0

    def read(self, text: str) -> float:
        """The time of the next line; that of the line before where it says none, 0 at the beginning."""
        if found := _STAMP.match(text):
            self._zone = found[3] or self._zone
        self._at = moment(text, zone=self._zone) or self._at
        return self._at


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _lines_since(path: Path, since: float, until: int | None) -> list[str]:
    """The lines from a moment on, found by halving: a log may be long. A few earlier ones may come first."""
    try:
        with _open(path) as file:
            end = _end(file, until)
            begin = max(_offset_since(file, since), end - MOST_BYTES)
            file.seek(begin)
            lines = file.read(max(0, end - begin)).decode(errors="replace").splitlines()
            return lines[1:] if begin else lines
    except OSError:
        return []


def _offset_since(file: BinaryIO, since: float) -> int:
    """An offset before which every line is older. Lines of several processes may be out of order by a little, so that
    one block more is read than would be needed."""
    low, high = 0, file.seek(0, os.SEEK_END)
    while high - low > _BLOCK_BYTES:
        middle = (low + high) // 2
        at = _moment_after(file, middle)
        if at is not None and at < since:
            low = middle
        else:
            high = middle
    return max(0, low - _BLOCK_BYTES)


def _moment_after(file: BinaryIO, offset: int) -> float | None:
    """The time of the first line after an offset that has one; None where none is near."""
    file.seek(offset)
    _, *lines = file.read(_BLOCK_BYTES).decode(errors="replace").splitlines()
    clock = Clock()
    return next((at for line in lines if (at := clock.read(line))), None)


def _open(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


def _end(file: BinaryIO, until: int | None) -> int:
    end = file.seek(0, os.SEEK_END)
    return end if until is None else min(end, until)


def _tail(path: Path, count: int | None, until: int | None) -> list[str]:
    """The last lines of a log, or as many as MOST_BYTES hold; read backwards in blocks: a log may be long."""
    blocks: list[bytes] = []
    left, breaks = MOST_BYTES, 0
    try:
        with _open(path) as file:
            offset = _end(file, until)
            while offset > 0 and left > 0 and (count is None or breaks <= count):
                step = min(_BLOCK_BYTES, offset, left)
                offset -= step
                left -= step
                file.seek(offset)
                blocks.append(file.read(step))
                breaks += blocks[-1].count(b"\n")
    except OSError:
        return []
    lines = b"".join(reversed(blocks)).decode(errors="replace").splitlines()
    if offset > 0 and len(lines) > 1:
        del lines[0]  # the rest of a line that began before
    return lines if count is None else lines[max(0, len(lines) - count) :]


def moment(text: str, *, zone: str = "") -> float | None:
    """The time a line begins with (or says in a JSON field), as Unix seconds.

    zone: of a line that names none, like ``+0100``; '' is this machine's.
    """
    if text.startswith("{"):
        return _json_moment(text)
    found = _STAMP.match(text)
    if found is None:
        return None
    return _seconds(found[1].replace(" ", "T"), found[2] or "", found[3] or zone)


def _seconds(stamp: str, fraction: str, zone: str) -> float | None:
    try:
        when = datetime.fromisoformat(f"{stamp}{zone.replace('Z', '+00:00')}")
    except ValueError:
        return None
    return when.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)


def _json_moment(text: str) -> float | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    value = next((document[key] for key in _JSON_KEYS if key in document), None)
    if isinstance(value, int | float):
        return float(value)
    return moment(value) if isinstance(value, str) else None
