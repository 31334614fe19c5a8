"""Reads one record again and again: what has not changed is neither read twice nor decoded."""

from __future__ import annotations

import os
from pathlib import Path

from fleet.replica.record import RecordView, are_at_rest, settled_parts, view_of

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class RecordReader:
    """Of the file at ``path``, whichever that is at the moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._name = os.fspath(path)
        self._known = b""
        self._view: RecordView | None = None

    def read(self) -> RecordView | None:
        """As :func:`fleet.replica.record.read`; the same object while the file holds the same.

        Each part has a counter that every change raises, so equal bytes are one and the same moment.
        """
        if self._known and _head(self._name, len(self._known) + 1) == self._known:
            return self._view
        parts = settled_parts(self._path)
        self._view = view_of(parts)
        self._known = b"".join(parts) if self._view is not None and are_at_rest(parts) else b""
        return self._view


def _head(name: str, limit_bytes: int) -> bytes:
    """The first bytes of a file; none where it cannot be read."""
    try:
        descriptor = os.open(name, _FLAGS)
    except OSError:
        return b""
    try:
        return os.read(descriptor, limit_bytes)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
