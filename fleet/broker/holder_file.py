"""Files that outlive a process of a replica: who it was as a holder of messages, then what it keeps for the next."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from fleet.file_access import open_own

_HEADER = struct.Struct("<8sI500s")
_MOST_NAME_BYTES = 500
HEADER_BYTES = _HEADER.size


def fits(holder: str) -> bool:
    """Whether there is room for its name. Without it nothing is kept: tags under half a name would be nobody's."""
    return len(holder.encode()) <= _MOST_NAME_BYTES


def make(path: Path, *, magic: bytes, holder: str, size: int) -> mmap.mmap:
    """Make the file of this process, in the place of an earlier one; its ``size`` bytes. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with open(open_own(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC), "r+b") as file:
        # A mapped file that gets no space when it is written to would end that process.
        os.posix_fallocate(file.fileno(), 0, size)
        mapped = mmap.mmap(file.fileno(), size)
    if fits(holder):
        name = holder.encode()
        _HEADER.pack_into(mapped, 0, magic, len(name), name)
    os.replace(fresh, path)
    return mapped


def holder_of(data: bytes) -> str | None:
    """The holder that the process was which made a file with these bytes; None where it does not say."""
    try:
        _, length, name = _HEADER.unpack_from(data)
        return bytes(name[:length]).decode()
    except (struct.error, UnicodeDecodeError):
        return None
