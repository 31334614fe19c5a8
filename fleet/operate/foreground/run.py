"""Keeps one fleet up from its apply to the end of this process: follows its files, fixes its daemon, drains at the end.

What the fleet is told while it runs (``fleet scale --live``, ``fleet apply`` by hand) stays in force: this loop holds
the fleet's lock only while it changes something.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from fleet.backends.supervisor.daemon import recorded_pid
from fleet.core.backoff import backoff_seconds
from fleet.core.desired import nothing
from fleet.errors import Damaged, FleetError, Interrupted, LockHeld
from fleet.inputs import machine
from fleet.inputs.manifest import from_revision
from fleet.operate.apply.events import STARTS_PER_CORE, WalkOptions
from fleet.operate.change import carry_out, take_down
from fleet.operate.foreground.done import Finished
from fleet.operate.local_fleet import LocalFleet
from fleet.state.applied import Applied
from fleet.worker import sd_notify

INTERRUPTED = 128
LOOK_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


@dataclass(slots=True)
class Signalled:
    """Signals as values. number: of the one that asked for the end, or 0.  again: a second one came."""

    number: int = 0
    again: bool = False
    reload: bool = False


@dataclass(slots=True)
class Foreground:
    """One fleet, one process.

    apply: bring the fleet to its files; raises FleetError.  tell: a line for whoever reads the log.  wait: for so many
    seconds, or until a signal came.  keep_going: a first apply that fails is tried again instead of ending the run.
    exit_when_done: end once no queue and no worker has a task left.
    """

    fleet: LocalFleet
    apply: Callable[[], None]
    tell: Callable[[str], None]
    wait: Callable[[float], object]
    signalled: Signalled
    keep_going: bool = False
    exit_when_done: bool = False
    _failures: int = field(default=0, init=False)
    _is_due: float = field(default=0.0, init=False)

    def run(self) -> None:
        """Until the end is asked for, the fleet is taken down elsewhere, or its work is done. Then it has drained.

        Raises FleetError when the fleet cannot be brought up, and Interrupted for a second signal.
        """
        with self.fleet.foreground_lock():
            ran_before = self._daemon_lives()
            try:
                self._bring_up()
            except FleetError:
                if not ran_before:
                    self._drain()
                raise
            self._watch()
            self._drain()

    # --- up

    def _bring_up(self) -> None:
        """READY once the fleet is what its files say; with keep_going also when that is still being tried."""
        failed = not self._applied(raises=not self.keep_going)
        words = "a part of the fleet is not up; trying again" if failed else "up"
        sd_notify.tell("READY=1", f"STATUS=fleet {self.fleet.name}: {words}")
        if not failed:
            self.tell(f"fleet {self.fleet.name} is up")

    def _applied(self, *, raises: bool = False) -> bool:
        """Apply the files. A failure is told, and tried again later."""
        return self._tried(self.apply, "apply", raises=raises)

    def _tried(self, act: Callable[[], None], what: str, *, raises: bool = False) -> bool:
        try:
            act()
        except Interrupted as error:  # the end was asked for, and comes next
            self.signalled.number = self.signalled.number or error.exit_code - INTERRUPTED
            return True
        except LockHeld as held:
            self._put_off()
            self.tell(f"{what} waits: {held.message}")
            return False
        except FleetError as error:
            if raises:
                raise
            self._put_off()
            self.tell(f"{what} failed: {error.message}" + (f" ({error.hint})" if error.hint else ""))
            return False
        self._failures = 0
        return True

    def _put_off(self) -> None:
        pause = backoff_seconds(self._failures, initial_seconds=LOOK_SECONDS, max_seconds=LONGEST_PAUSE_SECONDS)
        self._failures += 1
        self._is_due = self.fleet.now() + pause

    # --- meanwhile

    def _watch(self) -> None:
        finished = Finished(self.fleet) if self.exit_when_done else None
        try:
            while not self.signalled.number:
                if self._is_down():
                    self.tell(f"fleet {self.fleet.name} was taken down")
                    return
                self._look()
                if finished is not None and not self._failures and finished.look():
                    self.tell("no task is left")
                    return
                self.wait(LOOK_SECONDS)
        finally:
            if finished is not None:
                finished.close()

    def _is_down(self) -> bool:
        """Somebody took it down, and is done with it."""
        applied = self._last_word()
        return applied is not None and applied.down and not self._daemon_lives()

    def _last_word(self) -> Applied | None:
        """What was applied last; None where nothing was, or where nobody can read it any more: the next apply says it
        again."""
        try:
            return self.fleet.applied()
        except Damaged:
            return None

    def _has_started(self) -> bool:
        return self._daemon_lives() or self._last_word() is not None

    def _daemon_lives(self) -> bool:
        return recorded_pid(self.fleet.places) is not None

    def _look(self) -> None:
        if self.signalled.reload:
            self.signalled.reload = False
            sd_notify.tell("STATUS=applying its files again")
            if self._applied():
                self.tell("the files were applied again")
            sd_notify.tell(f"STATUS=fleet {self.fleet.name}: up")
        elif self._failures:
            if self.fleet.now() >= self._is_due:
                self._try_again()
        elif not self._daemon_lives():
            self.tell("supervisord is gone; its workers drain and are started again")
            self._try_again()

    def _try_again(self) -> None:
        if self._last_word() is None or (self._failures and self._daemon_lives()):
            done = self._applied()
        else:
            done = self._tried(self._restore, "restart")
        if done and not self.signalled.number:
            self.tell(f"fleet {self.fleet.name} is up again")
            sd_notify.tell(f"STATUS=fleet {self.fleet.name}: up")

    def _restore(self) -> None:
        """What was applied last, whatever the files say by now: a new revision is nobody's wish at this moment."""
        fleet = self.fleet
        with fleet.lock("fleet run"):
            applied = fleet.applied()
            if applied is None or applied.down:
                return
            desired, secrets = fleet.desired_of(from_revision(fleet.history.get(applied.revision)))
            change = fleet.planned(desired, secrets)
            starts = STARTS_PER_CORE * machine.cpus()
            options = WalkOptions(starts_at_once=starts, interrupted=self._signal)
            carry_out(fleet, change, verb="run", reason="supervisord was gone", options=options)

    # --- down

    def _drain(self) -> None:
        """All of it, for as long as its drains may take; a second signal ends that at once."""
        if not self._has_started() or self._is_down():
            return
        self.tell("draining; a second signal ends it at once")
        sd_notify.tell("STOPPING=1", f"STATUS=fleet {self.fleet.name}: draining")
        while True:
            try:
                with self.fleet.lock("fleet run"):
                    self._extend_stop_timeout()
                    take_down(self.fleet, options=WalkOptions(interrupted=self._second_signal))
                break
            except LockHeld as held:
                self.tell(f"waiting: {held.message}")
                if self._second_signal():
                    raise Interrupted("ended before the fleet had drained", signum=self.signalled.number) from held
                self.wait(LOOK_SECONDS)
        self.tell(f"fleet {self.fleet.name} has drained")

    def _extend_stop_timeout(self) -> None:
        """What systemd gives was reckoned when the unit was written; the fleet may drain longer by now."""
        plan = self.fleet.planned(nothing(self.fleet.name), prune=True).plan
        seconds = plan.worst_case_seconds + LONGEST_PAUSE_SECONDS
        sd_notify.tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def _signal(self) -> int:
        return self.signalled.number

    def _second_signal(self) -> int:
        return self.signalled.number if self.signalled.again else 0
