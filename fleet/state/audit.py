"""What happened to a fleet, by whom and why: one JSON object per line, only ever appended to."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.file_access import make_folders, open_own
from fleet.state.files import cannot_write, damaged

Entry = dict[str, Any]

FOLLOW_SECONDS = 0.25
LIMIT_BYTES = 8 << 20
KEPT = 9
"""How many that were moved aside stay: with them about 80 MiB, some 400 000 entries."""
_HINT = "move it away; a new one is begun"
_CHUNK_BYTES = 1 << 16
_LOCK_POLL_SECONDS = 0.02
_LONGEST_BYTES = 1 << 20
"""The longest line that is read as one entry."""


BEHALF_VARIABLE = "FLEET_ON_BEHALF_OF"


def who() -> str:
    """The person behind this process: whom it was started for, the one who called sudo, or the user it runs as."""
    return os.environ.get(BEHALF_VARIABLE) or os.environ.get("SUDO_USER") or _user_name(os.getuid())


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


@dataclass(frozen=True, slots=True)
class Position:
    """How far an audit was read: its file, 0 for none, and the offset in bytes."""

    inode: int
    offset: int


class Audit:
    """The audit of one fleet. Lines of several processes never mix: each batch is appended under the file's lock."""

    def __init__(
        self, path: Path, *, now: Callable[[], float] = time.time, patience_seconds: float | None = None
    ) -> None:
        """``patience_seconds``: how long to wait for the file's lock; None waits for ever."""
        self.path = path
        self._now = now
        self._patience_seconds = patience_seconds

    def write(self, *entries: Mapping[str, Any]) -> None:
        """Append entries, on disk before this returns. Each gets the time, the person and the process."""
        stamp = {"at": round(self._now(), 3), "by": who(), "pid": os.getpid()}
        lines = b"".join(_line({**stamp, **entry}) for entry in entries)
        if not lines:
            return
        try:
            self._append(lines)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _append(self, lines: bytes) -> None:
        make_folders(self.path.parent)
        descriptor = self._locked()
        try:
            if os.fstat(descriptor).st_size > LIMIT_BYTES:
                self._move_aside()
                os.close(descriptor)
                descriptor = self._locked()
            os.write(descriptor, _separator(descriptor) + lines)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)  # frees the lock, as does a crash

    def _locked(self) -> int:
        """The file, open and locked: the separator is right only while no other process appends.

        The process that had the lock before may have moved the file aside.
        """
        while True:
            descriptor = open_own(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            self._lock(descriptor)
            try:
                if os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                    return descriptor
            except FileNotFoundError:
                pass
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        if self._patience_seconds is None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return None
        end = time.monotonic() + self._patience_seconds
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= end:
                    os.close(descriptor)
                    raise
            time.sleep(_LOCK_POLL_SECONDS)

    def _move_aside(self) -> None:
        for number in range(KEPT, 0, -1):
            younger = self.path if number == 1 else self._aged(number - 1)
            if younger.exists():
                os.replace(younger, self._aged(number))

    def _aged(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def read(self, *, since: float = 0.0, last: int | None = None) -> list[Entry]:
        """Entries from oldest to newest. Lines that a crash cut short are left out. Raises Damaged."""
        return list(deque(self.entries(since=since), maxlen=last))

    def entries(self, *, since: float = 0.0) -> Iterator[Entry]:
        """The same, one at a time: an audit may be long."""
        found = (entry for line in self._lines() if (entry := _entry(line)) is not None)
        return (entry for entry in found if entry["at"] >= since)

    def unreadable(self) -> int:
        """How many lines are no entries: a crash cut them short, or something else wrote into the file."""
        return sum(_entry(line) is None for line in self._lines())

    def _lines(self, *, aged_only: bool = False) -> Iterator[bytes]:
        """Those that were moved aside first."""
        aged = [self._aged(number) for number in range(KEPT, 0, -1)]
        for path in aged if aged_only else (*aged, self.path):
            try:
                with open(open_own(path, os.O_RDONLY), "rb") as file:
                    while line := file.readline(_LONGEST_BYTES):
                        if line.strip():
                            yield line
            except FileNotFoundError:
                continue
            except OSError as error:
                raise damaged(path, error.strerror, hint=_HINT) from error

    def end(self) -> tuple[int, int]:
        """Where it ends now: the inode of the file and the offset in it, for :meth:`after`."""
        try:
            facts = self.path.stat()
        except FileNotFoundError:
            return 0, 0
        except OSError as error:
            raise damaged(self.path, error.strerror, hint=_HINT) from error
        return facts.st_ino, facts.st_size

    def after(self, inode: int, offset: int) -> tuple[list[Entry], int, int]:
        """The entries behind such a place, and the place behind the last of them, also when the file was moved aside.

        A place in a file that is gone is that of the oldest one that is left.
        """
        paths = [path for number in range(KEPT, 0, -1) if (path := self._aged(number)).exists()] + [self.path]
        begin = next((index for index, path in enumerate(paths) if inode and _inode(path) == inode), None)
        entries: list[Entry] = []
        for path in paths if begin is None else paths[begin:]:
            place, start = _inode(path), offset if _inode(path) == inode else 0
            chunk = _read_from(path, start, everything=True)
            whole = chunk[: chunk.rfind(b"\n") + 1]
            entries += [entry for line in whole.split(b"\n") if (entry := _entry(line)) is not None]
            inode_now, offset_now = place, start + len(whole)
        return entries, inode_now, offset_now

    def give_after(self, position: Position | None, take: Callable[[Entry], object]) -> Position:
        """Give each entry that was written after ``position`` (None: every one) to ``take``; returns where that ended.

        Raises Damaged.
        """
        inode = _inode(self.path)
        if position is None:
            for line in self._lines(aged_only=True):
                _give(line, take)
        elif position.inode not in (0, inode):  # moved aside
            for line in _read_from(self._aged(1), position.offset, everything=True).split(b"\n"):
                _give(line, take)
        offset = position.offset if position is not None and position.inode == inode else 0
        whole, end, _rest = _read_from(self.path, offset, everything=True).rpartition(b"\n")
        for line in whole.split(b"\n"):
            _give(line, take)
        return Position(inode, offset + len(whole) + len(end))

    def follow(self, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[Entry]:
        """Entries as they are written from now on; does not end."""
        offset, inode, rest = _size(self.path), _inode(self.path), b""
        while True:
            if inode not in (0, _inode(self.path)):  # moved aside: to its end first, then from the new beginning
                rest += _read_from(self._aged(1), offset, everything=True)
                offset = 0
            inode = _inode(self.path)
            chunk = _read_from(self.path, offset)
            offset += len(chunk)
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest if len(rest) <= _LONGEST_BYTES else b""
            yield from (entry for line in lines if (entry := _entry(line)) is not None)
            if not chunk:
                sleep(FOLLOW_SECONDS)


def _give(line: bytes, take: Callable[[Entry], object]) -> None:
    if (entry := _entry(line)) is not None:
        take(entry)


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _separator(descriptor: int) -> bytes:
    """A newline where a crash cut the last line short, so that the next entry does not become part of it."""
    size = os.fstat(descriptor).st_size
    return b"\n" if size and os.pread(descriptor, 1, size - 1) != b"\n" else b""


def _entry(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) and isinstance(entry.get("at"), int | float) else None


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _inode(path: Path) -> int:
    """0 where there is no file."""
    return path.stat().st_ino if path.exists() else 0


def _read_from(path: Path, offset: int, *, everything: bool = False) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(-1 if everything else _CHUNK_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise damaged(path, error.strerror, hint=_HINT) from error
