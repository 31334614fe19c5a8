"""Checks of supervisord itself: its process, socket, paths and descriptors."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from functools import partial

from fleet.backends.supervisor import config
from fleet.backends.supervisor.daemon import recorded_pid
from fleet.backends.supervisor.processes import await_end
from fleet.backends.supervisor.replica_files import Folder
from fleet.errors import FleetError
from fleet.operate.doctor.files import remove_files
from fleet.operate.doctor.finding import KILL_AFTER_SECONDS, Examined, Finding
from fleet.state.files import write_whole
from fleet.state.paths import Places

_FULL = 0.8


def daemon_findings(examined: Examined) -> Iterator[Finding]:
    """Findings unless one process answers and is the one in the pid file, or there is none and no file of it."""
    pids, places = examined.daemon.pids(), examined.places
    if len(pids) > 1:
        message = f"{len(pids)} supervisord processes share this fleet's configuration: {', '.join(map(str, pids))}"
        yield Finding("error", "supervisord", message, "end all but the one in the pid file")
    elif pids and not examined.rpc.answers():
        message = f"supervisord ({pids[0]}) runs but does not answer on {places.socket}"
        hint = "its socket was removed or it hangs; when it ends, workers drain and start again at the next apply"
        yield Finding("error", "supervisord", message, hint, remedy=partial(_end_daemon, examined, pids[0]))
    elif pids and recorded_pid(places) != pids[0]:
        message = f"supervisord runs as {pids[0]}, the pid file says otherwise"
        yield Finding("warning", "pid file", message, remedy=partial(_rewrite_pidfile, places, pids[0]))
    elif pids:
        yield Finding("info", "supervisord", f"runs (pid {pids[0]})")
    else:
        yield from _stale_traces(examined)


def _stale_traces(examined: Examined) -> Iterator[Finding]:
    places = examined.places
    for trace, subject in ((places.socket, "socket"), (config.pidfile(places), "pid file")):
        if trace.exists():
            message = f"{trace} is stale: no supervisord runs"
            yield Finding("warning", subject, message, remedy=partial(remove_files, (trace,)))
    documents = [places.spec_file(name) for name in sorted(examined.folder.documents())]
    if documents:
        message = f"{len(documents)} launch documents of a daemon that does not run; they may hold secrets"
        hint = "`fleet apply` writes what it needs again"
        yield Finding("warning", "specs", message, hint, remedy=partial(_clear, examined.folder))


def socket_path_findings(examined: Examined) -> Iterator[Finding]:
    try:
        config.daemon_text(examined.places, descriptors=0, as_root=False, python=sys.executable)
    except FleetError as error:
        yield Finding("error", "paths", error.message, error.hint)


def descriptor_findings(examined: Examined) -> Iterator[Finding]:
    replicas = len(examined.observed.replicas) if examined.observed is not None else 0
    pids = examined.daemon.pids()
    if len(pids) != 1:
        yield from descriptor_limit_findings(replicas)
        return
    soft, _ = resource.prlimit(pids[0], resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pids[0]}/fd"))
    message = f"supervisord uses {used} of {soft} descriptors"
    if soft != resource.RLIM_INFINITY and (used > _FULL * soft or soft < used + 2 * replicas):
        hint = "raise the hard limit (`ulimit -Hn`, LimitNOFILE= under systemd) and apply again"
        yield Finding("error", "descriptors", message, hint, remedy=partial(_widen, examined, replicas))
    else:
        yield Finding("info", "descriptors", message)


def descriptor_limit_findings(replicas: int) -> Iterator[Finding]:
    """A warning when this user may not open enough files for so many replicas."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = config.descriptors(replicas)
    if os.geteuid() != 0 and hard not in (resource.RLIM_INFINITY, -1) and hard < needed:
        message = f"this user may open {hard} files; supervisord would like {needed}"
        yield Finding("warning", "descriptors", message, "raise the hard limit (`ulimit -Hn`)")


def _end_daemon(examined: Examined, pid: int) -> str:
    """Kill supervisord; a TERM would make it stop its programs one after another, each for its whole drain.

    When it dies the kernel sends every worker TERM, and they drain at the same time.
    """
    os.kill(pid, signal.SIGKILL)
    await_end(pid, timeout_seconds=KILL_AFTER_SECONDS)
    examined.daemon.remove_traces()
    return f"supervisord {pid} was ended; its workers drain; run `fleet apply`"


def _rewrite_pidfile(places: Places, pid: int) -> str:
    write_whole(config.pidfile(places), f"{pid}\n")
    return f"now says {pid}"


def _widen(examined: Examined, replicas: int) -> str:
    examined.daemon.widen(replicas=replicas)
    return f"supervisord may now open {config.descriptors(replicas)} files"


def _clear(folder: Folder) -> str:
    folder.clear()
    return "removed"
