"""Tags whose tasks a slot's own process has finished, in a small file that outlives the worker and its slots.

A slot's process may end several short tasks before the worker, killed in between, has read that they are over. So each
notes the tag of its message when the task has succeeded, with the result where that is still to be stored; the next
process of the replica stores and acknowledges these before it takes anything. Nobody takes a note back: the server has
forgotten a tag that was acknowledged, or given back, and no tag is used twice.

A tag has its place by its number. Tags are given in a row, so two that are in hand at once have different places as
long as there are fewer of them than places; and the processes of all slots write without knowing of each other.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from fleet.broker import holder_file
from fleet.broker.holder_file import HEADER_BYTES
from fleet.file_access import KEPT_BYTES, read_file

_MAGIC = b"FLTEND2\0"
_TAG = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
PLACES = 1024
PLACE_BYTES = 512
MOST_RESULT_BYTES = PLACE_BYTES - _TAG.size - _LENGTH.size
_SIZE = HEADER_BYTES + PLACES * PLACE_BYTES


class FinishedTags:
    """Writes tags into the file at ``path``, which the worker makes when it connects, before it takes a message.

    The file is mapped and not written to: a task may close every descriptor, and open its own under the same number.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None

    def note(self, tag: int, result: bytes = b"") -> None:
        """The task of this message has succeeded. result: as whoever stores it packs it; empty: it is stored.

        Does nothing where there is no file, and for a longer result than there is room for: then it may run again.
        """
        if len(result) > MOST_RESULT_BYTES:
            return
        if self._map is None:
            try:
                with self._path.open("r+b") as file:
                    self._map = mmap.mmap(file.fileno(), _SIZE)
            except (OSError, ValueError):  # it is not there, or shorter
                return
        at = HEADER_BYTES + tag % PLACES * PLACE_BYTES
        _TAG.pack_into(self._map, at, 0)  # a process that is killed here has noted nothing
        _LENGTH.pack_into(self._map, at + _TAG.size, len(result))
        begin = at + _TAG.size + _LENGTH.size
        self._map[begin : begin + len(result)] = result
        _TAG.pack_into(self._map, at, tag)


def begin(path: Path, *, holder: str) -> None:
    """Make the file of this process, in the place of an earlier one. Raises OSError."""
    holder_file.make(path, magic=_MAGIC, holder=holder, size=_SIZE).close()


def read(path: Path) -> tuple[str, dict[str, bytes]] | None:
    """The holder that an earlier process was, and in order each tag with its result; None where nothing is noted."""
    try:
        data = read_file(path, limit_bytes=KEPT_BYTES, own=True)
        found = dict(sorted(_notes(data))) if data.startswith(_MAGIC) else {}
    except (OSError, struct.error):
        return None
    holder = holder_file.holder_of(data)
    return (holder, {str(tag): result for tag, result in found.items()}) if found and holder is not None else None


def _notes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Raises struct.error where they are not whole."""
    for at in range(HEADER_BYTES, _SIZE, PLACE_BYTES):
        (tag,) = _TAG.unpack_from(data, at)
        (length,) = _LENGTH.unpack_from(data, at + _TAG.size)
        if tag and length <= MOST_RESULT_BYTES:
            begin = at + _TAG.size + _LENGTH.size
            yield tag, data[begin : begin + length]
