"""Checks of processes: those that supervisord does not run, and replicas that are not healthy."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from fleet.backends.supervisor import config
from fleet.backends.supervisor.processes import await_end, signal_marked
from fleet.core.desired import CONTROLLER_GROUP, group_of
from fleet.core.observed import ObservedReplica, State, Stray, Trouble
from fleet.operate.doctor.finding import KILL_AFTER_SECONDS, Examined, Finding
from fleet.replica import record as records
from fleet.replica.crash_history import read_history
from fleet.replica.image import states
from fleet.replica.memory_merging import KSM, why_not_merged
from fleet.state.paths import Places


def stray_findings(examined: Examined) -> Iterator[Finding]:
    """Processes of the fleet that supervisord does not run."""
    strays = examined.observed.strays if examined.observed is not None else ()
    idle = [stray for stray in strays if not _drains(examined.places, stray)]
    asked: set[int] = set()
    for stray in strays:
        message = f"{_WHAT[stray.kind]} of {stray.replica} (pid {stray.pid})"
        if stray not in idle:
            yield Finding("info", "processes", f"{message} drains", "it ends by itself; a new one waits for its end")
            continue
        grace = _grace_seconds(examined, stray.replica)
        hint = f"--fix asks it to drain, and kills it after {grace:g} s"
        remedy = partial(_reap, examined.places.specs, stray, idle=idle, asked=asked, grace_seconds=grace)
        yield Finding("error", "processes", message, hint, remedy=remedy)


_WHAT = {"orphan": "an orphan", "duplicate": "a duplicate", "leftover": "a leftover child"}


def _drains(places: Places, stray: Stray) -> bool:
    record = records.read(places.record_file(stray.replica))
    return record is not None and record.pid == stray.pid and record.state in ("draining", "stopped")


def _grace_seconds(examined: Examined, replica: str) -> float:
    launch = examined.folder.launch(replica)
    drain = launch.spec.drain_timeout_seconds if launch is not None else 0.0
    return drain + config.STOP_MARGIN_SECONDS


def image_findings(examined: Examined) -> Iterator[Finding]:
    """Apps that workers cannot be forked with: each of their workers imports the app itself."""
    for state in states(examined.places.images):
        if state.phase in ("refused", "failed"):
            hint = 'docs/image.md says what an app must not do; `release: {image: "off"}` ends the attempts'
            yield Finding("warning", "image", f"{state.app}: workers start without an image: {state.reason}", hint)


def merging_findings(examined: Examined) -> Iterator[Finding]:
    """Replicas that ask for `mergeMemory` on a machine that merges nothing."""
    replicas = examined.observed.replicas if examined.observed is not None else {}
    asking = sorted({group_of(name) for name, one in replicas.items() if one.spec and one.spec.merge_memory})
    if asking and (why := why_not_merged()):
        hint = f"as root: `echo 1 > {KSM}/run`; docs/image.md says how to keep it, and what it costs"
        yield Finding("warning", "mergeMemory", f"{', '.join(asking)}: memory is not merged: {why}", hint)


def replica_findings(examined: Examined) -> Iterator[Finding]:
    """Replicas that supervisord runs and that are not healthy."""
    for name, replica in (examined.observed.replicas if examined.observed is not None else {}).items():
        if replica.state is State.FAILED:
            hint = f"`fleet logs {name}` says why; `fleet restart {name}` tries again"
            yield Finding("error", name, replica.note or "failed", hint)
        elif replica.trouble:
            yield Finding("warning", name, replica.note, _trouble_hint(name, replica))


def _trouble_hint(name: str, replica: ObservedReplica) -> str:
    if replica.trouble is Trouble.UNHEALTHY:
        return f"`fleet logs {name}` may say why; `fleet apply` or `fleet restart {name}` restarts it"
    if replica.trouble is not Trouble.STUCK:
        return f"`fleet logs {name}` may say why"
    if group_of(name) == CONTROLLER_GROUP:
        return "`fleet apply` restarts it"
    return (
        f"`kill -USR1 {replica.pid}` writes its stacks to its log; `fleet apply` or `fleet restart {name}` restarts it"
    )


_LOOPS_FROM = 2


def crash_findings(examined: Examined) -> Iterator[Finding]:
    """Replicas that crash again and again and are not parked yet, and workers whose record is gone."""
    for name, replica in (examined.observed.replicas if examined.observed is not None else {}).items():
        crashes = sum(life.is_crash for life in read_history(examined.places.starts_file(name)).lives)
        if crashes >= _LOOPS_FROM and replica.state is not State.FAILED:
            hint = f"`fleet logs {name}` says why"
            yield Finding("error", name, f"crashed {crashes} times and is started again and again", hint)
        runs = replica.running and replica.spec is not None and replica.spec.kind != "command"
        if runs and records.read(examined.places.record_file(name)) is None:
            hint = f"nobody sees what it does until it starts again: `fleet restart {name}`"
            yield Finding("error", name, "its record is missing or damaged", hint)


def _reap(specs: Path, stray: Stray, *, idle: Sequence[Stray], asked: set[int], grace_seconds: float) -> str:
    """End one stray. The first call asks all of them, so that they drain at the same time."""
    for other in idle:
        if other.pid not in asked:
            asked.add(other.pid)
            signal_marked(other.pid, specs, signal.SIGTERM)
    if await_end(stray.pid, timeout_seconds=grace_seconds):
        return f"{stray.kind} {stray.pid} ended"
    signal_marked(stray.pid, specs, signal.SIGKILL)
    await_end(stray.pid, timeout_seconds=KILL_AFTER_SECONDS)
    return f"{stray.kind} {stray.pid} was killed after {grace_seconds:g} s"
