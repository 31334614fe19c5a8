"""The journal of systemd: each line of a worker as an entry with fields, by journald's own protocol.

An entry is one datagram to a socket of this machine; one that is too long for that is handed over in a sealed file of
memory. Nothing waits: where the journal cannot take an entry at once, or is not there, the line goes to the replica's
log, so that none is lost and no worker hangs for a reader.
"""

from __future__ import annotations

import array
import errno
import fcntl
import logging
import os
import socket
import struct
import threading

SOCKET = "/run/systemd/journal/socket"
_ADD_SEALS, _ALL_SEALS = 1033, 0xF
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7
_TOO_LONG = frozenset({errno.EMSGSIZE, errno.ENOBUFS})


class Journal(logging.Handler):
    """Writes to the journal. fleet, replica: of this worker.  otherwise: the handler for what the journal cannot take;
    also: it gets every line."""

    def __init__(
        self, *, fleet: str, replica: str, otherwise: logging.Handler, also: bool = False, path: str = SOCKET
    ) -> None:
        super().__init__()
        self._own = {"SYSLOG_IDENTIFIER": f"fleet/{replica}", "FLEET": fleet, "FLEET_REPLICA": replica}
        self._own["FLEET_GROUP"] = replica.rpartition(".")[0]
        self._otherwise = otherwise
        self._also = also
        self._path = path
        self._socket: socket.socket | None = None
        os.register_at_fork(after_in_child=self._forget)

    def emit(self, record: logging.LogRecord) -> None:
        """Send it; never raises."""
        try:
            self._send(datagram(self._fields(record)))
        except Exception:  # whatever it is: a line is worth more than its way
            self._forget()
            self._otherwise.handle(record)
            return
        if self._also:
            self._otherwise.handle(record)

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        fields = {
            "MESSAGE": record.getMessage(),
            "PRIORITY": str(priority(record.levelno)),
            **self._own,
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
            "THREAD_NAME": record.threadName or threading.current_thread().name,
        }
        if record.exc_info:
            fields["EXCEPTION"] = logging.Formatter().formatException(record.exc_info)
        return fields

    def _send(self, data: bytes) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in _TOO_LONG:
                raise
            self._send_file(self._socket, data)

    def _send_file(self, door: socket.socket, data: bytes) -> None:
        file = os.memfd_create("fleet-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            fcntl.fcntl(file, _ADD_SEALS, _ALL_SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))
            door.sendmsg([], [rights], 0, self._path)
        finally:
            os.close(file)

    def _forget(self) -> None:
        """A socket of its own for each process; and a new one after an error, as a task may have closed it."""
        old, self._socket = self._socket, None
        if old is not None:
            try:
                old.close()
            except OSError:
                return


def datagram(fields: dict[str, str]) -> bytes:
    """The fields as journald reads them: ``NAME=value``, or with a length where the value has several lines."""
    return b"".join(_field(name, value.encode(errors="backslashreplace")) for name, value in fields.items())


def _field(name: str, value: bytes) -> bytes:
    if b"\n" not in value:
        return b"%b=%b\n" % (name.encode(), value)
    return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(value)), value)


def priority(level: int) -> int:
    """A level of logging as syslog counts: 2 critical … 7 debug."""
    return next((number for least, number in _PRIORITIES if level >= least), _DEBUG)
