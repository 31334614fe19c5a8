"""Tags whose tasks a slot's own process has finished, in a small file that outlives the worker and its slots.

A slot's process may end several short tasks before the worker, killed in between, has read that they are over. So each
notes the tag of its message when the task has succeeded and its result is stored; the next process of the replica
acknowledges these before it takes anything. Nobody takes a note back: the server has forgotten a tag that was
acknowledged, or given back, and no tag is used twice.

A tag has its place by its number. Tags are given in a row, so two that are in hand at once have different places as
long as there are fewer of them than places; and the processes of all slots write without knowing of each other.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from fleet.file_access import open_own

_MAGIC = b"FLTEND1\0"
_HEADER = struct.Struct("<8sI500s")
_TAG = struct.Struct("<Q")
PLACES = 4096
_SIZE = _HEADER.size + PLACES * _TAG.size


class FinishedTags:
    """Writes tags into the file at ``path``, which the worker makes when it connects, before it takes a message.

    The file is mapped and not written to: a task may close every descriptor, and open its own under the same number.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map: mmap.mmap | None = None

    def note(self, tag: int) -> None:
        """The task of this message has succeeded. Does nothing where there is no file: then it may run again."""
        if self._map is None:
            try:
                with self._path.open("r+b") as file:
                    self._map = mmap.mmap(file.fileno(), _SIZE)
            except (OSError, ValueError):  # it is not there, or shorter
                return
        _TAG.pack_into(self._map, _HEADER.size + tag % PLACES * _TAG.size, tag)


def begin(path: Path, *, holder: str) -> None:
    """Make the file of this process, in the place of an earlier one. Raises OSError."""
    name = holder.encode()
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(open_own(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC), "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, _SIZE)
        if len(name) <= 500:  # tags under half a name would be nobody's
            file.write(_HEADER.pack(_MAGIC, len(name), name))
    os.replace(fresh, path)


def read(path: Path) -> tuple[str, tuple[str, ...]] | None:
    """The holder that an earlier process was and the tags that are noted, in order; None where there are none."""
    try:
        data = path.read_bytes()
        magic, length, name = _HEADER.unpack_from(data)
        tags = sorted(filter(None, struct.unpack_from(f"<{PLACES}Q", data, _HEADER.size)))
        holder = name[:length].decode()
    except (OSError, struct.error, UnicodeDecodeError):
        return None
    return (holder, tuple(map(str, tags))) if magic == _MAGIC and tags else None
