"""Small fleets under a real supervisord, in a folder of their own, and the programs they run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fleet.backends.supervisor.backend import SupervisorBackend
from fleet.backends.supervisor.processes import Table, await_end, read_mark, signal_marked, supervisors
from fleet.core.desired import Desired, DesiredGroup, Replica
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.spec import RestartPolicy, WorkerSpec, digest
from fleet.state.paths import Places
from tests.conftest import PATIENCE, eventually

PYTHON = (sys.executable, "-S", "-c")
IDLE = (*PYTHON, "import signal; signal.pause()")


def drains_for(seconds: float) -> tuple[str, ...]:
    """A program that needs this long to finish after TERM."""
    code = f"""
import signal, sys, time
def finish(*_):
    time.sleep({seconds}); sys.exit(0)
signal.signal(signal.SIGTERM, finish)
while True: signal.pause()
"""
    return (*PYTHON, code)


def drains_until(gate: Path) -> tuple[str, ...]:
    """A program that ends after TERM when somebody has opened the gate."""
    code = f"""
import os, signal, sys, time
def finish(*_):
    while not os.path.exists({str(gate)!r}): time.sleep(0.02)
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
while True: signal.pause()
"""
    return (*PYTHON, code)


def spec_of(command: Sequence[str] = IDLE, *, group: str = "thumbs", **more: object) -> WorkerSpec:
    """A spec of kind command that is ready at once."""
    base = WorkerSpec(
        kind="command",
        fleet="shop",
        group=group,
        command=tuple(command),
        restart=RestartPolicy(backoff_initial_seconds=0.05, backoff_max_seconds=1.0),
        drain_timeout_seconds=10.0,
        ready_after_seconds=0.0,
        python=sys.executable,
    )
    return replace(base, **more)  # type: ignore[arg-type]


def replicas_of(spec: WorkerSpec, count: int, *, first: int = 0) -> list[Replica]:
    """``count`` replicas of a spec."""
    return [Replica(spec.group, index, spec, digest(spec)) for index in range(first, first + count)]


def desired_of(*specs: WorkerSpec, replicas: int = 1) -> Desired:
    """A fleet of these groups."""
    groups = {spec.group: DesiredGroup(spec.group, spec, (1,) * replicas) for spec in specs}
    return Desired("shop", groups=groups)


def _has_its_handler(replica: ObservedReplica) -> bool:
    """A program with a way of its own with TERM has told the kernel; it is called ready as soon as it is started."""
    if replica.pid is None or replica.spec is None or "SIGTERM" not in " ".join(replica.spec.command):
        return True
    lines = Path(f"/proc/{replica.pid}/status").read_text().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt", "SigIgn"))]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


@dataclass
class World:
    """One fleet and its backend."""

    home: Path
    places: Places = field(init=False)
    backend: SupervisorBackend = field(init=False)

    def __post_init__(self) -> None:
        self.places = Places.of(self.home, "shop")
        self.backend = SupervisorBackend(self.places)

    def run(self, replicas: Sequence[Replica], **secrets: str) -> Observed:
        """Start these and wait until they are ready."""
        specs = {replica.group: replica.spec for replica in replicas}
        self.backend.prepare(desired_of(*specs.values(), replicas=len(replicas)))
        self.backend.start(replicas, secrets=secrets)
        return self.until_ready([replica.name for replica in replicas])

    def until_ready(self, names: Sequence[str], *, within: float = PATIENCE) -> Observed:
        """Wait until these replicas are ready; the observation that showed it."""

        def look() -> Observed | None:
            seen = self.backend.observe()
            states = {name: seen.replicas[name].state for name in names if name in seen.replicas}
            assert all(states.get(name) is State.READY for name in names), (states, self.logs())
            assert all(_has_its_handler(seen.replicas[name]) for name in names), "TERM would still just end it"
            return seen

        found = eventually(look, within=within)
        assert found is not None
        return found

    def until_stopped(self, names: Sequence[str], *, within: float = PATIENCE) -> Observed:
        """Wait until no process of these replicas is left."""

        def look() -> Observed | None:
            seen = self.backend.observe()
            return seen if not any(seen.replicas[name].running for name in names if name in seen.replicas) else None

        found = eventually(look, within=within)
        assert found is not None
        return found

    def remove(self, names: Sequence[str]) -> None:
        """Stop and forget."""
        self.backend.stop(names)
        self.until_stopped(names)
        self.backend.forget(names)

    def pids(self) -> dict[str, int]:
        """Replica name -> pid, of those that run."""
        return {name: seen.pid for name, seen in self.backend.observe().replicas.items() if seen.pid is not None}

    def supervisord(self) -> int:
        """supervisord's pid."""
        (pid,) = supervisors(self.places.supervisord_conf)
        return pid

    def kill_supervisord(self) -> int:
        """The worst that can happen to it."""
        pid = self.supervisord()
        os.kill(pid, signal.SIGKILL)
        assert await_end(pid, timeout_seconds=PATIENCE)
        return pid

    def marked(self) -> list[int]:
        """Every process with this fleet's mark."""
        return [pid for pid in Table.read().procs if read_mark(pid, self.places.specs) is not None]

    def logs(self) -> str:
        """What all replicas and supervisord said."""
        parts = [
            f"== {path.name}\n{path.read_text(errors='replace')}" for path in sorted(self.places.log.glob("*.log*"))
        ]
        return "\n".join(parts)[-6000:]

    def end(self) -> None:
        """Leave nothing running."""
        self.backend.close()
        for pid in supervisors(self.places.supervisord_conf):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await_end(pid, timeout_seconds=PATIENCE)
        for pid in self.marked():
            signal_marked(pid, self.places.specs, signal.SIGKILL)
        for pid in self.marked():
            await_end(pid, timeout_seconds=PATIENCE)
