"""Waits until a file in a folder is written to: the kernel tells (inotify), so nobody has to look again and again."""

from __future__ import annotations

import ctypes
import os
import select
from pathlib import Path

_IN_MODIFY, _IN_MOVED_TO, _IN_CREATE = 0x2, 0x80, 0x100
_READ_BYTES = 1 << 16


class FolderWatch:
    """Of one folder, not of those in it. Raises OSError where the kernel watches nothing more for this user."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(folder), _WRITTEN) < 0:
            number = ctypes.get_errno()
            self.close()
            raise OSError(number, os.strerror(number), str(folder))
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """Wait for so long at most; whether something was written, since the last call or while this one waited."""
        if not self._poll.poll(seconds * 1000):
            return False
        os.read(self._fd, _READ_BYTES)
        return True

    def forget(self) -> None:
        """What was written until now is known."""
        while self._poll.poll(0):
            os.read(self._fd, _READ_BYTES)

    def close(self) -> None:
        """Watch no more."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


_WRITTEN = _IN_MODIFY | _IN_MOVED_TO | _IN_CREATE
