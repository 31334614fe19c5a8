"""The record of a replica: a small mapped file with its own facts, readable without it and after it.

One writer (the worker), any number of readers. Reading needs no broker, no lock and no answer from the worker, so it
works while a task blocks, and after a crash the file says what ran. Two bytes are written by others: operators set
``hold`` (take no tasks), and a restart keeps it; ``awaited`` says of a launcher's record that the program will put one
of its own in its place, until the program says that it will not.

Layout, little endian: a header of 256 bytes, then 256 bytes per slot. Each part starts with a version counter that is
odd while it is being written; a reader that sees an odd or a changed counter reads again.

A reader may subtract two readings: the counters of one process never decrease. Therefore a slot keeps its own sum of
busy seconds, in one piece with the task that runs in it now, and each change of a slot carries the worker's count of
processed tasks along, because a worker that always has work publishes its header only once a second.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fleet.core.text.format import one_line
from fleet.file_access import open_own, read_file
from fleet.replica.process_identity import started_ticks

MAGIC = b"FLTREC2\0"
_ANY_LAYOUT = b"FLTREC"
_HEADER = struct.Struct("<IIIIQQQdd16s16s96sddQII")
_SLOT = struct.Struct("<IIdd64s144sdQ")
_VERSION = struct.Struct("<Q")
_PART = 256
MOST_BYTES = 64 << 20
"""The longest file that is read as a record: 260,000 slots."""
_HEADER_VERSION, _HEADER_FACTS = 8, 16
_SLOT_FACTS = 8
_LOOKS, _QUICK_LOOKS, _PAUSE_SECONDS = 80, 40, 0.005
_HOLD_OFFSET = 250
"""In every layout, so that a hold outlives a change of it."""
AWAITED_OFFSET = 251
_LINE_UP, _SATED, _FOREIGN, _RESTING, _CANNOT_START = 1, 2, 4, 8, 16
_LATEST = 1e11
"""Unix seconds in the year 5138: nothing that a worker writes is later, and a calendar can show it."""
_Running = tuple[int, int, float, float, bytes, bytes]
"""What a slot holds: (pid, busy, since, until, task id, task name)."""
_NOTHING: _Running = (0, 0, 0.0, 0.0, b"", b"")
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
    it holds already.  resting: it takes no work because it was held; a hold that ended is noticed a moment later.
    cannot_start: its last start failed, for a reason that another start of the same does not change; the note says it.
    foreign: the program keeps no record and counts nothing; its launcher wrote this one.  awaited: a foreign one that
    the program is about to replace by its own.
    started_ticks: start of the process in clock ticks since boot, which with the pid identify it; 0 when not
    known.

    Counted since the process began:  processed: tasks that came to their end, failed ones among them, and those that
    ended without having run (revoked, expired, unknown, no task at all). A run that is to be repeated (a retry, a
    crash, a message given back) is no end: its message is on its way again.  retried: ends of runs in a retry.
    busy_seconds: spent by slots on what is no longer in them, whatever became of it; with the ages of ``tasks`` it
    grows without a jump.

    crashes: lives of this replica before that ended in a crash, as its launcher remembers them.
    waiting: messages it has fetched that wait for a free slot; those that wait for a date, or for their turn under a
    rate, would not run in more slots either.
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
    resting: bool = False
    cannot_start: bool = False
    started_ticks: int = 0
    busy_seconds: float = 0.0
    waiting: int = 0
    crashes: int = 0
    awaited: bool = False

    @property
    def busy(self) -> int:
        """How many slots run a task."""
        return len(self.tasks)

    @property
    def reserved(self) -> int:
        """Messages it holds, fetched and not yet ended: those that run and those that wait in it."""
        return self.busy + self.waiting


class Record:
    """The writer's side. Cheap enough for the hot path: one ``pack_into`` per change."""

    def __init__(
        self,
        path: Path | None,
        *,
        digest: str,
        slots: int,
        foreign: bool = False,
        awaited: bool = False,
        pid: int | None = None,
        started_at: float | None = None,
    ) -> None:
        """Make the record of this process, under a temporary name first; an earlier ``hold`` is carried over.

        path: None for a record that nobody else reads, kept in memory alone.
        pid, started_at: of another process than this one.
        """
        self._pid = pid
        self.path = path
        self.slots = slots
        self._held = path is not None and _is_held(path)
        self.crashes = _crashes_before(path) if path is not None else 0
        self._digest = digest.encode()[:16]
        self._state = "starting"
        self._note = b""
        self._version = 0
        self._slot_versions = [0] * slots
        self._running: list[_Running] = [_NOTHING] * slots
        self._began_at = [0.0] * slots
        self._busy_seconds = [0.0] * slots
        self.processed = self.failed = self.retried = self.waiting = 0
        self.live = ""
        self.line_up = False
        self.consumed_at = 0.0
        self.sated = False
        self.resting = self.cannot_start = False
        self._foreign = foreign
        self._started_ticks = started_ticks(pid or os.getpid()) or 0
        self._started_at = self._heartbeat_at = self._state_at = started_at or time.time()
        self._file: tuple[int, int] | None = None
        if path is None:
            self._map = mmap.mmap(-1, _PART * (1 + slots))
            self._fill(awaited=awaited)
        else:
            self._put_in_place(path, awaited=awaited)

    def _put_in_place(self, path: Path, *, awaited: bool = False) -> None:
        """Replace the file at ``path`` by a whole one with room for every slot, and write there from now on.

        Raises OSError; then nothing has changed. Space on the disk is taken at once: a mapped file that gets none when
        it is written to would end this process.
        """
        fresh, size = path.with_name(f".{path.name}.{os.getpid()}"), _PART * (1 + self.capacity)
        try:
            with open(open_own(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC), "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, size)
                self._map = mmap.mmap(file.fileno(), size)
                facts = os.fstat(file.fileno())
            self._fill(awaited=awaited)
            os.replace(fresh, path)
        except OSError:
            with suppress(OSError):
                fresh.unlink()
            raise
        self._file = (facts.st_dev, facts.st_ino)

    def _fill(self, *, awaited: bool) -> None:
        """Everything that is known, into a map that is new."""
        self._map[: len(MAGIC)] = MAGIC
        self._map[_HOLD_OFFSET] = int(self._held)
        self._map[AWAITED_OFFSET] = int(awaited)
        self._write_header()
        for slot, running in enumerate(self._running):
            self._disturb(slot)
            self._settle(slot, running)

    def resize(self, slots: int) -> None:
        """Publish a changed number of slots; where there is no room for so many, in a larger file."""
        self.slots = slots
        if slots > self.capacity:
            more = slots - self.capacity
            self._slot_versions += [0] * more
            self._running += [_NOTHING] * more
            self._began_at += [0.0] * more
            self._busy_seconds += [0.0] * more
            self._move()
        self._write_header()

    def _move(self) -> None:
        """Go on in a new file; on a full disk in memory, until there is space."""
        before, (intact, _), held = self._map, self._condition(), self.hold
        try:
            if self.path is None:
                raise FileNotFoundError
            self._put_in_place(self.path)
        except OSError:
            self._file = None
            self._map = mmap.mmap(-1, _PART * (1 + self.capacity))
            self._fill(awaited=False)
        if intact and (before[_HOLD_OFFSET] == 1) != held:  # an operator wrote it in between
            self._map[_HOLD_OFFSET] = before[_HOLD_OFFSET]
        before.close()

    def _condition(self) -> tuple[bool, bool]:
        """Whether the map may be read and says what was written to it, and whether its file is in place.

        A map whose file was shortened must not be touched beyond its end: the kernel would end this process.
        """
        if self.path is None:
            return True, True
        try:
            facts = os.stat(self.path)
        except OSError:
            return self._map[: len(MAGIC)] == MAGIC, False
        in_place = self._file == (facts.st_dev, facts.st_ino)
        if in_place and facts.st_size < len(self._map):
            return False, False
        intact = self._map[: len(MAGIC)] == MAGIC
        return intact, in_place and intact

    @property
    def capacity(self) -> int:
        """Slots that there is room for: after a shrink, tasks may still run in slots beyond ``slots``."""
        return len(self._slot_versions)

    @property
    def state(self) -> str:
        """The state that was published last."""
        return self._state

    @property
    def digest(self) -> str:
        """Of the spec that this process was started with."""
        return self._digest.decode()

    @property
    def hold(self) -> bool:
        """Whether an operator asked this replica to stop taking tasks."""
        if self._condition()[0]:
            self._held = self._map[_HOLD_OFFSET] == 1
        return self._held

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
        """Publish the counters and the time: the worker is alive. A deleted or damaged record is whole again."""
        self._heartbeat_at = time.time()
        if not self._condition()[1]:
            self._move()
        self._write_header()

    def begin(self, slot: int, *, task_id: str, task_name: str, until: float = 0.0, pid: int = 0) -> None:
        """A task runs in this slot now. Call it again for the same task when more is known; then ``since`` stays."""
        since = self._began_at[slot] = self._began_at[slot] or time.time()
        name = task_name.encode(errors="replace")[:144]
        running = self._running[slot] = (pid, 1, since, until, task_id.encode(errors="replace")[:64], name)
        self._disturb(slot)
        self._settle(slot, running)

    def end(self, slot: int) -> None:
        """The slot is free again."""
        self._disturb(slot)  # before the clock is read: a reader that still sees the task read its clock earlier
        now, since = time.time(), self._began_at[slot]
        if since:
            self._busy_seconds[slot] += max(0.0, now - since)
            self._began_at[slot] = 0.0
        self._running[slot] = (0, 0, now, 0.0, b"", b"")
        self._settle(slot, self._running[slot])

    def count_busy(self, seconds: float) -> None:
        """A task has run for so long that no slot showed; readers see it with the next change of the first slot."""
        self._busy_seconds[0] += seconds

    def close(self) -> None:
        """Close the map; the file stays."""
        self._map.close()

    def _write_header(self) -> None:
        _VERSION.pack_into(self._map, _HEADER_VERSION, self._version + 1)
        _HEADER.pack_into(
            self._map,
            _HEADER_FACTS,
            self._pid or os.getpid(),
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
            self.waiting,
            self.crashes,
        )
        self._version += 2
        _VERSION.pack_into(self._map, _HEADER_VERSION, self._version)

    def _flags(self) -> int:
        says = (
            (_LINE_UP, self.line_up),
            (_SATED, self.sated),
            (_FOREIGN, self._foreign),
            (_RESTING, self.resting),
            (_CANNOT_START, self.cannot_start),
        )
        return sum(flag for flag, is_so in says if is_so)

    def _disturb(self, slot: int) -> None:
        """Make readers of this slot wait."""
        _VERSION.pack_into(self._map, _PART * (1 + slot), self._slot_versions[slot] + 1)

    def _settle(self, slot: int, running: _Running) -> None:
        offset, spent = _PART * (1 + slot), self._busy_seconds[slot]
        _SLOT.pack_into(self._map, offset + _SLOT_FACTS, *running, spent, self.processed)
        version = self._slot_versions[slot] = self._slot_versions[slot] + 2
        _VERSION.pack_into(self._map, offset, version)


def read(path: Path) -> RecordView | None:
    """The record at ``path``, or None where there is none that can be read, or one of another layout."""
    return view_of(settled_parts(path))


def view_of(parts: list[bytes]) -> RecordView | None:
    """What these parts of a record say: header first, then each slot."""
    if not parts or parts[0][:8] != MAGIC:
        return None
    pid, slots, state, flags, processed, failed, retried, *more = _HEADER.unpack_from(parts[0], _HEADER_FACTS)
    started_at, heartbeat_at, digest, live, note, consumed_at, state_at, ticks, waiting, crashes = more
    if state >= len(_STATES):
        return None
    seen = [_slot(index, part) for index, part in enumerate(parts[1:])]
    if not (_is_sane(started_at, heartbeat_at, consumed_at, state_at) and all(one.is_sane for one in seen)):
        return None
    return RecordView(
        pid=pid,
        digest=_text(digest),
        state=_STATES[state],
        slots=slots,
        processed=max([processed, *[one.processed for one in seen]]),
        failed=failed,
        retried=retried,
        started_at=started_at,
        heartbeat_at=heartbeat_at,
        hold=parts[0][_HOLD_OFFSET] == 1,
        note=_text(note),
        tasks=tuple([one.task for one in seen if one.task is not None]),
        live=_text(live),
        line_up=bool(flags & _LINE_UP),
        consumed_at=consumed_at,
        freed_at=max([one.freed_at for one in seen], default=0.0),
        state_at=state_at,
        sated=bool(flags & _SATED),
        foreign=bool(flags & _FOREIGN),
        resting=bool(flags & _RESTING),
        cannot_start=bool(flags & _CANNOT_START),
        started_ticks=ticks,
        busy_seconds=sum([one.busy_seconds for one in seen]),
        waiting=waiting,
        crashes=crashes,
        awaited=parts[0][AWAITED_OFFSET] == 1,
    )


def set_hold(path: Path, *, on: bool) -> bool:
    """Ask the replica to stop taking tasks, or to take them again. False when it has no record."""
    return _write_byte(path, _HOLD_OFFSET, on=on)


def expect_none(path: Path) -> bool:
    """Say that the program writes no record of its own, so its launcher's counts. False when it has none."""
    return _write_byte(path, AWAITED_OFFSET, on=False)


def _write_byte(path: Path, offset: int, *, on: bool) -> bool:
    try:
        # Root writes into records of other accounts, whose folders it made.
        owner = path.parent.stat().st_uid if os.geteuid() == 0 else None
        descriptor = open_own(path, os.O_RDWR, owner=owner)
    except OSError:
        return False
    try:
        os.pwrite(descriptor, b"\1" if on else b"\0", offset)
    finally:
        os.close(descriptor)
    return True


def _is_held(path: Path) -> bool:
    """Whether an earlier record here, of whatever layout, is on hold."""
    try:
        data = read_file(path, limit_bytes=MOST_BYTES)
    except OSError:
        return False
    return len(data) >= _PART and data.startswith(_ANY_LAYOUT) and data[_HOLD_OFFSET] == 1


def _crashes_before(path: Path) -> int:
    """What the launcher wrote, which has become this very process."""
    earlier = read(path)
    return earlier.crashes if earlier is not None and earlier.pid == os.getpid() else 0


class _Slot(NamedTuple):
    """freed_at: when it became free; 0.0 while a task runs in it."""

    task: SlotView | None
    freed_at: float
    busy_seconds: float
    processed: int
    is_sane: bool


@lru_cache(maxsize=4096)  # most slots are as they were a moment ago
def _slot(index: int, part: bytes) -> _Slot:
    pid, busy, since, until, task_id, name, busy_seconds, processed = _SLOT.unpack_from(part, _SLOT_FACTS)
    task = SlotView(index, pid, _text(task_id), _text(name), since, until) if busy else None
    return _Slot(task, 0.0 if busy else since, busy_seconds, processed, _is_sane(since, until, busy_seconds))


def _is_sane(*times: float) -> bool:
    """No NaN among them, and nothing else that a worker never writes."""
    return all(0 <= one < _LATEST for one in times)


def are_at_rest(parts: list[bytes]) -> bool:
    """Whether none of these parts was being written."""
    return not any(part[_HEADER_VERSION if index == 0 else 0] % 2 for index, part in enumerate(parts))


def settled_parts(path: Path) -> list[bytes]:
    """The parts of a record, each as it was at a moment when it was not being written. Empty where there is no record.

    A part whose writer died in the middle, or never rests, is as it is.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        facts = os.fstat(descriptor)
        size_bytes = facts.st_size  # fixed: a record file never grows in place
        if not stat.S_ISREG(facts.st_mode) or size_bytes > MOST_BYTES:
            return []
        parts = [b""] * (size_bytes // _PART)
        unsettled = list(range(len(parts)))
        for look in range(_LOOKS):
            if look >= _QUICK_LOOKS:
                time.sleep(_PAUSE_SECONDS)
            before, after = os.pread(descriptor, size_bytes, 0), os.pread(descriptor, size_bytes, 0)
            for index in unsettled:
                parts[index] = before[_PART * index : _PART * (index + 1)]
            unsettled = [index for index in unsettled if not _is_same(before, after, index)]
            if not unsettled:
                break
        return parts
    except OSError:
        return []
    finally:
        os.close(descriptor)


def _is_same(before: bytes, after: bytes, index: int) -> bool:
    """Whether this part was not written between two readings."""
    at = _PART * index if index else _HEADER_VERSION
    version = before[at : at + _VERSION.size]
    return version[0] % 2 == 0 and version == after[at : at + _VERSION.size]


@lru_cache(maxsize=4096)  # the same names and ids are read again and again, as long as tasks run
def _text(raw: object) -> str:
    assert isinstance(raw, bytes)
    return one_line(raw.rstrip(b"\0").decode(errors="replace"))
