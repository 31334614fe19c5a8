"""Keeps the logs of a fleet within bounds while it runs; supervisord runs one of these per fleet.

``python -m fleet.backends.supervisor.log_keeper FOLDER`` looks at the sizes of all logs four times a second, and more
often while one of them grows so fast that it would be past its limit before the next look. While none of them grows it
waits until one is written to. A log over the limit is cut
(:mod:`fleet.replica.log_rotation`). One that fills its limit again and again within moments is a flood: it is cut
without being copied, and a line in it says how much was dropped, until it is calm again.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fleet.backends.supervisor.controller_watch import ControllerWatch
from fleet.backends.supervisor.folder_watch import FolderWatch
from fleet.errors import FleetError
from fleet.replica import log_rotation
from fleet.state.files import write_whole
from fleet.state.paths import Places

LOOK_SECONDS = 0.25
LEAST_SECONDS = 0.01
CALM_LOOK_SECONDS = 5.0
"""Between two looks while nothing is written: the controller is looked after as well."""
FLOOD_BYTES_PER_SECOND = 8 << 20
"""Above this a log is a flood. At this speed all that is kept of it would be gone within five seconds."""
CALM_SECONDS = 5.0
"""A flood is over after so long below that speed: a writer that waits for a processor for a moment is not calm."""
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Log:
    """One log between two looks. flood_began_at: 0 while it is calm.  dropped: bytes of the flood that nobody kept.

    flooded_at: when it was last above the speed of a flood.
    """

    size: int = 0
    speed: float = 0.0
    flood_began_at: float = 0.0
    flooded_at: float = 0.0
    dropped: int = 0


@dataclass(slots=True)
class LogKeeper:
    """The logs of one folder. now: Unix seconds."""

    folder: Path
    limit_bytes: int = log_rotation.LIMIT_BYTES
    now: Callable[[], float] = time.time
    _logs: dict[Path, _Log] = field(default_factory=dict)
    _looked_at: float = 0.0
    _totals: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._totals = log_rotation.dropped_bytes(self.folder)

    def look(self) -> float:
        """Look at every log, and cut what is too long. Returns the seconds until the next look."""
        now = self.now()
        elapsed = max(LEAST_SECONDS, now - self._looked_at) if self._looked_at else LOOK_SECONDS
        self._looked_at = now
        paths = set(self.folder.glob("*.*.log"))
        for gone in self._logs.keys() - paths:
            del self._logs[gone]
        pauses = []
        for path in paths:
            log = self._logs.get(path)
            if log is None:
                log = self._logs[path] = _Log(size=_size(path))
            with contextlib.suppress(OSError):
                self._look_at(path, log, elapsed, now)
            pauses.append(self._pause(log))
        return min(pauses, default=LOOK_SECONDS)

    @property
    def is_calm(self) -> bool:
        """Whether no log has grown between the last two looks, and none is a flood."""
        return not any(log.speed > 0 or log.flood_began_at for log in self._logs.values())

    def begin_again(self) -> None:
        """Until now no log has grown since the last look."""
        self._looked_at = self.now()

    def _look_at(self, path: Path, log: _Log, elapsed: float, now: float) -> None:
        size = path.stat().st_size
        grown = size - log.size if size >= log.size else size
        log.speed = grown / elapsed
        is_fast = log.speed > FLOOD_BYTES_PER_SECOND
        if is_fast:
            log.flooded_at = now
        if size > self.limit_bytes:
            if is_fast or log.flood_began_at:
                self._stop_flood(path, log, now)
            else:
                log_rotation.cut(path, limit_bytes=2 * self.limit_bytes)  # all of it, as calm as it is
        if log.flood_began_at and now - log.flooded_at >= CALM_SECONDS:
            self._end_flood(path, log, now)
        log.size = _size(path)

    def _stop_flood(self, path: Path, log: _Log, now: float) -> None:
        """The beginning of a flood is kept as any other log: it tells what floods."""
        if not log.flood_began_at:
            log.flood_began_at = now
            dropped = log_rotation.cut(path, limit_bytes=self.limit_bytes)
        else:
            dropped = log_rotation.empty(path)
        log.dropped += dropped
        self._note(path, dropped)
        _say(path, now, "flood: it is written faster than it can be kept; what follows is dropped until it is calm")

    def _note(self, path: Path, dropped: int) -> None:
        """Keep the sum for those who count. A full disk is no reason to stop cutting."""
        self._totals[path.stem] = self._totals.get(path.stem, 0) + dropped
        with contextlib.suppress(FleetError):
            write_whole(log_rotation.dropped_file(self.folder), json.dumps(self._totals), lasting=False)

    def _end_flood(self, path: Path, log: _Log, now: float) -> None:
        seconds = log.flooded_at - log.flood_began_at
        _say(path, now, f"flood: over after {seconds:.1f} s; {log.dropped / (1 << 20):.0f} MiB were dropped")
        log.flood_began_at, log.dropped = 0.0, 0

    def _pause(self, log: _Log) -> float:
        """Until it would reach its limit at the speed it has."""
        room = max(0, self.limit_bytes - log.size)
        return LOOK_SECONDS if log.speed <= 0 else min(LOOK_SECONDS, max(LEAST_SECONDS, room / log.speed))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _say(path: Path, now: float, text: str) -> None:
    """One line in the log itself, where people look for what is missing."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S%z", time.localtime(now))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{stamp} fleet.logs {path.stem}: {text}\n".encode())
    finally:
        os.close(descriptor)


def _is_supervisord(pid: int, folder: Path) -> bool:
    try:
        command_line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(Places(folder.parent).supervisord_conf) in command_line.split(b"\0")


def main(folder: Path) -> None:
    """For as long as supervisord lives. Every fleet has one of these, so it watches the controller, too."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if not _is_supervisord(parent, folder):  # it died before this process could be told
        return
    keeper, controller, watch = LogKeeper(folder), ControllerWatch(Places(folder.parent)), _watch(folder)
    while os.getppid() == parent:
        controller.look()
        pause(keeper, watch)


def pause(keeper: LogKeeper, watch: FolderWatch | None) -> None:
    """Look, and wait until the next look is due. watch: None where the kernel does not tell of writes."""
    if watch is None:
        time.sleep(keeper.look())
        return
    watch.forget()  # before the sizes are read: what is written afterwards is told
    seconds = keeper.look()
    if not keeper.is_calm:
        time.sleep(seconds)
    elif watch.wait(CALM_LOOK_SECONDS):
        keeper.begin_again()
        time.sleep(seconds)


def _watch(folder: Path) -> FolderWatch | None:
    with contextlib.suppress(OSError):
        return FolderWatch(folder)
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
