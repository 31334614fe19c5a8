"""What the server has not been told of finished tasks yet, in a small mapped file that outlives the process.

A process that is killed has finished tasks whose acknowledgement waits for the next turn, and before it, it may be, for
their results to be stored. The next process of the replica stores and sends what it finds here before it takes
anything, so that none of them runs again. Each part is written first and counted then: whatever moment a process is
killed in, what is counted is whole.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fleet.broker import holder_file
from fleet.broker.holder_file import HEADER_BYTES

_MAGIC, _MAGIC_WITHOUT_ENDS = b"FLTACK2\0", b"FLTACK1\0"
_COUNT = struct.Struct("<Q")
_TAG = struct.Struct("<Q")
_END = struct.Struct("<QI")
"""Tag, and bytes of the result that follow."""
MOST = 1024
"""Tags that there is room for; more are sent, but not kept."""
MOST_END_BYTES = 64 << 10
"""Room for results, 12 bytes more for each."""
_COUNT_AT = HEADER_BYTES
_TAGS_AT = _COUNT_AT + _COUNT.size
_USED_AT = _TAGS_AT + MOST * _TAG.size
_ENDS_AT = _USED_AT + _COUNT.size
_SIZE = _ENDS_AT + MOST_END_BYTES


class End(NamedTuple):
    """A task that is over: the tag of its message, and its result, as whoever stores it packs it."""

    tag: str
    result: bytes


class Left(NamedTuple):
    """What an earlier process left: its name as a holder, the tags it had not sent, the ends it had not settled."""

    holder: str
    tags: tuple[str, ...]
    ends: tuple[End, ...] = ()


class UnsentAcks:
    """The writer's side: one number per acknowledgement, then how many there are; results in an area of their own."""

    def __init__(self, path: Path, *, holder: str) -> None:
        """Make the file of this process, in the place of an earlier one. Raises OSError."""
        self._count = self._used = 0
        self._has_room = holder_file.fits(holder)
        self._map = holder_file.make(path, magic=_MAGIC, holder=holder, size=_SIZE)

    def add(self, tag: str) -> None:
        """This one is acknowledged here."""
        if self._count < MOST and self._has_room:
            _TAG.pack_into(self._map, _TAGS_AT + self._count * _TAG.size, int(tag))
            self._count += 1
            _COUNT.pack_into(self._map, _COUNT_AT, self._count)

    def replace(self, tags: Sequence[str]) -> None:
        """The server has been told of all but these."""
        self._count = 0
        _COUNT.pack_into(self._map, _COUNT_AT, 0)
        for tag in tags:
            self.add(tag)

    def add_end(self, tag: str, result: bytes) -> bool:
        """This one is over, and its result is to be stored before it is acknowledged. False: there is no room."""
        at = _ENDS_AT + self._used
        after = at + _END.size + len(result)
        if after > _SIZE or not self._has_room:
            return False
        _END.pack_into(self._map, at, int(tag), len(result))
        self._map[at + _END.size : after] = result
        self._used = after - _ENDS_AT
        _COUNT.pack_into(self._map, _USED_AT, self._used)
        return True

    def forget_ends(self) -> None:
        """The results of all of those are stored, and what is to be acknowledged of them is."""
        if self._used:
            self._used = 0
            _COUNT.pack_into(self._map, _USED_AT, 0)


def read_left(path: Path) -> Left | None:
    """What the process before left; None where there is no such file, or nothing in it."""
    try:
        data = path.read_bytes()
        magic = data[: len(_MAGIC)]
        (count,) = _COUNT.unpack_from(data, _COUNT_AT)
        tags = struct.unpack_from(f"<{count}Q", data, _TAGS_AT) if 0 < count <= MOST else ()
        ends = tuple(_ends(data)) if magic == _MAGIC else ()
    except (OSError, struct.error):
        return None
    if magic not in (_MAGIC, _MAGIC_WITHOUT_ENDS) or not (tags or ends):
        return None
    holder = holder_file.holder_of(data)
    return Left(holder, tuple(map(str, tags)), ends) if holder is not None else None


def _ends(data: bytes) -> Iterator[End]:
    """Raises struct.error where they are not whole."""
    (used,) = _COUNT.unpack_from(data, _USED_AT)
    at, until = _ENDS_AT, _ENDS_AT + used
    if until > len(data):
        raise struct.error("there is less than is counted")
    while at < until:
        tag, length = _END.unpack_from(data, at)
        at += _END.size
        if at + length > until:
            raise struct.error("an end is longer than what is left")
        yield End(str(tag), data[at : at + length])
        at += length
