"""A fleet in a dictionary: the backend that tests, properties and dry runs talk to.

By itself everything happens at once. With ``stepwise`` a replica starts and drains in steps of ``tick``,
as in a real fleet, and the methods below the line let a test make events: crash, park, stop by hand, strays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fleet.core.desired import Desired, Replica
from fleet.core.observed import Observed, ObservedReplica, RunningTask, State, Stray, Trouble
from fleet.core.spec import WorkerSpec, live_digest
from fleet.errors import FleetError, Unreachable


@dataclass(slots=True)
class _Cell:
    """One replica the daemon knows.

    in_force: the settings its worker follows, not always the last it was told.  lacks: what this process misses and
    cannot start without; what comes later is for the next one.
    """

    replica: Replica
    state: State = State.STARTING
    pid: int | None = None
    held: bool = False
    tasks: list[RunningTask] = field(default_factory=list)
    processed: int = 0
    failed: int = 0
    busy_seconds: float = 0.0
    waiting: int = 0
    uptime_seconds: float = 0.0
    note: str = ""
    in_force: WorkerSpec | None = None
    told: bool = False
    crashes: int = 0
    trouble: Trouble = Trouble.NONE
    lacks: str = ""
    cannot_start: bool = False

    def view(self) -> ObservedReplica:
        """The replica as an observation shows it."""
        replica = self.replica
        counts = self.pid is not None and replica.spec.kind != "command"
        return ObservedReplica(
            group=replica.group,
            index=replica.index,
            digest=replica.digest,
            state=self._seen_state(),
            pid=self.pid,
            spec=replica.spec,
            slots=(self.in_force or replica.spec).pool.concurrency,
            busy=len(self.tasks),
            processed=self.processed,
            failed=self.failed,
            uptime_seconds=self.uptime_seconds,
            tasks=tuple(self.tasks),
            held=self.held,
            note=self.note,
            live=live_digest(self.in_force) if self.in_force is not None and replica.spec.kind == "worker" else "",
            busy_seconds=self.busy_seconds + sum(task.since_seconds for task in self.tasks) if counts else 0.0,
            reserved=len(self.tasks) + self.waiting if counts else 0,
            counts=counts,
            cannot_start=self.cannot_start,
            crashes=self.crashes,
            trouble=self.trouble,
            ready_seconds=self.uptime_seconds if self._seen_state() is State.READY else 0.0,
        )

    def _seen_state(self) -> State:
        if self.held and self.state is State.READY:
            return State.DRAINING
        return State.UNKNOWN if self.trouble and self.state is State.READY else self.state

    def crash(self) -> None:
        """Its process dies, and its tasks with it."""
        self.tasks.clear()
        self.crashes += 1

    def adopt(self) -> None:
        """The worker applies what it was told."""
        self.in_force, self.told = self.replica.spec, False


class MemoryBackend:
    """One fleet in this process.

    calls: what it was asked to do, in order.  parks: digests that crash until parked.  lacking: by digest, what its
    replicas need to start and do not have.
    """

    def __init__(self, fleet: str, *, stepwise: bool = False) -> None:
        self.fleet = fleet
        self.stepwise = stepwise
        self.up = False
        self.reachable = True
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.secrets: dict[str, str] = {}
        self._cells: dict[str, _Cell] = {}
        self._strays: dict[int, Stray] = {}
        self._broken: set[str] = set()
        self._ignoring: set[str] = set()
        self.parks: set[str] = set()
        self.lacking: dict[str, str] = {}
        self._next_pid = 1000

    def observe(self, *, shares: bool = False, usage: bool = True) -> Observed:  # noqa: ARG002
        self._reach()
        strays = tuple(self._strays[pid] for pid in sorted(self._strays))
        if not self.up:
            return Observed(self.fleet, up=False, strays=strays)
        return Observed(
            self.fleet,
            up=True,
            replicas={name: cell.view() for name, cell in self._cells.items()},
            strays=strays,
        )

    def prepare(self, desired: Desired) -> None:
        self._called("prepare", [desired.fleet])
        self.up = True

    def preload(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
        """Nothing here takes long."""

    def start(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
        """Run these replicas; those that run already with the same digest are left alone."""
        self._called("start", [replica.name for replica in replicas])
        self._must_be_up()
        self.secrets |= secrets
        for replica in replicas:
            cell = self._cells.get(replica.name)
            if cell is not None and cell.pid is not None:
                if cell.replica.digest != replica.digest:
                    raise FleetError(f"{replica.name} runs with digest {cell.replica.digest}: stop and forget it first")
                continue
            fresh = _Cell(replica, held=cell.held if cell is not None else False)
            self._cells[replica.name] = fresh
            self._spawn(fresh)

    def resize(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
        self._called("resize", [replica.name for replica in replicas])
        self.secrets |= secrets
        for replica in replicas:
            cell = self._cells.get(replica.name)
            if cell is None or cell.replica.digest != replica.digest:
                raise FleetError(f"{replica.name} has not the digest {replica.digest}: replace it")
            cell.replica, cell.told = replica, cell.pid is not None
            if not self.stepwise and cell.told:
                cell.adopt()

    def stop(self, names: Sequence[str]) -> None:
        self._called("stop", names)
        for cell in self._known(names):
            if cell.pid is None:
                cell.state = State.STOPPED
            elif self.stepwise:
                cell.state, cell.held = State.DRAINING, False
            else:
                self._exit(cell)

    def run_again(self, names: Sequence[str]) -> None:
        self._called("run_again", names)
        for cell in self._known(names):
            if cell.pid is None:
                self._spawn(cell)

    def forget(self, names: Sequence[str]) -> None:
        self._called("forget", names)
        for name in names:
            cell = self._cells.get(name)
            if cell is not None and cell.pid is not None:
                raise FleetError(f"{name} still runs (pid {cell.pid}): stop it first")
            self._cells.pop(name, None)

    def hold(self, names: Sequence[str], *, on: bool) -> None:
        self._called("hold" if on else "release", names)
        for cell in self._known(names):
            cell.held = on

    def reap(self, pids: Sequence[int]) -> None:
        self._called("reap", [str(pid) for pid in pids])
        for pid in pids:
            self._strays.pop(pid, None)

    def shutdown(self) -> None:
        self._called("shutdown", [])
        running = [name for name, cell in self._cells.items() if cell.pid is not None]
        if running:
            raise FleetError(f"the fleet is not empty: {', '.join(sorted(running))}")
        self._cells.clear()
        self.up = False

    def renew_records(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing to close."""

    def tick(self) -> bool:
        """One step of time: what starts gets ready, what drains and is idle ends. False when nothing changed."""
        before = self.observe()
        for name, cell in self._cells.items():
            if cell.told and name not in self._ignoring:
                cell.adopt()
            if cell.state is State.STARTING and cell.lacks:
                cell.cannot_start, cell.note = True, cell.lacks
                continue
            coming = cell.state in {State.STARTING, State.UNKNOWN} and cell.pid is not None
            if coming and cell.replica.digest not in self._broken:
                cell.state = State.READY
            elif cell.state is State.DRAINING and not cell.held and not cell.tasks:
                self._exit(cell)
        return self.observe() != before

    def settle(self) -> None:
        """Let time pass until nothing changes any more; tasks that run do not end by themselves."""
        while self.tick():
            pass

    def crash(self, name: str) -> None:
        """The process dies and its supervisor runs it again."""
        cell = self._cells[name]
        cell.crash()
        self._spawn(cell)

    def park(self, name: str, note: str = "exit 1, 8 times in 10m") -> None:
        """It crashed too often and is not run again."""
        self._exit(self._cells[name], state=State.FAILED, note=note)

    def stop_by_hand(self, name: str) -> None:
        """It was stopped by hand, without fleet."""
        self._exit(self._cells[name])

    def trouble(self, name: str, trouble: Trouble = Trouble.STUCK, note: str = "stuck: no heartbeat for 45s") -> None:
        """Its process lives, and it does not work any more."""
        self._cells[name].trouble, self._cells[name].note = trouble, note

    def work(self, name: str, tasks: int) -> None:
        """It runs so many tasks now."""
        cell = self._cells[name]
        cell.tasks = [RunningTask(f"{name}-{number}", "task", 1.0) for number in range(tasks)]

    def finish(self, name: str) -> None:
        """All its tasks end."""
        cell = self._cells[name]
        cell.processed += len(cell.tasks)
        cell.busy_seconds += sum(task.since_seconds for task in cell.tasks)
        cell.tasks.clear()

    def count(
        self,
        name: str,
        *,
        processed: int | None = None,
        failed: int | None = None,
        busy_seconds: float | None = None,
        waiting: int | None = None,
    ) -> None:
        """Set its counters. busy_seconds: of tasks that have ended; waiting: messages it holds that do not run."""
        cell = self._cells[name]
        cell.processed = cell.processed if processed is None else processed
        cell.failed = cell.failed if failed is None else failed
        cell.busy_seconds = cell.busy_seconds if busy_seconds is None else busy_seconds
        cell.waiting = cell.waiting if waiting is None else waiting

    def resize_by_hand(self, name: str, slots: int) -> None:
        """Its slots were changed by hand, at the worker itself."""
        cell = self._cells[name]
        assert cell.in_force is not None
        cell.in_force = replace(cell.in_force, pool=replace(cell.in_force.pool, concurrency=slots))

    def ignore_settings(self, name: str) -> None:
        """Its worker applies no settings while it runs."""
        self._ignoring.add(name)

    def break_starts(self, digest: str) -> None:
        """Replicas of this digest start and never get ready."""
        self._broken.add(digest)

    def add_stray(self, replica: str, *, kind: str = "orphan") -> int:
        """A process of this fleet that no supervisor runs; returns its pid."""
        pid = self._pid()
        self._strays[pid] = Stray(pid, replica, kind)
        return pid

    def kill_daemon(self) -> None:
        """The daemon is gone; what ran under it is left behind."""
        for name, cell in self._cells.items():
            if cell.pid is not None:
                self._strays[cell.pid] = Stray(cell.pid, name, "orphan")
        self._cells.clear()
        self.up = False

    def load(self, replicas: Iterable[ObservedReplica]) -> None:
        """Begin with these replicas in these states; each needs its spec."""
        self.up = True
        for seen in replicas:
            assert seen.spec is not None
            cell = _Cell(Replica(seen.group, seen.index, seen.spec, seen.digest), seen.state, held=seen.held)
            cell.pid = self._pid() if seen.running else None
            if seen.running:
                size = seen.slots or seen.spec.pool.concurrency
                cell.in_force = replace(seen.spec, pool=replace(seen.spec.pool, concurrency=size))
            cell.tasks = [RunningTask(f"{seen.name}-{number}", "task", 1.0) for number in range(seen.busy)]
            self._cells[seen.name] = cell

    # --- inside -----------------------------------------------------------------------------------------------------

    def _reach(self) -> None:
        if not self.reachable:
            raise Unreachable("the daemon does not answer", hint="it was told not to")

    def _called(self, what: str, names: Iterable[str]) -> None:
        self._reach()
        self.calls.append((what, tuple(names)))

    def _must_be_up(self) -> None:
        if not self.up:
            raise Unreachable("the daemon does not run", hint="prepare it first")

    def _known(self, names: Iterable[str]) -> list[_Cell]:
        return [self._cells[name] for name in names if name in self._cells]

    def _spawn(self, cell: _Cell) -> None:
        cell.pid = self._pid()
        cell.processed = cell.failed = cell.waiting = 0
        cell.busy_seconds = 0.0
        cell.adopt()
        broken = cell.replica.digest in self._broken
        cell.state = State.STARTING if self.stepwise or broken else State.READY
        cell.note, cell.trouble, cell.cannot_start = "", Trouble.NONE, False
        cell.lacks = self.lacking.get(cell.replica.digest, "")
        if cell.replica.digest in self.parks:
            self._exit(cell, state=State.FAILED, note="exit 1, 8 times in 10m")

    def _exit(self, cell: _Cell, *, state: State = State.STOPPED, note: str = "") -> None:
        cell.pid, cell.state, cell.note, cell.in_force, cell.told = None, state, note, None, False
        cell.tasks, cell.waiting = [], 0

    def _pid(self) -> int:
        self._next_pid += 1
        return self._next_pid
