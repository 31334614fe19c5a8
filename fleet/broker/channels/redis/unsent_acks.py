"""Acknowledgements that the server has not been told yet, in a small mapped file that outlives the process.

A process that is killed has finished tasks whose acknowledgement waits for the next turn. The next process of the
replica sends what it finds here before it takes anything, so that none of them runs again.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_MAGIC = b"FLTACK1\0"
_HEADER = struct.Struct("<8sI500s")
_COUNT = struct.Struct("<Q")
_TAG = struct.Struct("<Q")
_COUNT_AT = _HEADER.size
_TAGS_AT = _COUNT_AT + _COUNT.size
MOST = 1024
"""Tags that there is room for; more are sent, but not kept."""


class Left(NamedTuple):
    """What an earlier process left: its name as a holder, and the tags it had not sent."""

    holder: str
    tags: tuple[str, ...]


class UnsentAcks:
    """The writer's side: one number per acknowledgement, then how many there are."""

    def __init__(self, path: Path, *, holder: str) -> None:
        """Make the file of this process, in the place of an earlier one. Raises OSError."""
        name = holder.encode()
        self._count = 0
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        with open(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "r+b") as file:
            file.truncate(_TAGS_AT + MOST * _TAG.size)
            self._map = mmap.mmap(file.fileno(), 0)
        # A name that has no room keeps nothing: tags under half a name would be nobody's.
        self._most = MOST if len(name) <= 500 else 0
        _HEADER.pack_into(self._map, 0, _MAGIC, len(name), name[:500])
        os.replace(fresh, path)

    def add(self, tag: str) -> None:
        """This one is acknowledged here."""
        if self._count < self._most:
            _TAG.pack_into(self._map, _TAGS_AT + self._count * _TAG.size, int(tag))
            self._count += 1
            _COUNT.pack_into(self._map, _COUNT_AT, self._count)

    def replace(self, tags: Sequence[str]) -> None:
        """The server has been told of all but these."""
        self._count = 0
        _COUNT.pack_into(self._map, _COUNT_AT, 0)
        for tag in tags:
            self.add(tag)


def read_left(path: Path) -> Left | None:
    """What the process before left; None where there is no such file, or nothing in it."""
    try:
        data = path.read_bytes()
        magic, length, name = _HEADER.unpack_from(data, 0)
        (count,) = _COUNT.unpack_from(data, _COUNT_AT)
        tags = struct.unpack_from(f"<{count}Q", data, _TAGS_AT) if 0 < count <= MOST else ()
    except (OSError, struct.error):
        return None
    if magic != _MAGIC or not tags:
        return None
    with suppress(UnicodeDecodeError):
        return Left(name[:length].decode(), tuple(map(str, tags)))
    return None
