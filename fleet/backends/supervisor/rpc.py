"""All XML-RPC calls to supervisord.

The protocol is plain XML-RPC over HTTP on a unix socket, so the standard library speaks it; ``supervisor.xmlrpc`` would
import the whole HTTP server for the same twenty lines. Every call has a timeout, a failed connection gives a new proxy
(a closed one keeps failing), and every fault is raised as an error of fleet's with a hint.
"""

from __future__ import annotations

import http.client
import json
import socket
import xmlrpc.client
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar
from xml.parsers.expat import ExpatError

from fleet.core.text.format import shown
from fleet.errors import FleetError, Unreachable

T = TypeVar("T")


class Fault(IntEnum):
    """supervisord's fault codes that fleet understands."""

    UNKNOWN_METHOD = 1
    SHUTDOWN_STATE = 6
    BAD_NAME = 10
    FAILED = 30
    SPAWN_ERROR = 50
    ALREADY_STARTED = 60
    NOT_RUNNING = 70
    ALREADY_ADDED = 90
    STILL_RUNNING = 91
    CANT_REREAD = 92


class ProcessState(IntEnum):
    """supervisord's process states."""

    STOPPED = 0
    STARTING = 10
    RUNNING = 20
    BACKOFF = 30
    STOPPING = 40
    EXITED = 100
    FATAL = 200
    UNKNOWN = 1000


LIVE_STATES = frozenset({ProcessState.STARTING, ProcessState.RUNNING, ProcessState.BACKOFF})
STOPPED_STATES = frozenset({ProcessState.STOPPED, ProcessState.EXITED, ProcessState.FATAL, ProcessState.UNKNOWN})


class DaemonDown(Unreachable):
    """Nobody listens on supervisord's socket."""


class DaemonLeaves(Unreachable):
    """supervisord is shutting down and takes no calls any more."""


class Refusal(FleetError):
    """supervisord refused a call. ``code`` is its fault code."""

    def __init__(self, message: str, *, code: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


@dataclass(frozen=True, slots=True)
class Process:
    """One line of supervisord's process list. ``started_at`` is Unix time in whole seconds."""

    group: str
    name: str
    state: ProcessState
    pid: int
    started_at: int
    exit_status: int
    note: str

    @property
    def full_name(self) -> str:
        """``group:process``, how calls address it."""
        return f"{self.group}:{self.name}"


@dataclass(frozen=True, slots=True)
class Changes:
    """What ``reloadConfig`` found different between the files and what runs: names of programs."""

    added: frozenset[str]
    changed: frozenset[str]
    removed: frozenset[str]


class SupervisorRpc:
    """supervisord behind its unix socket."""

    def __init__(self, path: Path, *, timeout_seconds: float) -> None:
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._proxy: xmlrpc.client.ServerProxy | None = None
        self._lists = self._lists_changes = True
        self._known: tuple[str, tuple[Process, ...]] = ("", ())

    def processes(self) -> tuple[Process, ...]:
        """Everything the daemon runs or has stopped, foreign programs included.

        A daemon of an earlier version notices ended processes between two calls, and else once a second; its first
        answer may be that old, so it is called twice.
        """
        if (found := self._changed()) is not None:
            return found
        self.ping()
        if (listed := self._listed()) is not None:
            return listed
        every: tuple[Process, ...] = self._call(
            lambda proxy: tuple(_process(row) for row in proxy.supervisor.getAllProcessInfo())
        )
        return every

    def _changed(self) -> tuple[Process, ...] | None:
        """By fleet's own call, which gives nothing but its mark for a list that is known; None for a daemon without it.

        Whether it is there is asked again with each connection: the next daemon could be another version's.
        """
        if not self._lists_changes:
            return None
        try:
            self._known = self._call(
                lambda proxy: _list_of(json.loads(proxy.fleet.listChangedProcesses(self._known[0])), self._known)
            )
        except Refusal as refusal:
            if refusal.code != Fault.UNKNOWN_METHOD:
                raise
            self._lists_changes = False
            return None
        return self._known[1]

    def _listed(self) -> tuple[Process, ...] | None:
        """By fleet's earlier call, which costs both sides a tenth; None for a daemon that was started before that."""
        if not self._lists:
            return None
        try:
            found: tuple[Process, ...] = self._call(lambda proxy: _processes(json.loads(proxy.fleet.listProcesses())))
        except Refusal as refusal:
            if refusal.code != Fault.UNKNOWN_METHOD:
                raise
            self._lists = False
            return None
        return found

    def reload(self) -> Changes:
        """Read the files again. Changes no process, and changes nothing at all when a file is broken."""
        found: Changes = self._call(lambda proxy: _changes(proxy.supervisor.reloadConfig()))
        return found

    def add(self, names: Sequence[str]) -> None:
        """Add programs that were read; supervisord starts them by itself."""
        self._many("addProcessGroup", [(name,) for name in names], forgiven={Fault.ALREADY_ADDED})

    def remove(self, names: Sequence[str]) -> None:
        """Remove stopped programs."""
        self._many("removeProcessGroup", [(name,) for name in names], forgiven={Fault.BAD_NAME})

    def start(self, names: Sequence[str]) -> None:
        """Start processes (full names) without waiting."""
        self._many("startProcess", [(name, False) for name in names], forgiven={Fault.ALREADY_STARTED})

    def start_image(self, document: Path, *, digest: str) -> bool:
        """Start the image that the replica of this launch document is of. False: the daemon is of a version without
        images, or cannot start it."""
        try:
            return bool(self._call(lambda proxy: proxy.fleet.startImage(str(document), digest)))
        except Refusal:
            return False

    def stop(self, names: Sequence[str]) -> None:
        """Signal processes (full names) to stop, all in one call and without waiting."""
        self._many("stopProcess", [(name, False) for name in names], forgiven={Fault.NOT_RUNNING, Fault.BAD_NAME})

    def pid(self) -> int:
        """The daemon's pid."""
        found: int = self._call(lambda proxy: int(proxy.supervisor.getPID()))
        return found

    def ping(self) -> None:
        """Return if the daemon takes calls, else raise the error that says why not."""
        self._call(lambda proxy: proxy.supervisor.getState())

    def answers(self) -> bool:
        """Whether the daemon takes calls."""
        try:
            self.ping()
        except Unreachable:
            return False
        return True

    def shutdown(self) -> None:
        """Ask the daemon to end itself."""
        self._call(lambda proxy: proxy.supervisor.shutdown())

    def close(self) -> None:
        """Close the connection."""
        if self._proxy is not None:
            self._proxy("close")()
            self._proxy = None
            self._lists = self._lists_changes = True
            self._known = ("", ())

    def _many(self, method: str, calls: Iterable[tuple[Any, ...]], *, forgiven: set[Fault]) -> None:
        """One multicall; after all calls were made, raise the first fault that is not in ``forgiven``."""
        batch = [{"methodName": f"supervisor.{method}", "params": list(params)} for params in calls]
        if not batch:
            return
        results: list[tuple[int, str] | None] = self._call(
            lambda proxy: [_fault(one) for one in proxy.system.multicall(batch)]
        )
        for call, fault in zip(batch, results, strict=False):
            if fault is not None and fault[0] not in forgiven:
                raise _refusal(fault[0], f"{method} {call['params'][0]}: {fault[1]}", self._path)

    def _call(self, ask: Callable[[Any], Any]) -> Any:
        """What ``ask`` makes of the answer. Raises FleetError for one of another shape, too."""
        try:
            return ask(self._connected())
        except xmlrpc.client.Fault as fault:
            raise _refusal(fault.faultCode, fault.faultString, self._path) from fault
        except (FileNotFoundError, ConnectionRefusedError) as error:
            self.close()
            raise DaemonDown(f"supervisord does not run: nobody listens on {self._path}", hint=_UP) from error
        except TimeoutError as error:
            self.close()
            message = f"supervisord did not answer within {self._timeout_seconds:g} s on {self._path}"
            raise Unreachable(message, hint="raise FLEET_RPC_TIMEOUT_SECONDS, or run `fleet doctor`") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"supervisord on {self._path}: {error or type(error).__name__}", hint=_UP) from error
        except (xmlrpc.client.Error, ExpatError) as error:
            self.close()
            said = (
                f"HTTP {error.errcode} {error.errmsg}" if isinstance(error, xmlrpc.client.ProtocolError) else str(error)
            )
            hint = "its log says why: log/supervisord.log in the fleet's folder"
            raise FleetError(f"supervisord on {self._path} failed inside: {said}", hint=hint) from error
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            self.close()
            message = f"supervisord on {self._path} gave an answer that makes no sense: {shown(error)}"
            raise FleetError(message, hint="`fleet doctor` looks for what is wrong") from error

    def _connected(self) -> xmlrpc.client.ServerProxy:
        if self._proxy is None:
            transport = _UnixTransport(self._path, self._timeout_seconds)
            self._proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport)
        return self._proxy


_UP = "`fleet apply` starts it; `fleet doctor` looks for what is wrong"
_HINTS = {
    Fault.SHUTDOWN_STATE: "supervisord is shutting down: run the command again when it is gone",
    Fault.CANT_REREAD: "a file in conf.d is broken: correct or remove the one named above; nothing was changed",
    Fault.STILL_RUNNING: "it has not stopped yet: stop it first",
    Fault.SPAWN_ERROR: "log/supervisord.log in the fleet's folder says why",
}


def _refusal(code: int, text: str, path: Path) -> FleetError:
    if code == Fault.SHUTDOWN_STATE:
        return DaemonLeaves(f"supervisord on {path} is shutting down", hint=_HINTS[Fault.SHUTDOWN_STATE])
    hint = next((hint for fault, hint in _HINTS.items() if fault == code), "")
    return Refusal(f"supervisord refused: {text}", code=code, hint=hint)


def _changes(answer: Any) -> Changes:
    ((added, changed, removed),) = answer
    return Changes(frozenset(added), frozenset(changed), frozenset(removed))


def _fault(result: Any) -> tuple[int, str] | None:
    """The code and text of a call in a batch that failed."""
    return (int(result["faultCode"]), str(result["faultString"])) if isinstance(result, dict) else None


def _list_of(answer: Any, known: tuple[str, tuple[Process, ...]]) -> tuple[str, tuple[Process, ...]]:
    """The list with its mark; an answer without one: it is the known list."""
    mark, rows = answer
    if rows is None and mark != known[0]:
        raise ValueError("no list, and not the one that is known")
    return known if rows is None else (str(mark), _processes(rows))


def _processes(rows: Any) -> tuple[Process, ...]:
    return tuple(_process_of(*row) for row in rows)


def _process(row: dict[str, Any]) -> Process:
    keys = ("group", "name", "state", "pid", "start", "exitstatus", "spawnerr")
    return _process_of(*(row[key] for key in keys))


def _process_of(group: Any, name: Any, state: Any, pid: Any, start: Any, exit_status: Any, note: Any) -> Process:
    return Process(
        group=group,
        name=name,
        state=_STATES.get(state, ProcessState.UNKNOWN),
        pid=int(pid),
        started_at=int(start),
        exit_status=int(exit_status),
        note=str(note),
    )


_STATES = {int(state): state for state in ProcessState}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("localhost", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(str(self._path))
        except OSError:
            self.sock.close()
            raise


class _UnixTransport(xmlrpc.client.Transport):
    """Keeps one connection; the base class asks once more when the daemon closed it between two calls."""

    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__()
        self._path = path
        self._timeout_seconds = timeout_seconds
        self._connection: tuple[Any, Any] = (None, None)

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        if self._connection[1] is None:
            self._connection = host, _UnixConnection(self._path, self._timeout_seconds)
        connection: http.client.HTTPConnection = self._connection[1]
        return connection
