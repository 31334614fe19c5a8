"""What is wrong with a fleet on this machine, and what can be put right without losing work.

Looks at the daemon, its socket and descriptors, processes without a supervisor, permissions, files left by killed
commands and the embedded broker. Touches nothing unless asked to: ``fix`` runs the remedies of findings that have one.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from fleet.backends.supervisor import config
from fleet.backends.supervisor.backend import SupervisorBackend
from fleet.backends.supervisor.daemon import Daemon, recorded_pid
from fleet.backends.supervisor.folder import Folder
from fleet.backends.supervisor.observation import UNSTARTED
from fleet.backends.supervisor.processes import await_end, signal_marked
from fleet.backends.supervisor.rpc import DaemonDown, SupervisorRpc
from fleet.broker import embedded
from fleet.core.desired import BROKER_GROUP, split_name
from fleet.core.health import Condition, judge
from fleet.core.observed import Observed, State, Stray
from fleet.errors import FleetError, Unreachable
from fleet.lock import holder
from fleet.places import Places
from fleet.settings import Settings
from fleet.worker import record as records

Severity = Literal["error", "warning", "info"]
_KILL_AFTER_SECONDS = 5.0
_FULL = 0.8


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth knowing. ``remedy`` puts it right and says what it did."""

    severity: Severity
    subject: str
    message: str
    hint: str = ""
    remedy: Callable[[], str] | None = field(default=None, compare=False, repr=False)

    @property
    def fixable(self) -> bool:
        """``fleet doctor --fix`` can put it right."""
        return self.remedy is not None


@dataclass(frozen=True, slots=True)
class _Patient:
    """What every check looks at."""

    places: Places
    settings: Settings
    rpc: SupervisorRpc
    daemon: Daemon
    folder: Folder
    observed: Observed | None
    embedded_wanted: bool


def examine(places: Places, settings: Settings, *, embedded_wanted: bool = False) -> list[Finding]:
    """Everything found, worst first. ``embedded_wanted``: the manifest says ``broker: embedded``."""
    if not places.run.is_dir():
        return [*_room(0), *_server(settings, wanted=embedded_wanted), _nothing(places)]
    rpc = SupervisorRpc(places.socket, timeout_seconds=settings.rpc_timeout_seconds)
    backend = SupervisorBackend(places, rpc_timeout_seconds=settings.rpc_timeout_seconds)
    try:
        folder = Folder(places)
        patient = _Patient(places, settings, rpc, Daemon(places, rpc), folder, _observed(backend), embedded_wanted)
        found = [finding for check in _CHECKS for finding in check(patient)]
    finally:
        rpc.close()
        backend.close()
    return sorted(found, key=lambda finding: _ORDER[finding.severity])


_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


def fix(findings: Sequence[Finding]) -> list[str]:
    """Run the remedies, in the order of the findings; what each did, or why it could not. Hold the fleet's lock."""
    done = []
    for finding in findings:
        if finding.remedy is not None:
            try:
                done.append(f"{finding.subject}: {finding.remedy()}")
            except (FleetError, OSError) as error:
                done.append(f"{finding.subject}: could not be fixed: {error}")
    return done


def _observed(backend: SupervisorBackend) -> Observed | None:
    try:
        return backend.observe()
    except Unreachable:
        return None


def _nothing(places: Places) -> Finding:
    return Finding("info", "fleet", f"{places.root} does not exist: {places.fleet!r} never ran here")


# --- the daemon


def _daemon(patient: _Patient) -> Iterator[Finding]:
    pids, places = patient.daemon.pids(), patient.places
    if len(pids) > 1:
        message = f"{len(pids)} supervisord processes share this fleet's configuration: {', '.join(map(str, pids))}"
        yield Finding("error", "supervisord", message, "end all but the one in the pid file")
    elif pids and not patient.rpc.answers():
        message = f"supervisord ({pids[0]}) runs but does not answer on {places.socket}"
        hint = "its socket was removed or it hangs; when it ends, workers drain and start again at the next apply"
        yield Finding("error", "supervisord", message, hint, remedy=partial(_end_deaf, patient, pids[0]))
    elif pids and recorded_pid(places) != pids[0]:
        message = f"supervisord runs as {pids[0]}, the pid file says otherwise"
        yield Finding("warning", "pid file", message, remedy=partial(_rewrite_pidfile, places, pids[0]))
    elif pids:
        yield Finding("info", "supervisord", f"runs (pid {pids[0]})")
    else:
        yield from _stale_traces(patient)


def _stale_traces(patient: _Patient) -> Iterator[Finding]:
    places = patient.places
    for trace, subject in ((places.socket, "socket"), (config.pidfile(places), "pid file")):
        if trace.exists():
            message = f"{trace} is stale: no supervisord runs"
            yield Finding("warning", subject, message, remedy=partial(_remove, (trace,)))
    documents = [places.spec_file(name) for name in sorted(patient.folder.documents())]
    if documents:
        message = f"{len(documents)} launch documents of a daemon that does not run; they may hold secrets"
        hint = "`fleet apply` writes what is needed anew"
        yield Finding("warning", "specs", message, hint, remedy=partial(_clear, patient.folder))


def _socket_path(patient: _Patient) -> Iterator[Finding]:
    try:
        config.daemon_text(patient.places, descriptors=0, as_root=False)
    except FleetError as error:
        yield Finding("error", "paths", error.message, error.hint)


def _descriptors(patient: _Patient) -> Iterator[Finding]:
    replicas = len(patient.observed.replicas) if patient.observed is not None else 0
    pids = patient.daemon.pids()
    if len(pids) != 1:
        yield from _room(replicas)
        return
    soft, _ = resource.prlimit(pids[0], resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pids[0]}/fd"))
    message = f"supervisord uses {used} of {soft} descriptors"
    if soft != resource.RLIM_INFINITY and (used > _FULL * soft or soft < used + 2 * replicas):
        hint = "raise the hard limit (`ulimit -Hn`, LimitNOFILE= under systemd) and apply again"
        yield Finding("error", "descriptors", message, hint, remedy=partial(_widen, patient, replicas))
    else:
        yield Finding("info", "descriptors", message)


def _room(replicas: int) -> Iterator[Finding]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = config.descriptors(replicas)
    if os.geteuid() != 0 and hard not in (resource.RLIM_INFINITY, -1) and hard < needed:
        message = f"this user may open {hard} files; supervisord would like {needed}"
        yield Finding("warning", "descriptors", message, "raise the hard limit (`ulimit -Hn`)")


# --- processes


def _strays(patient: _Patient) -> Iterator[Finding]:
    """Processes no supervisor runs."""
    strays = patient.observed.strays if patient.observed is not None else ()
    idle = [stray for stray in strays if not _drains(patient.places, stray)]
    asked: set[int] = set()
    for stray in strays:
        message = f"{_WHAT[stray.kind]} of {stray.replica} (pid {stray.pid})"
        if stray not in idle:
            yield Finding("info", "processes", f"{message} drains", "it ends by itself; a new one waits for its end")
            continue
        grace = _grace_seconds(patient, stray.replica)
        hint = f"--fix asks it to drain, and kills it after {grace:g} s"
        remedy = partial(_reap, patient.places.specs, stray, idle=idle, asked=asked, grace_seconds=grace)
        yield Finding("error", "processes", message, hint, remedy=remedy)


_WHAT = {"orphan": "an orphan", "duplicate": "a duplicate", "leftover": "a leftover child"}


def _drains(places: Places, stray: Stray) -> bool:
    record = records.read(places.record_file(stray.replica))
    return record is not None and record.pid == stray.pid and record.state in ("draining", "stopped")


def _grace_seconds(patient: _Patient, replica: str) -> float:
    launch = patient.folder.launch(replica)
    drain = launch.spec.drain_timeout_seconds if launch is not None else 0.0
    return drain + config.STOP_MARGIN_SECONDS


def _replicas(patient: _Patient) -> Iterator[Finding]:
    """Replicas that supervisord runs and that are not well."""
    for name, replica in (patient.observed.replicas if patient.observed is not None else {}).items():
        record = records.read(patient.places.record_file(name))
        if replica.state is State.FAILED:
            hint = f"`fleet logs {name}` says why; `fleet restart {name}` tries again"
            yield Finding("error", name, replica.note or "failed", hint)
        elif replica.state is State.READY and replica.spec is not None and replica.spec.kind == "worker" and record:
            health = judge(record, lives=True, now=time.time())
            if health.condition is Condition.STUCK:
                hint = f"`kill -USR1 {replica.pid}` writes its stacks to its log; then `fleet restart {name}`"
                yield Finding("warning", name, health.reason, hint)
            elif health.condition is Condition.NOT_CONSUMING:
                yield Finding("warning", name, f"takes no tasks: {health.reason}", f"`fleet logs {name}` may say why")


# --- files


def _permissions(patient: _Patient) -> Iterator[Finding]:
    """Folders 0700, files 0600, all of them ours."""
    places = patient.places
    folders = [places.root, places.run, places.state, places.log, places.conf_d, places.specs, places.records]
    files = [*places.specs.glob("*"), *places.conf_d.glob("*.conf"), *places.records.glob("*"), places.supervisord_conf]
    for path, allowed in [*((path, 0o700) for path in folders), *((path, 0o600) for path in files)]:
        try:
            status = path.lstat()
        except OSError:
            continue
        if status.st_uid != os.geteuid():
            message = f"{path} belongs to uid {status.st_uid}, not to {os.geteuid()}"
            yield Finding("error", "permissions", message, "run as the fleet's owner, or give it back with `chown -R`")
        elif not stat.S_ISLNK(status.st_mode) and (mode := stat.S_IMODE(status.st_mode)) & ~allowed:
            message = f"{path} has mode {mode:04o}, not {allowed:04o}"
            yield Finding("error", "permissions", message, remedy=partial(_chmod, path, allowed))


def _files(patient: _Patient) -> Iterator[Finding]:
    """What killed commands, hands and other programs left behind."""
    folder, places = patient.folder, patient.places
    if leftovers := folder.leftovers():
        message = f"{len(leftovers)} temporary files of a command that was killed"
        yield Finding("warning", "files", message, remedy=partial(_remove, leftovers))
    for path in folder.foreign():
        yield Finding("info", "files", f"{path} is not fleet's", "it is left alone; a broken one blocks every apply")
    known = set(patient.observed.replicas) if patient.observed is not None else None
    if known is None or patient.observed is None or not patient.observed.up:
        return
    if stale := tuple(path for path in sorted(places.records.glob("*.rec")) if path.stem not in known):
        message = f"{len(stale)} records of replicas that are gone"
        yield Finding("warning", "files", message, remedy=partial(_remove, stale))
    if stale := tuple(places.spec_file(name) for name in sorted(folder.documents() - known)):
        message = f"{len(stale)} launch documents of replicas that are gone; they may hold secrets"
        yield Finding("warning", "files", message, remedy=partial(_remove, stale))


def _programs(patient: _Patient) -> Iterator[Finding]:
    """Program files against what runs."""
    if patient.observed is None or not patient.observed.up:
        return
    running = {name for name, replica in patient.observed.replicas.items() if replica.note != UNSTARTED}
    if edited := patient.folder.edited(running):
        message = f"program files were edited or removed by hand: {', '.join(sorted(edited))}"
        yield Finding("error", "files", message, remedy=partial(_mend, patient.folder, running))
    try:
        patient.rpc.reload()
    except DaemonDown:
        return
    except FleetError as error:
        yield Finding("error", "conf.d", error.message, error.hint)


# --- the broker and the lock


def _broker(patient: _Patient) -> Iterator[Finding]:
    has = any(split_name(name)[0] == BROKER_GROUP for name in patient.folder.documents())
    yield from _server(patient.settings, wanted=patient.embedded_wanted or has)
    if not has or patient.observed is None or not patient.observed.up:
        return
    if embedded.ping(embedded.url(patient.places)):
        yield Finding("info", "broker", f"answers on {patient.places.broker_socket}")
    else:
        hint = f"`fleet logs {BROKER_GROUP}` says why"
        yield Finding("error", "broker", f"the embedded broker does not answer on {patient.places.broker_socket}", hint)


def _server(settings: Settings, *, wanted: bool) -> Iterator[Finding]:
    try:
        yield Finding("info", "broker", f"`broker: embedded` would run {embedded.find_server(settings.redis_server)}")
    except FleetError as error:
        yield Finding("error" if wanted else "info", "broker", error.message, error.hint)


def _lock(patient: _Patient) -> Iterator[Finding]:
    if (who := holder(patient.places)) is not None and who.pid != os.getpid():
        yield Finding("info", "lock", f"held by {who}")


_CHECKS: tuple[Callable[[_Patient], Iterator[Finding]], ...] = (
    _daemon,
    _socket_path,
    _descriptors,
    _strays,
    _replicas,
    _permissions,
    _files,
    _programs,
    _broker,
    _lock,
)


# --- remedies


def _end_deaf(patient: _Patient, pid: int) -> str:
    """KILL, not TERM: a TERM would make it stop its programs one after another, each for its whole drain.

    When it dies at once the kernel sends every worker its TERM, and they drain side by side.
    """
    os.kill(pid, signal.SIGKILL)
    await_end(pid, timeout_seconds=_KILL_AFTER_SECONDS)
    patient.daemon.remove_traces()
    return f"supervisord {pid} was ended; its workers drain; run `fleet apply`"


def _rewrite_pidfile(places: Places, pid: int) -> str:
    config.pidfile(places).write_text(f"{pid}\n")
    return f"now says {pid}"


def _reap(specs: Path, stray: Stray, *, idle: Sequence[Stray], asked: set[int], grace_seconds: float) -> str:
    """The first remedy asks all strays, so that they drain side by side; each waits for its own."""
    for other in idle:
        if other.pid not in asked:
            asked.add(other.pid)
            signal_marked(other.pid, specs, signal.SIGTERM)
    if await_end(stray.pid, timeout_seconds=grace_seconds):
        return f"{stray.kind} {stray.pid} ended"
    signal_marked(stray.pid, specs, signal.SIGKILL)
    await_end(stray.pid, timeout_seconds=_KILL_AFTER_SECONDS)
    return f"{stray.kind} {stray.pid} was killed after {grace_seconds:g} s"


def _widen(patient: _Patient, replicas: int) -> str:
    patient.daemon.widen(replicas=replicas)
    return f"supervisord may now open {config.descriptors(replicas)} files"


def _remove(paths: Sequence[Path]) -> str:
    for path in paths:
        path.unlink(missing_ok=True)
    return f"removed {len(paths)} {'file' if len(paths) == 1 else 'files'}"


def _clear(folder: Folder) -> str:
    folder.clear()
    return "removed"


def _chmod(path: Path, mode: int) -> str:
    path.chmod(mode)
    return f"{path} has mode {mode:04o} now"


def _mend(folder: Folder, running: set[str]) -> str:
    return f"restored {', '.join(folder.mend(running))}"
