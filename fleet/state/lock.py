"""The locks of a fleet: one command changes it at a time, and a command that waits is told which one holds it.

flock belongs to the open file, so the kernel frees it when its holder dies, however it dies. The text in the file is
for people and may be stale; it is used only while the lock is held.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from fleet.core.decode import decoded
from fleet.errors import FleetError, LockHeld
from fleet.file_access import SMALL_BYTES, make_folders, open_own, read_file
from fleet.replica.process_identity import is_stopped
from fleet.state.paths import Places

_POLL_SECONDS = 0.1
BRIEF_SECONDS = 15.0
"""How long every command waits for a holder that is ``brief``."""
_UNKNOWN_SECONDS = 1.0  # between taking the lock and writing who has it


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the lock. ``since`` is Unix time.  brief: it frees the lock within moments, as the controller does."""

    pid: int
    command: str
    user: str
    since: float
    brief: bool = False

    def __str__(self) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(self.since))
        return f"{self.user}'s `{self.command}` (pid {self.pid}, since {clock})"


class Lock:
    """Held from ``with`` to its end. ``wait_seconds``: how long to wait for another holder before LockHeld."""

    def __init__(
        self,
        places: Places,
        *,
        command: str = "",
        wait_seconds: float = 0.0,
        brief: bool = False,
        path: Path | None = None,
        taken: str = "is being changed by",
        hint: str = "",
    ) -> None:
        self._path = path or places.lock
        self._taken = taken
        self._hint = hint
        self._fleet = places.fleet
        self._command = command or _own_command()
        self._wait_seconds = wait_seconds
        self._brief = brief
        self._descriptor: int | None = None
        self._made: tuple[Path, ...] = ()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock or raise LockHeld with the holder's name."""
        while self._descriptor is None:
            made = _missing_folders(self._path.parent)
            descriptor = _open(self._path)
            try:
                self._take(descriptor)
                if not _is_still_at(descriptor, self._path):
                    os.close(descriptor)
                    continue
                with contextlib.suppress(OSError):  # it is for people only; a full disk must not keep anybody out
                    _write(descriptor, Holder(os.getpid(), self._command, _user(), time.time(), self._brief))
            except BaseException:
                os.close(descriptor)
                raise
            self._descriptor, self._made = descriptor, made

    def release(self) -> None:
        """Free the lock; does nothing when it is not held."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
                self._remove_unused()
            os.close(self._descriptor)
            self._descriptor = None

    def _remove_unused(self) -> None:
        """Remove a fleet's folder that holds nothing but the lock: a refused command leaves nothing."""
        run, root = self._path.parent, self._path.parent.parent
        if os.listdir(run) != [self._path.name] or os.listdir(root) != [run.name]:
            return
        self._path.unlink()
        for folder in dict.fromkeys((run, root, *self._made)):
            folder.rmdir()  # an OSError ends it: another process put a file there

    def _take(self, descriptor: int) -> None:
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() - began >= self._patience_seconds():
                    raise self._held() from None
            time.sleep(_POLL_SECONDS)

    def _patience_seconds(self) -> float:
        """How long to wait for the holder; two brief ones do not wait for each other."""
        if self._brief:
            return self._wait_seconds
        holder = _read(self._path)
        usual = _UNKNOWN_SECONDS if holder is None else BRIEF_SECONDS if holder.brief else 0.0
        return max(self._wait_seconds, usual)

    def _held(self) -> LockHeld:
        holder = _read(self._path)
        who = str(holder) if holder is not None else "another command"
        hint = "wait until it is done"
        if holder is not None and is_stopped(holder.pid):
            hint = f"it is stopped (SIGSTOP or Ctrl-Z): let it go on with `kill -CONT {holder.pid}`, or end it with"
            hint += f" `kill -9 {holder.pid}` and run your command again: it does the rest"
        elif holder is not None:
            hint += f"; if it hangs, end it with `kill {holder.pid}` and run your command again: it does the rest"
        return LockHeld(f"fleet {self._fleet!r} {self._taken} {who}", hint=self._hint or hint)


def holder(places: Places) -> Holder | None:
    """Who holds the lock now, or None. Does not take the lock."""
    return _read(places.lock) if is_held(places.lock) else None


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock of this file now."""
    try:
        descriptor = open_own(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _missing_folders(folder: Path) -> tuple[Path, ...]:
    """The folder and those above it that do not exist yet, the innermost first."""
    return tuple(itertools.takewhile(lambda one: not one.exists(), (folder, *folder.parents)))


def _is_still_at(descriptor: int, path: Path) -> bool:
    """False when an earlier holder has removed the file: a lock on a removed file protects nothing."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _open(path: Path, *, attempts: int = 50) -> int:
    try:
        make_folders(path.parent)
        return open_own(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        # Removed by its last holder between two of the calls; ``mkdir`` has then seen a folder that is there no more.
        if isinstance(error, FileNotFoundError | FileExistsError) and attempts > 1:
            return _open(path, attempts=attempts - 1)
        hint = "run as the user who owns the fleet, or set FLEET_HOME to a folder of your own"
        raise FleetError(f"cannot open {error.filename or path}: {error.strerror}", hint=hint) from error


def _write(descriptor: int, holder: Holder) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(holder)).encode(), 0)


def _read(path: Path) -> Holder | None:
    try:
        return decoded(Holder, json.loads(read_file(path, limit_bytes=SMALL_BYTES, own=True)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.geteuid())


def _own_command() -> str:
    return " ".join([Path(sys.argv[0] or "fleet").name, *sys.argv[1:]])
