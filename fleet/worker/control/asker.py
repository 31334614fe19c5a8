"""Which replica of a fleet on one machine asks workers elsewhere what is revoked: one does, for all.

Each answer costs whoever gives it and whoever reads it a millisecond, and a hundred replicas that start together would
ask and answer ten thousand times. The others read what the asker knows from its file of revoked ids. They may for as
long as it lives and listens, because it hears of whatever is revoked later.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleet.file_access import open_own
from fleet.replica.process_identity import lives, started_ticks

POLL_SECONDS = 0.05
_MARK_BYTES = 64


class Asker:
    """The file that names the asker, one for all replicas that share a folder, a broker and a namespace.

    Where it cannot be used each replica asks for itself.
    """

    def __init__(self, folder: Path | None, *, broker: str, namespace: str) -> None:
        """broker: where it is, without a password."""
        place = hashlib.sha256(f"{broker}\n{namespace}".encode()).hexdigest()[:16]
        self._path = None if folder is None else folder / f"{place}.asker"

    @contextmanager
    def turn(self, *, until: float, meanwhile: Callable[[], object]) -> Iterator[bool]:
        """Whether the caller is to ask now. It waits for another one that asks, ``until`` (monotonic) at most.

        Who leaves without an error is the asker from then on, unless it waited in vain.  meanwhile: called again
        and again while it waits; the asker may want its answer.
        """
        descriptor = self._opened(os.O_RDWR | os.O_CREAT)
        if descriptor is None:
            yield True
            return
        try:
            if not _locked(descriptor, until=until, meanwhile=meanwhile):
                yield True
            elif _asker_lives(descriptor):
                yield False
            else:
                yield True
                _write(descriptor, b"%d %d" % _self())
        finally:
            os.close(descriptor)

    def leave(self) -> None:
        """Who does not listen any more is the asker no longer. Never raises; nothing happens where another one is."""
        descriptor = self._opened(os.O_RDWR)
        if descriptor is None:
            return
        try:
            if _mark(descriptor) == _self():
                _write(descriptor, b"")
        finally:
            os.close(descriptor)

    def _opened(self, flags: int) -> int | None:
        if self._path is None:
            return None
        with suppress(OSError):
            return open_own(self._path, flags)
        return None


def _self() -> tuple[int, int]:
    pid = os.getpid()
    return pid, started_ticks(pid) or 0


def _locked(descriptor: int, *, until: float, meanwhile: Callable[[], object]) -> bool:
    """Whether this descriptor has the lock, which the kernel frees when its holder dies."""
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= until:
                return False
        else:
            return True
        meanwhile()
        time.sleep(POLL_SECONDS)


def _mark(descriptor: int) -> tuple[int, int]:
    """The pid of the asker and when it started; 0: nobody."""
    with suppress(OSError, ValueError):
        pid, ticks = os.pread(descriptor, _MARK_BYTES, 0).split()
        return int(pid), int(ticks)
    return 0, 0


def _asker_lives(descriptor: int) -> bool:
    return lives(*_mark(descriptor))


def _write(descriptor: int, mark: bytes) -> None:
    """A disk that is full leaves no asker."""
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, mark, 0)
