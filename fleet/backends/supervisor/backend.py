"""Runs replicas under supervisord.

One daemon per fleet, one program per replica, one file per program. A replica's file is written by the step that
starts it and removed by the step that forgets it, so the folder always shows what runs.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Collection, Mapping, Sequence

from fleet.backends.supervisor import config
from fleet.backends.supervisor.daemon import Daemon
from fleet.backends.supervisor.images import Images
from fleet.backends.supervisor.lost_records import renew
from fleet.backends.supervisor.memory_share import MemoryShares
from fleet.backends.supervisor.observe import Sight, observed
from fleet.backends.supervisor.processes import Table, read_mark, signal_marked, wake
from fleet.backends.supervisor.replica_files import Folder
from fleet.backends.supervisor.replica_readings import ReplicaReadings
from fleet.backends.supervisor.rpc import (
    LIVE_STATES,
    STOPPED_STATES,
    Changes,
    DaemonDown,
    DaemonLeaves,
    Process,
    ProcessState,
    SupervisorRpc,
)
from fleet.backends.supervisor.stray_watch import StrayWatch
from fleet.broker import embedded
from fleet.core.desired import BROKER_GROUP, Desired, Replica
from fleet.core.observed import Observed, ObservedReplica
from fleet.core.spec import PARKED_EXIT, forks_from_image
from fleet.errors import FleetError, Refused, Unreachable
from fleet.replica import record as records
from fleet.replica.notice import look_now
from fleet.state.paths import Places

_RESPAWN_SECONDS = 3.0
_LAST_MOMENTS_SECONDS = 1.0
_SPAWNED_AT_ONCE = 8
_POLL_SECONDS = 0.05


class SupervisorBackend:
    """One fleet under its own supervisord. Not thread-safe: it holds one connection."""

    def __init__(self, places: Places, *, rpc_timeout_seconds: float = 30.0, python: str = sys.executable) -> None:
        self.places = places
        self._rpc = SupervisorRpc(places.socket, timeout_seconds=rpc_timeout_seconds)
        self._rpc_timeout_seconds = rpc_timeout_seconds
        self._python = python
        self._folder = Folder(places)
        self._readings = ReplicaReadings(places)
        self._strays = StrayWatch(places.specs)
        self._unrecorded: tuple[Process, ...] = ()
        self._daemon = Daemon(places, self._rpc, python=python)
        self._images = Images(places, self._rpc)
        self._shares = MemoryShares()

    # --- seeing

    def observe(self, *, shares: bool = False, usage: bool = True) -> Observed:
        """One snapshot: supervisord's process list, the records, the launch documents and /proc."""
        try:
            rows = self._rpc.processes()
        except DaemonDown:
            self._refuse_unanswering_daemon()
            strays = Table.read(self.places.account_uids()).strays(self.places.specs, supervised={})
            return Observed(self.places.fleet, up=False, strays=strays)
        accounts = self.places.account_uids()
        table = Table.read(accounts) if usage or shares else None
        owned = _owned(rows)
        supervised = {name: row.pid for name, (row, _) in owned.items() if row.pid}
        if shares and table is not None:
            self._shares.read_ahead(supervised.values(), table)
        unstarted = self._folder.programs(besides=owned.keys())
        self._readings.begin(owned.keys(), accounts=accounts)
        sights = [
            self._readings.sight(name, row, digest, launch=self._folder.launch(name), table=table)
            for name, (row, digest) in owned.items()
        ]
        self._unrecorded = tuple(one.process for one in sights if one.record is None and one.process is not None)
        replicas = [observed(one) for one in sights]
        if shares and table is not None:
            replicas = [self._shares.shared(one, table) for one in replicas]
        replicas += [found for name in unstarted if (found := _unstarted(self._folder, name)) is not None]
        return Observed(
            fleet=self.places.fleet,
            up=True,
            replicas={replica.name: replica for replica in sorted(replicas, key=lambda it: (it.group, it.index))},
            strays=self._strays.look(supervised, uids=accounts, table=table),
            foreign=tuple(sorted(row.full_name for row in rows if _is_foreign(row))),
        )

    def renew_records(self) -> bool:
        """Write again what the last observation missed of the records of programs that keep none themselves."""
        return bool(self._unrecorded) and renew(self._folder, self._unrecorded)

    # --- the daemon

    def prepare(self, desired: Desired) -> None:
        """Make supervisord run with room for ``desired``.

        A daemon starts empty: program files of an earlier one are removed first, so that nothing runs without a
        step. Replicas of the earlier daemon that still drain hold their lock, and a new one waits for it.
        """
        replicas = sum(group.replicas + group.rollout.max_surge for group in desired.groups.values())
        self._folder.make()
        if BROKER_GROUP in desired.groups:
            embedded.prepare(self.places)
        if self._is_up():
            self._daemon.widen(replicas=replicas)
            return
        self._folder.clear()
        self._folder.refuse_foreign()
        self._daemon.start(replicas=replicas)

    def preload(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
        """Load the images that these replicas will be forked from, while they wait for others."""
        with contextlib.suppress(FleetError, OSError):
            self._images.preload(
                [self._folder.document(one, "", secrets) for one in replicas if forks_from_image(one.spec)]
            )

    def _is_up(self) -> bool:
        """Whether it runs and answers; waits for the end of one that is shutting down."""
        try:
            self._rpc.ping()
        except DaemonLeaves:
            if not self._daemon.await_shutdown(timeout_seconds=self._rpc_timeout_seconds):
                raise
            return False
        except DaemonDown:
            if not self._daemon.await_shutdown(timeout_seconds=_LAST_MOMENTS_SECONDS):
                self._refuse_unanswering_daemon()
            return False
        return True

    def shutdown(self) -> None:
        """End supervisord. Refused while anything runs under it, foreign programs included."""
        try:
            rows = self._rpc.processes()
        except DaemonDown:
            self._refuse_unanswering_daemon()
            self._daemon.remove_traces()
            return
        alive = sorted(row.full_name for row in rows if row.state not in STOPPED_STATES and not _keeps_logs(row))
        if alive:
            message = f"supervisord still runs {', '.join(alive[:5])}{' …' if len(alive) > 5 else ''}"
            raise Refused(message, hint="stop these first; what fleet does not own is for its owner to stop")
        self._daemon.end()
        self._folder.clear()

    def close(self) -> None:
        """Close the connection; supervisord keeps running."""
        self._rpc.close()

    def _refuse_unanswering_daemon(self) -> None:
        """Raise Unreachable for a daemon that runs and does not answer: a second one would run everything twice."""
        if pids := self._daemon.pids():
            message = f"supervisord runs ({', '.join(map(str, pids))}) but does not listen on {self.places.socket}"
            raise Unreachable(
                message, hint="`fleet doctor --fix` ends it; its workers drain and start again at the next apply"
            )

    # --- replicas

    def start(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
        """Write the files of these replicas, have them read in one go, and run them."""
        owned = _owned(self._rpc.processes())
        here = [replica for replica in replicas if replica.name in owned and owned[replica.name][1] == replica.digest]
        kept = {replica.name for replica in here}
        fresh = [replica for replica in replicas if replica.name not in kept]
        self._strike_stopped([replica.name for replica in fresh if replica.name in owned], owned)
        self._folder.restore(set(owned) - {replica.name for replica in fresh})
        self._folder.refuse_foreign()
        self._daemon.restore_configuration(replicas=len(owned) + len(fresh))
        if fresh:
            self._add(fresh, secrets, running=owned.keys())
        stopped = [replica for replica in here if owned[replica.name][0].state in STOPPED_STATES]
        self._settle(stopped, secrets)
        self.run_again([replica.name for replica in stopped])

    def _add(self, fresh: Sequence[Replica], secrets: Mapping[str, str], *, running: Collection[str]) -> None:
        programs = {replica: self._program(replica) for replica in fresh}
        names = {replica.name for replica in fresh}
        self._folder.write(programs, secrets=secrets)
        try:
            _check(self._rpc.reload(), written=names, running=running)
        except FleetError:
            self._folder.remove(names)
            raise
        self._spawn([replica.name for replica in fresh])

    def _spawn(self, names: Sequence[str]) -> None:
        """Add a few at a time: supervisord answers no call while it forks what was added, and while dozens of workers
        import their apps a hundred forks take longer than any call should."""
        self._images.make_ready(names)
        for first in range(0, len(names), _SPAWNED_AT_ONCE):
            self._rpc.add(names[first : first + _SPAWNED_AT_ONCE])

    def _program(self, replica: Replica) -> str:
        spec = replica.spec
        program = config.Program(replica.name, replica.digest, spec.drain_timeout_seconds, spec.stop.signal)
        return config.program_text(program, places=self.places, python=self._python)

    def _strike_stopped(self, names: Sequence[str], owned: Mapping[str, tuple[Process, str]]) -> None:
        """Remove stopped programs of a different digest. Raises FleetError for one that runs."""
        for name in names:
            row, digest = owned[name]
            if row.state not in STOPPED_STATES:
                raise FleetError(f"{name} still runs with digest {digest}", hint="stop it first")
        self._rpc.remove(names)

    def resize(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
        """Write their settings into their launch documents, which running workers read; supervisord sees nothing.

        A document that is written again without a change makes its worker follow it again.
        """
        owned = _owned(self._rpc.processes())
        for replica in replicas:
            digest = owned[replica.name][1] if replica.name in owned else "none"
            if digest != replica.digest:
                raise FleetError(f"{replica.name} has digest {digest}, not {replica.digest}", hint="run `fleet apply`")
        self._folder.rewrite({replica: self._program(replica) for replica in replicas}, secrets=secrets)

    def _settle(self, replicas: Sequence[Replica], secrets: Mapping[str, str]) -> None:
        """Write these settings for replicas that are about to run again."""
        known = {replica.name: self._folder.launch(replica.name) for replica in replicas}
        stale = [one for one in replicas if (launch := known[one.name]) is None or launch.spec != one.spec]
        self._folder.rewrite({replica: self._program(replica) for replica in stale}, secrets=secrets)

    def stop(self, names: Sequence[str]) -> None:
        """Signal all of them in one call. One that somebody had stopped (SIGSTOP) goes on, so that it can drain.

        A replica that has just crashed is about to be started again: that is waited for, because supervisord refuses
        to stop what does not run.
        """
        end = time.monotonic() + _RESPAWN_SECONDS
        while True:
            rows = [row for name, (row, _) in _owned(self._rpc.processes()).items() if name in set(names)]
            self._rpc.stop([row.full_name for row in rows if row.state in LIVE_STATES])
            for row in rows:
                wake(row.pid, self.places.specs)
            if not any(_respawns(row) for row in rows) or time.monotonic() > end:
                return
            time.sleep(_POLL_SECONDS)

    def run_again(self, names: Sequence[str]) -> None:
        """Start stopped replicas as they are, with a clean crash history."""
        owned = _owned(self._rpc.processes())
        wanted = [owned[name][0] for name in names if name in owned and owned[name][0].state not in LIVE_STATES]
        for row in wanted:
            if row.state is ProcessState.STOPPING:
                raise FleetError(f"{row.group} is still stopping", hint="wait until it has stopped")
            self.places.starts_file(row.group).unlink(missing_ok=True)
            launch = self._folder.launch(row.group)
            if launch is not None and launch.spec.restart.policy != "always":
                self._folder.remove_records([row.group])  # it says that the program has ended for good
        self._images.make_ready([row.group for row in wanted])
        for first in range(0, len(wanted), _SPAWNED_AT_ONCE):
            self._rpc.start([row.full_name for row in wanted[first : first + _SPAWNED_AT_ONCE]])

    def forget(self, names: Sequence[str]) -> None:
        """Remove stopped replicas from supervisord, with their files. Their logs stay.

        supervisord reads no file again: it runs what was added, not what it has read.
        """
        try:
            owned = _owned(self._rpc.processes())
        except DaemonDown:
            owned = {}
        for name in names:
            if name in owned and owned[name][0].state not in STOPPED_STATES:
                raise FleetError(f"{name} still runs", hint="stop it first")
        self._rpc.remove([name for name in names if name in owned])
        self._folder.remove(names)
        self._folder.remove_records(names)
        if owned:
            self._daemon.restore_configuration(replicas=len(owned))

    def hold(self, names: Sequence[str], *, on: bool) -> None:
        """Set the byte in their records that workers look at between two fetches."""
        for name in names:
            record = self.places.record_file(name)
            records.set_hold(record, on=on)
            look_now(record)

    def reap(self, pids: Sequence[int]) -> None:
        """Ask strays to drain and exit, except those that drain already: a second TERM would interrupt their tasks.

        One that somebody stopped would never hear of it, and goes on.
        """
        for pid in set(pids) - self._supervised_pids():
            if not _drains(pid, self.places):
                signal_marked(pid, self.places.specs, signal.SIGTERM)
            wake(pid, self.places.specs)

    def _supervised_pids(self) -> set[int]:
        try:
            return {row.pid for row in self._rpc.processes() if row.pid}
        except DaemonDown:
            return set()


def _drains(pid: int, places: Places) -> bool:
    mark = read_mark(pid, places.specs)
    record = records.read(places.record_file(mark.replica)) if mark is not None else None
    return record is not None and record.pid == pid and record.state in ("draining", "stopped")


def _unstarted(folder: Folder, name: str) -> ObservedReplica | None:
    """Files without a process: an apply was killed between writing and starting."""
    launch = folder.launch(name)
    if launch is None:
        return None
    record = records.read(folder.places.record_file(name))
    return observed(Sight(name, launch.digest, None, launch, record, memory_bytes=0, now=time.time()))


def _identity(row: Process) -> tuple[str, str] | None:
    return config.parse_process_name(row.group, row.name)


def _keeps_logs(row: Process) -> bool:
    return row.group == config.LOG_KEEPER


def _is_foreign(row: Process) -> bool:
    return _identity(row) is None and not _keeps_logs(row)


def _owned(rows: Sequence[Process]) -> dict[str, tuple[Process, str]]:
    """Replica name -> its process and digest; foreign programs are left out."""
    found = ((row, _identity(row)) for row in rows)
    return {identity[0]: (row, identity[1]) for row, identity in found if identity is not None}


def _respawns(row: Process) -> bool:
    return row.state is ProcessState.EXITED and row.exit_status != PARKED_EXIT


def _check(changes: Changes, *, written: Collection[str], running: Collection[str]) -> None:
    """What the daemon read must be what was written. Files of a killed apply may be added too: they start nothing.

    Changes of foreign programs are ignored.
    """
    missing = sorted(set(written) - changes.added)
    strange = sorted((changes.changed | changes.removed) & set(running) | (changes.added & set(running)))
    if missing:
        message = f"supervisord did not see the new program files of {', '.join(missing)}"
        raise FleetError(message, hint="is something else writing to conf.d? `fleet doctor` lists foreign files")
    if strange:
        message = f"supervisord sees other changes than this step made: {', '.join(strange)}"
        raise FleetError(message, hint="program files were edited or removed by hand: run `fleet doctor --fix`")
