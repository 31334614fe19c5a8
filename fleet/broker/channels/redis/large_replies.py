"""Large values read from a connection's socket straight into the memory that they stay in.

redis-py gathers what it receives in a growing buffer and cuts values out of it: each byte is copied several times.
"""

from __future__ import annotations

from typing import Any

import redis
from redis.exceptions import InvalidResponse, ResponseError

_AT_ONCE = 4096
_LONGEST_LINE = 1 << 16


class ReplyReader:
    """Reads replies of RESP2: None, int, bytes, bytearray (a bulk string), ResponseError (not raised), or a list.

    sock: of a connection on which nothing but these replies comes, and whose own buffer is empty.
    """

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._ahead = b""

    def read(self) -> Any:
        """Wait for the next reply. Raises OSError, redis.ConnectionError where the server closes the connection."""
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return self._bulk(int(rest))
        if kind == b"*":
            return [self.read() for _ in range(int(rest))] if int(rest) >= 0 else None
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest
        if kind == b"-":
            return ResponseError(rest.decode(errors="replace"))
        raise InvalidResponse(f"a reply that begins with {kind!r}")

    def _line(self) -> bytes:
        while (end := self._ahead.find(b"\r\n")) < 0:
            if len(self._ahead) > _LONGEST_LINE:
                raise InvalidResponse("a line that does not end")
            self._ahead += self._received(_AT_ONCE)
        line, self._ahead = self._ahead[:end], self._ahead[end + 2 :]
        return line

    def _bulk(self, length: int) -> bytearray | None:
        if length < 0:
            return None
        whole = bytearray(length + 2)
        begun = min(len(self._ahead), len(whole))
        whole[:begun] = self._ahead[:begun]
        self._ahead = self._ahead[begun:]
        with memoryview(whole) as view:
            while begun < len(whole):
                begun += self._received_into(view[begun:])
        del whole[length:]
        return whole

    def _received(self, most: int) -> bytes:
        data: bytes = self._sock.recv(most)
        if not data:
            raise redis.ConnectionError("the server has closed the connection")
        return data

    def _received_into(self, view: memoryview) -> int:
        count = int(self._sock.recv_into(view))
        if not count:
            raise redis.ConnectionError("the server has closed the connection")
        return count
