"""How tasks get to a child: packets that are read whole, by the child or by the parent that takes them back.

A task is one packet, a large one several. Both sides can read them, and the kernel gives each packet to one of them:
a task that the parent has read again was not begun and never will be by that child, whatever the child is doing, also
when it is stopped or dead; one that is no longer there has been begun.
"""

from __future__ import annotations

import socket

from pools.prefork.protocol import TASK_HEAD

PACKET_BYTES = 32 * 1024
"""The longest body of one packet. A longer task is sent to a child that has nothing else to do."""

_HEAD_BYTES = TASK_HEAD.size


def make_task_sockets() -> tuple[socket.socket, socket.socket]:
    """The writing and the reading end. Packets keep their bounds and their order."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class TaskPipe:
    """The parent's side: never blocks. ``pending``: of the last task, packets are still to be sent."""

    __slots__ = ("_left", "_number", "_read_end", "_write_end")

    def __init__(self, write_end: socket.socket, read_end: socket.socket) -> None:
        self._write_end = write_end
        self._read_end = read_end
        self._left: list[bytes] = []
        self._number = 0

    @property
    def pending(self) -> bool:
        """Whether something is left to send."""
        return bool(self._left)

    def send(self, number: int, body: bytes) -> bool:
        """Begin to send a task to a child that has none; whether everything is sent. OSError: it was hung up."""
        if len(body) <= PACKET_BYTES and self.send_behind(number, body):
            return True
        self._number = number
        chunks = [body[start : start + PACKET_BYTES] for start in range(0, len(body), PACKET_BYTES)]
        self._left = [TASK_HEAD.pack(0 if at else len(body), number) + chunk for at, chunk in enumerate(chunks)]
        return self.flush()

    def send_behind(self, number: int, body: bytes) -> bool:
        """Send a task that fits in one packet, behind others; False when there is no room for it."""
        try:
            self._write_end.send(TASK_HEAD.pack(len(body), number) + body)
        except BlockingIOError:
            return False
        return True

    def flush(self) -> bool:
        """Continue to send; whether everything is sent. OSError: it was hung up."""
        left = self._left
        try:
            while left:
                self._write_end.send(left[0])
                del left[0]
        except BlockingIOError:
            return False
        return True

    def take_back(self) -> set[int]:
        """Read all that the child has not read; the numbers of these tasks, which it will not begin.

        A large task must not be on its way to a child that lives: it would get a part of it.
        """
        numbers = {self._number} if self._left else set[int]()
        self._left.clear()
        while True:
            try:
                head = self._read_end.recv(_HEAD_BYTES, socket.MSG_DONTWAIT)
            except OSError:  # nothing is left, or the pipe is closed
                return numbers
            if not head:
                return numbers
            numbers.add(TASK_HEAD.unpack(head)[1])


class TaskReader:
    """The child's side: blocks."""

    def __init__(self, read_end: socket.socket) -> None:
        self._read_end = read_end
        self._packet = bytearray(_HEAD_BYTES + PACKET_BYTES)
        self._view = memoryview(self._packet)

    def read(self) -> tuple[int, memoryview] | None:
        """Wait for the next task: its job number and body, good until the next call. None: the parent hung up."""
        got = self._read_end.recv_into(self._packet)
        if not got:
            return None
        length, number = TASK_HEAD.unpack_from(self._packet)
        if length <= PACKET_BYTES:
            return number, self._view[_HEAD_BYTES:got]
        return self._read_large(number, length, got)

    def _read_large(self, number: int, length: int, got: int) -> tuple[int, memoryview] | None:
        body = memoryview(bytearray(length))
        at = got - _HEAD_BYTES
        body[:at] = self._view[_HEAD_BYTES:got]
        while at < length:
            got = self._read_end.recv_into(self._packet)
            if not got:
                return None
            body[at : at + got - _HEAD_BYTES] = self._view[_HEAD_BYTES:got]
            at += got - _HEAD_BYTES
        return number, body
