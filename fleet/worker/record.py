"""The record of a replica: a small mapped file with its own facts, readable without it and after it.

One writer (the worker), any number of readers. Reading needs no broker, no lock and no answer from the worker, so it
works while a task blocks, and after a crash the file is the black box. One byte belongs to others: ``hold`` is written
by operators (stop taking work) and carried over a restart.

Layout, little endian: a header of 256 bytes, then 256 bytes per slot. Each part starts with a version counter that is
odd while it is being written; a reader that sees an odd or a changed counter reads again.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.worker.alive import started_ticks

MAGIC = b"FLTREC1\0"
_HEADER = struct.Struct("<8sQIIIIQQQdd16s16s96sddQ")
_SLOT = struct.Struct("<QIIdd64s144s")
_PART = 256
_HOLD_OFFSET = 250
_LINE_UP, _SATED, _FOREIGN = 1, 2, 4
_STATES = ("starting", "ready", "draining", "stopped", "failed")


@dataclass(frozen=True, slots=True)
class SlotView:
    """What runs in one slot. Times are Unix seconds; ``until`` 0 means no limit; ``pid`` 0 means the worker's own."""

    index: int
    pid: int
    task_id: str
    task_name: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class RecordView:
    """One reading of a record. ``slots`` counts all slots, ``tasks`` holds the busy ones. Times are Unix seconds.

    live: digest of the settings in force that change without a restart.  line_up: the broker can be reached.
    consumed_at: when the broker last answered a fetch for free slots; 0.0 before the first.  freed_at: when a slot
    became free last.  state_at: since when it is in its state.  sated: it fetches nothing on purpose, because of what
    it holds already.  foreign: the program keeps no record, this is its launcher's word.  started_ticks: start of the
    process in clock ticks since boot, which with the pid names it for ever; 0 when not known.
    """

    pid: int
    digest: str
    state: str
    slots: int
    processed: int
    failed: int
    retried: int
    started_at: float
    heartbeat_at: float
    hold: bool
    note: str
    tasks: tuple[SlotView, ...]
    live: str = ""
    line_up: bool = False
    consumed_at: float = 0.0
    freed_at: float = 0.0
    state_at: float = 0.0
    sated: bool = False
    foreign: bool = False
    started_ticks: int = 0

    @property
    def busy(self) -> int:
        """How many slots run a task."""
        return len(self.tasks)


class Record:
    """The writer's side. Cheap enough for the hot path: one ``pack_into`` per change."""

    def __init__(self, path: Path, *, digest: str, slots: int, foreign: bool = False) -> None:
        """Make the record of this process, under a temporary name first; an earlier ``hold`` is carried over."""
        self.path = path
        self.slots = slots
        earlier = read(path)
        self._digest = digest.encode()[:16]
        self._state = "starting"
        self._note = b""
        self._version = 0
        self._slot_versions = [0] * slots
        self.processed = self.failed = self.retried = 0
        self.live = ""
        self.line_up = False
        self.consumed_at = 0.0
        self.sated = False
        self._foreign = foreign
        self._started_ticks = started_ticks(os.getpid()) or 0
        self._started_at = self._heartbeat_at = self._state_at = time.time()
        fresh = self._fresh_file(slots)
        self._map[_HOLD_OFFSET] = 1 if earlier is not None and earlier.hold else 0
        self._write_header()
        os.replace(fresh, path)

    def _fresh_file(self, capacity: int) -> Path:
        """Map a new file with room for these slots, not yet in its place."""
        size = _PART * (1 + capacity)
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with open(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "r+b") as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        return fresh

    @property
    def capacity(self) -> int:
        """Slots that there is room for: after a shrink, tasks may still run in slots beyond ``slots``."""
        return len(self._slot_versions)

    def resize(self, slots: int) -> None:
        """Publish another number of slots; where there is no room for so many, in a larger file."""
        if slots > self.capacity:
            self._move(slots)
        self.slots = slots
        self._write_header()

    def _move(self, capacity: int) -> None:
        before = self._map
        fresh = self._fresh_file(capacity)
        self._map[: len(before)] = before[:]
        self._slot_versions += [0] * (capacity - self.capacity)
        os.replace(fresh, self.path)
        self._map[_HOLD_OFFSET] = before[_HOLD_OFFSET]  # again: an operator may have written it in between
        before.close()

    @property
    def state(self) -> str:
        """What the worker says of itself."""
        return self._state

    @property
    def hold(self) -> bool:
        """Whether an operator asked this replica to stop taking work."""
        return self._map[_HOLD_OFFSET] == 1

    def become(self, state: str, note: str = "") -> None:
        """Change the state, with a note for people."""
        if state not in _STATES:
            raise ValueError(f"unknown state {state!r}")
        if state != self._state:
            self._state_at = time.time()
        self._state = state
        self._note = note.encode(errors="replace")[:96]
        self.beat()

    def beat(self) -> None:
        """Publish the counters and the time: the worker is alive."""
        self._heartbeat_at = time.time()
        self._write_header()

    def begin(self, slot: int, *, task_id: str, task_name: str, until: float = 0.0, pid: int = 0) -> None:
        """A task runs in this slot now."""
        self._write_slot(
            slot,
            pid,
            1,
            time.time(),
            until,
            task_id.encode(errors="replace")[:64],
            task_name.encode(errors="replace")[:144],
        )

    def end(self, slot: int) -> None:
        """The slot is free again."""
        self._write_slot(slot, 0, 0, time.time(), 0.0, b"", b"")

    def close(self) -> None:
        """Let go of the map; the file stays."""
        self._map.close()

    def _write_header(self) -> None:
        hold = self._map[_HOLD_OFFSET]
        self._version += 1
        struct.pack_into("<Q", self._map, 8, self._version)
        _HEADER.pack_into(
            self._map,
            0,
            MAGIC,
            self._version,
            os.getpid(),
            self.slots,
            _STATES.index(self._state),
            self._flags(),
            self.processed,
            self.failed,
            self.retried,
            self._started_at,
            self._heartbeat_at,
            self._digest,
            self.live.encode()[:16],
            self._note,
            self.consumed_at,
            self._state_at,
            self._started_ticks,
        )
        self._map[_HOLD_OFFSET] = hold
        self._version += 1
        struct.pack_into("<Q", self._map, 8, self._version)

    def _flags(self) -> int:
        return (_LINE_UP if self.line_up else 0) | (_SATED if self.sated else 0) | (_FOREIGN if self._foreign else 0)

    def _write_slot(
        self, slot: int, pid: int, busy: int, since: float, until: float, task_id: bytes, name: bytes
    ) -> None:
        offset = _PART * (1 + slot)
        version = self._slot_versions[slot] + 2
        self._slot_versions[slot] = version
        struct.pack_into("<Q", self._map, offset, version - 1)
        _SLOT.pack_into(self._map, offset, version - 1, pid, busy, since, until, task_id, name)
        struct.pack_into("<Q", self._map, offset, version)


def read(path: Path) -> RecordView | None:
    """The record at ``path``, or None where there is none that can be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) < _PART or data[:8] != MAGIC:
        return None
    header = _settled(path, data, 0, _HEADER)
    if header is None:
        return None
    _, _, pid, slots, state, flags, processed, failed, retried, *more = header
    started_at, heartbeat_at, digest, live, note, consumed_at, state_at, ticks = more
    if state >= len(_STATES):
        return None
    capacity = len(data) // _PART - 1
    parts = [_settled(path, data, _PART * (1 + index), _SLOT) for index in range(capacity)]
    return RecordView(
        pid=pid,
        digest=_text(digest),
        state=_STATES[state],
        slots=slots,
        processed=processed,
        failed=failed,
        retried=retried,
        started_at=started_at,
        heartbeat_at=heartbeat_at,
        hold=data[_HOLD_OFFSET] == 1,
        note=_text(note),
        tasks=tuple(_slot_view(index, part) for index, part in enumerate(parts) if part and part[2]),
        live=_text(live),
        line_up=bool(flags & _LINE_UP),
        consumed_at=consumed_at,
        freed_at=max((part[3] for part in parts if part and not part[2]), default=0.0),
        state_at=state_at,
        sated=bool(flags & _SATED),
        foreign=bool(flags & _FOREIGN),
        started_ticks=ticks,
    )


def set_hold(path: Path, *, on: bool) -> bool:
    """Ask the replica to stop taking work, or to take it again. False when it has no record."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        os.pwrite(descriptor, b"\1" if on else b"\0", _HOLD_OFFSET)
    finally:
        os.close(descriptor)
    return True


def _slot_view(index: int, part: tuple[Any, ...]) -> SlotView:
    _, pid, _, since, until, task_id, name = part
    return SlotView(index, pid, _text(task_id), _text(name), since, until)


def _settled(path: Path, data: bytes, offset: int, shape: struct.Struct) -> tuple[Any, ...] | None:
    """Unpack one part; where the writer was at work in it, read it again a few times."""
    version_offset = offset + (8 if offset == 0 else 0)
    for _ in range(8):
        if len(data) < offset + shape.size:
            return None
        (version,) = struct.unpack_from("<Q", data, version_offset)
        if version % 2 == 0:
            return shape.unpack_from(data, offset)
        data = _again(path)
    return shape.unpack_from(data, offset) if len(data) >= offset + shape.size else None


def _again(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _text(raw: object) -> str:
    assert isinstance(raw, bytes)
    return raw.rstrip(b"\0").decode(errors="replace")
