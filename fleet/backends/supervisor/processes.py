"""The processes of this machine from /proc: their parents, memory and marks.

The launcher marks a replica with ``FLEET_SPEC`` and ``FLEET_PID`` in its environment, and children inherit both. A
process whose own pid is in ``FLEET_PID`` is therefore the main process of a replica, whatever its command line says.
One pass over /proc reads one small file per process; environments are read only of those that are not below a
supervised replica.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

from fleet.core.observed import Stray
from fleet.replica.process_identity import is_stopped
from fleet.state.paths import Places

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")
_CHUNK_BYTES = 1 << 16
_KERNELS_OWN = 0x00200000
"""PF_KTHREAD: a thread of the kernel, which has neither an environment nor memory."""


@dataclass(frozen=True, slots=True)
class Proc:
    """One process. ``started`` counts clock ticks since boot: with the pid it identifies the process.

    cpu_seconds: that it and its children that have ended spent on a processor.  owner: its uid.  program: where its
    code and its environment lie, which another program in its place changes; empty where the kernel does not tell.
    """

    pid: int
    parent: int
    started: int
    memory_bytes: int
    cpu_seconds: float = 0.0
    owner: int = 0
    program: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """Which replica a process belongs to, and whether it is the replica itself or something it started."""

    replica: str
    main: bool


Unmarked = dict[int, tuple[int, tuple[bytes, ...], list[bytes]]]
"""By pid: start, program, and the folders whose marks it does not have: it is not looked at again while it runs that
program, which was given its environment at its start."""


class Table:
    """The processes of one user at one moment."""

    def __init__(self, procs: Mapping[int, Proc]) -> None:
        self.procs = procs
        self._children: dict[int, list[int]] = {}
        for proc in procs.values():
            self._children.setdefault(proc.parent, []).append(proc.pid)

    @classmethod
    def read(cls, uids: Iterable[int] = ()) -> Table:
        """Every process of this user, and of these accounts, that is not a zombie."""
        own = {os.geteuid(), *uids}
        found = (read_process(pid, own) for pid in process_ids())
        return cls({proc.pid: proc for proc in found if proc is not None})

    def tree(self, root: int) -> list[int]:
        """A process and everything below it."""
        found, todo, seen = [], [root], set()
        while todo:
            pid = todo.pop()
            if pid in self.procs and pid not in seen:
                seen.add(pid)
                found.append(pid)
                todo.extend(self._children.get(pid, ()))
        return found

    def usage(self, root: int) -> tuple[int, float]:
        """Resident bytes of a process and all below it, and seconds on a processor, those that have ended included.

        Shared pages count once per process: the exact share (PSS) costs the kernel milliseconds per process.
        """
        procs = [self.procs[pid] for pid in self.tree(root)]
        return sum(proc.memory_bytes for proc in procs), sum(proc.cpu_seconds for proc in procs)

    def strays(
        self, specs: Path, *, supervised: Mapping[str, int], unmarked: Unmarked | None = None
    ) -> tuple[Stray, ...]:
        """Processes with the mark of the fleet whose specs these are, below none of the supervised ones.

        orphan: a replica's process without a supervisor.  duplicate: the same, while its supervisor runs a second one.
        leftover: started by an earlier process of a replica. Of a tree only the root is returned.
        A process that a running replica detached on purpose (a daemon a task started) is not returned.
        unmarked: what the last look remembered; holds what this one does afterwards.
        """
        explained = set(self._ancestry(os.getpid()))
        for pid in supervised.values():
            explained.update(self.tree(pid))
        folders = {uid: _folders_of(uid, specs) for uid in {proc.owner for proc in self.procs.values()}}
        known, seen = ({} if unmarked is None else unmarked), Unmarked()
        marks = {}
        for pid, proc in self.procs.items():
            if pid in explained:
                continue
            looks_like = (proc.started, proc.program, folders[proc.owner])
            mark = None if known.get(pid) == looks_like else _mark_in(pid, folders[proc.owner])
            if mark is not None:
                marks[pid] = mark
            elif proc.program:
                seen[pid] = looks_like
        if unmarked is not None:
            unmarked.clear()
            unmarked.update(seen)
        roots = (pid for pid in sorted(marks) if self.procs[pid].parent not in marks)
        found = (self._stray(pid, marks[pid], supervised.get(marks[pid].replica)) for pid in roots)
        return tuple(stray for stray in found if stray is not None)

    def _stray(self, pid: int, mark: Mark, supervised: int | None) -> Stray | None:
        if mark.main:
            return Stray(pid, mark.replica, "orphan" if supervised is None else "duplicate")
        now = self.procs.get(supervised) if supervised is not None else None
        if now is not None and self.procs[pid].started >= now.started:
            return None
        return Stray(pid, mark.replica, "leftover")

    def _ancestry(self, pid: int) -> Iterable[int]:
        while pid in self.procs:
            yield pid
            pid = self.procs[pid].parent


def process_ids() -> set[int]:
    """The pids of all processes of this machine, of whomever they are."""
    return {int(name) for name in os.listdir(_PROC) if name.isdigit()}


def read_process(pid: int, own: Set[int]) -> Proc | None:
    """A process of one of these accounts; None for one of another, one that has ended, and the kernel's own."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    if owner not in own:
        return None
    fields = _bytes(pid, "stat").rpartition(b")")[2].split()
    if len(fields) < 22 or fields[0] in (b"Z", b"X") or int(fields[6]) & _KERNELS_OWN:
        return None
    ticks = sum(map(int, fields[11:15]))
    program = (fields[23], fields[47], fields[48]) if len(fields) > 48 and fields[48] != b"0" else ()
    return Proc(pid, int(fields[1]), int(fields[19]), int(fields[21]) * _PAGE, ticks / _TICKS, owner, program)


def read_mark(pid: int, specs: Path) -> Mark | None:
    """The mark of a process of the fleet whose launch documents are in ``specs``; None without one.

    A process of another account can be a replica only of that account: anybody can write a mark into an environment.
    """
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    return _mark_in(pid, _folders_of(owner, specs))


def _mark_in(pid: int, folders: list[bytes]) -> Mark | None:
    """folders: where launch documents may be that a process of its owner was started with."""
    environ = _bytes(pid, "environ")
    if b"FLEET_SPEC=" in environ:
        lines = environ.split(b"\0")
        for folder in folders:
            spec = next((line[11:] for line in lines if line.startswith(b"FLEET_SPEC=" + folder)), None)
            if spec is not None:
                return Mark(_replica(spec, folder), main=b"FLEET_PID=%d" % pid in lines)
    words = _bytes(pid, "cmdline").split(b"\0")
    if folders and b"fleet.launch" in words[:6]:
        spec = next((word for word in words if word.startswith(folders[0])), None)
        return None if spec is None else Mark(_replica(spec, folders[0]), main=True)
    return None


def _folders_of(uid: int, specs: Path) -> list[bytes]:
    """Where launch documents may be that a process of this account was started with."""
    places = Places(specs.parent.parent)
    uids = places.account_uids() if uid == os.geteuid() else [uid] if uid in places.account_uids() else []
    own = [specs] if uid == os.geteuid() else []
    return [os.fsencode(folder) + b"/" for folder in (*own, *map(places.account_specs, uids))]


def _replica(spec: bytes, folder: bytes) -> str:
    return spec.removeprefix(folder).removesuffix(b".json").decode(errors="replace")


def command_line(pid: int) -> list[str]:
    """The words a process was started with; empty when it is gone."""
    return [os.fsdecode(word) for word in _bytes(pid, "cmdline").split(b"\0") if word]


def is_launcher(pid: int) -> bool:
    """Whether a replica's process has not become its program yet."""
    return "fleet.launch" in command_line(pid)[:6]


def _state(pid: int) -> bytes:
    """The kernel's letter for it; empty when it is gone."""
    return b"".join(_bytes(pid, "stat").rpartition(b")")[2].split()[:1])


def is_alive(pid: int) -> bool:
    """The process exists and is not a zombie."""
    return _state(pid) not in (b"", b"Z", b"X")


def started_at(pid: int) -> float | None:
    """Unix time at which a process started, or None when it is gone."""
    fields = _bytes(pid, "stat").rpartition(b")")[2].split()
    boot = next((line for line in (_PROC / "stat").read_bytes().splitlines() if line.startswith(b"btime")), b"")
    if len(fields) < 20 or not boot:
        return None
    return int(boot.split()[1]) + int(fields[19]) / _TICKS


def supervisors(conf: Path) -> list[int]:
    """Running supervisord processes that were started with this configuration file."""
    wanted = str(conf)
    found = []
    for pid in Table.read().procs:
        words = command_line(pid)
        if wanted in words and any("supervisord" in word for word in words[:-1]):
            found.append(pid)
    return sorted(found)


def configurations() -> dict[int, Path]:
    """Every running supervisord of this user, with the configuration file it was started with."""
    found = {}
    for pid in Table.read().procs:
        words = command_line(pid)
        if "-c" in words[:-1] and any("supervisord" in word for word in words[:-1]):
            found[pid] = Path(words[words.index("-c") + 1])
    return found


def signal_marked(pid: int, specs: Path, signum: signal.Signals) -> bool:
    """Signal a process, but only if it still is one of this fleet's: the kernel may have used the pid again."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if read_mark(pid, specs) is None:
            return False
        signal.pidfd_send_signal(handle, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def wake(pid: int, specs: Path) -> bool:
    """Let a process of this fleet go on that somebody stopped (SIGSTOP): until then it notices no other signal."""
    return is_stopped(pid) and signal_marked(pid, specs, signal.SIGCONT)


def await_end(pid: int, *, timeout_seconds: float) -> bool:
    """Wait until a process has ended; True when it has."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        return bool(poll.poll(timeout_seconds * 1000))
    finally:
        os.close(handle)


def _bytes(pid: int, name: str) -> bytes:
    try:
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return b"".join(iter(lambda: os.read(descriptor, _CHUNK_BYTES), b""))
    except OSError:
        return b""
    finally:
        os.close(descriptor)
