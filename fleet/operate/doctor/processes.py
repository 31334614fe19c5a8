"""Checks of processes: those that no supervisor runs, and replicas that are not well."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from fleet.backends.supervisor import config
from fleet.backends.supervisor.processes import await_end, signal_marked
from fleet.core.health import Condition, judge
from fleet.core.observed import State, Stray
from fleet.operate.doctor.finding import KILL_AFTER_SECONDS, Examined, Finding
from fleet.replica import record as records
from fleet.state.paths import Places


def stray_findings(examined: Examined) -> Iterator[Finding]:
    """Processes no supervisor runs."""
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


def replica_findings(examined: Examined) -> Iterator[Finding]:
    """Replicas that supervisord runs and that are not well."""
    for name, replica in (examined.observed.replicas if examined.observed is not None else {}).items():
        record = records.read(examined.places.record_file(name))
        if replica.state is State.FAILED:
            hint = f"`fleet logs {name}` says why; `fleet restart {name}` tries again"
            yield Finding("error", name, replica.note or "failed", hint)
        elif replica.state is State.READY and record is not None and not record.foreign:
            health = judge(record, lives=True, now=time.time())
            if health.condition is Condition.STUCK:
                hint = f"`kill -USR1 {replica.pid}` writes its stacks to its log; then `fleet restart {name}`"
                yield Finding("warning", name, health.reason, hint)
            elif health.condition is Condition.NOT_CONSUMING:
                yield Finding("warning", name, f"takes no tasks: {health.reason}", f"`fleet logs {name}` may say why")


def _reap(specs: Path, stray: Stray, *, idle: Sequence[Stray], asked: set[int], grace_seconds: float) -> str:
    """The first remedy asks all strays, so that they drain side by side; each waits for its own."""
    for other in idle:
        if other.pid not in asked:
            asked.add(other.pid)
            signal_marked(other.pid, specs, signal.SIGTERM)
    if await_end(stray.pid, timeout_seconds=grace_seconds):
        return f"{stray.kind} {stray.pid} ended"
    signal_marked(stray.pid, specs, signal.SIGKILL)
    await_end(stray.pid, timeout_seconds=KILL_AFTER_SECONDS)
    return f"{stray.kind} {stray.pid} was killed after {grace_seconds:g} s"
