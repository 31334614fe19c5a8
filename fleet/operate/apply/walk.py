"""Carries out a plan: each step, the calls it is made of, and one event each time something happens to it.

It decides nothing. The plan says which steps there are, in which wave and after which others; this module asks the
backend, waits until an observation shows the effect, and stops the rollout at the first step that fails. Everything it
asks for is idempotent, so a walk that was killed is finished by carrying out the next plan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fleet.backends.base import Backend
from fleet.core.canary import Verdict
from fleet.core.desired import Desired, group_of
from fleet.core.observed import Observed, State
from fleet.core.plan import Action, Plan, Step
from fleet.core.text.format import duration
from fleet.errors import FleetError, Interrupted, NotReady, Unreachable
from fleet.operate.apply.effects import (
    RUNS,
    RUNS_ON,
    START_AGAIN,
    Request,
    RunningStep,
    ask,
    cannot_start,
    condition,
    failure_of,
    is_ready,
    lacks_supervisor,
    requests_of,
    took_effect,
    tries_again,
    verdict_of,
)
from fleet.operate.apply.events import (
    Event,
    Listener,
    Phase,
    Report,
    WalkOptions,
    interrupted,
    not_ready,
    steps_aborted,
    steps_failed,
)
from fleet.operate.apply.pacing import Pacing
from fleet.operate.apply.watch import Watch

PAUSE_MIN_SECONDS = 0.02
PAUSE_MAX_SECONDS = 0.5
PAUSE_GROWTH = 1.25
"""A quarter of what was waited before passes between two looks, so that no start looks much longer than it was."""


def apply(
    plan: Plan,
    backend: Backend,
    *,
    desired: Desired,
    secrets: Mapping[str, str],
    on_event: Listener | None = None,
    options: WalkOptions | None = None,
) -> Report:
    """Carry out a plan to its end. Raises RolloutFailed, NotReady, Unreachable or Interrupted."""
    if starts := [step for step in plan.changes if step.action in RUNS]:
        backend.prepare(desired)
        backend.preload([step.target for step in starts if step.target is not None], secrets=secrets)
    return _Walk(plan, backend, secrets, on_event or _no_listener, options or WalkOptions()).run()


def _no_listener(_events: Sequence[Event]) -> None:
    """Does nothing with events."""


def _supervisor_lost(fleet: str, one: RunningStep) -> Unreachable:
    doing = "changing its settings" if one.request is Request.RESIZE else "starting"
    return Unreachable(
        f"fleet {fleet}: the supervisor went away while {one.step.replica} was {doing}",
        hint="run the same command again to resume",
    )


def _comparison(step: Step) -> str:
    """What to say when a comparison begins."""
    assert step.canary is not None
    return f"{step.canary.name}: compared with the old for {duration(step.canary.seconds)}"


def _may_go_on_beside(running: Sequence[RunningStep], awaited: Collection[str]) -> bool:
    """Whether the next wave, if there is one, may begin beside these."""
    steps = [one.step for one in running]
    return bool(awaited) and all(
        one.action is Action.START and one.canary is None and one.id not in awaited for one in steps
    )


def _started_again(step: Step) -> RunningStep:
    return RunningStep(replace(step, action=Action.RESTART, reason="it could not start before"), list(START_AGAIN))


def _is_hopeless(step: Step, seen: Observed) -> bool:
    replica = seen.replicas.get(step.replica)
    return replica is None or replica.state is State.FAILED or cannot_start(step, seen)


@dataclass(slots=True)
class _Walk:
    """``seen`` is the last observation; ``done`` holds steps by id, ``running`` those that were begun.

    began: when the first step of a group was begun, by the clock of the walk.  paused_seconds: how long it did nothing
    because a person said so, which counts against no limit.
    """

    plan: Plan
    backend: Backend
    secrets: Mapping[str, str]
    on_event: Listener
    options: WalkOptions
    began_at: float = field(init=False)
    seen: Observed = field(init=False)
    pacing: Pacing = field(init=False)
    done: dict[str, Step] = field(default_factory=dict)
    failures: list[tuple[Step, str]] = field(default_factory=list)
    running: list[RunningStep] = field(default_factory=list)
    watch: Watch = field(default_factory=Watch)
    began: dict[str, float] = field(default_factory=dict)
    paused_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.began_at = self.options.now()
        self.seen = self.backend.observe()
        self.pacing = Pacing(self.options.starts_at_once)

    def run(self) -> Report:
        changes = self.plan.changes
        self._tell("planned", ((step, step.reason) for step in changes))
        for step in self.plan.steps:
            if step.action is Action.KEEP:
                self.done[step.id] = step
        awaited = {one for step in changes for one in step.after}
        for wave in sorted({step.wave for step in changes}):
            self._walk_wave([step for step in changes if step.wave == wave], awaited)
            self._raise_failures()
        self._walk_wave([])
        self._raise_failures()
        if self.options.wait:
            self._wait_for_kept([step for step in self.plan.steps if step.action in RUNS_ON and step.target])
            self._look_once_more()
        self._check_aborted()  # an order that came with the last step is not lost
        return Report(tuple(self._done_changes()), self.options.now() - self.began_at, self.seen)

    def _walk_wave(self, waiting: list[Step], awaited: Collection[str] = ()) -> None:
        """Rounds of: begin what may begin, ask, look, move on. After a failure, begun steps are still finished.

        Starts whose id is not in ``awaited`` go on beside the next wave: plans count them as running from here on.
        """
        pause = PAUSE_MIN_SECONDS
        while waiting or (self.running and (self.failures or not _may_go_on_beside(self.running, awaited))):
            self._check_may_go_on()
            self._check_deadlines(waiting)
            paused = bool(waiting) and not self.failures and self.options.orders().paused
            if not self.failures and not paused:
                waiting = self._begin(waiting)
            if not self.running and not paused:
                return
            if paused and not self.running:
                self._stay_paused()
                continue
            self._ask()
            moved = self._look()
            pause = PAUSE_MIN_SECONDS if moved else min(pause * PAUSE_GROWTH, PAUSE_MAX_SECONDS)
            if self.running and not moved:
                self.options.sleep(pause)

    def _stay_paused(self) -> None:
        """Nothing runs, and nothing more may begin: look whether what came up stays up."""
        began = self.options.now()
        self.options.sleep(PAUSE_MAX_SECONDS)
        self.paused_seconds += self.options.now() - began
        self.seen = self.backend.observe()
        self._fail_crashed()

    # --- begin, and ask

    def _begin(self, waiting: list[Step]) -> list[Step]:
        """Begin every step that may begin; returns the others."""
        ready = [step for step in waiting if all(one in self.done for one in step.after)]
        if not ready and waiting and not self.running:
            self._fail(waiting[0], f"waits for {', '.join(waiting[0].after)}, which is in no earlier wave")
            return waiting
        ready = self.pacing.allowed(ready, self.running)
        self._tell("started", ((step, step.reason) for step in ready))
        for step in ready:
            self.watch.begin(step)
            self.began.setdefault(group_of(step.replica), self._counted())
            self.running.append(RunningStep(step, requests_of(step, self.seen.replicas.get(step.replica))))
        begun = {step.id for step in ready}
        return [step for step in waiting if step.id not in begun]

    def _ask(self) -> None:
        """One call per kind of request, for every step that is at it."""
        for request in Request:
            batch = [one for one in self.running if not one.asked and one.request is request]
            if batch:
                self._ask_for(request, batch)

    def _ask_for(self, request: Request, batch: Sequence[RunningStep]) -> None:
        for one in batch:
            known = self.seen.replicas.get(one.step.replica)
            one.was_parked = known is not None and known.state is State.FAILED
            one.was_starting = one.request is Request.START and known is not None and known.state is State.STARTING
            one.asked, one.asked_at = True, self.options.now()
        try:
            ask(self.backend, request, [one.step for one in batch], secrets=self.secrets)
        except (Unreachable, Interrupted) as error:
            self._tell("failed", ((one.step, error.message) for one in batch))
            raise
        except FleetError as error:
            for one in batch:
                self._fail(one.step, error.message)

    # --- look, and move on

    def _look(self) -> bool:
        """Observe once and move every step whose current request took effect. True when any moved."""
        self.seen = self.backend.observe()
        moves = [self._move(one) for one in tuple(self.running)]
        self._fail_crashed()
        return any(moves)

    def _fail_crashed(self) -> None:
        """What came up and crashed since fails the rollout, however long ago its step was done."""
        for step, reason in self.watch.crashed(self.seen, now=self.options.now()):
            self.done.pop(step.id, None)
            self._fail(step, reason)

    def _look_once_more(self) -> None:
        if self.watch.ready:
            self.seen = self.backend.observe()
            self._fail_crashed()
            self._raise_failures()

    def _raise_failures(self) -> None:
        if self.failures:
            raise steps_failed(self.plan, self.failures, done=len(self._done_changes()))

    def _check_deadlines(self, waiting: Sequence[Step]) -> None:
        """A group that is not done in time fails: what is under way, or else what is to come next."""
        steps = [one.step for one in self.running] or list(waiting[:1])
        for step in steps if not self.failures else ():
            group, limit = group_of(step.replica), step.deadline_seconds
            if limit is not None and self._counted() - self.began.get(group, self._counted()) > limit:
                self._fail(step, f"the rollout of {group} was not done within {duration(limit)} (rollout.deadline)")

    def _move(self, one: RunningStep) -> bool:
        now = self.options.now()
        if one.step.canary is not None and (orders := self.options.orders()).promoted:
            self._tell("judged", [(one.step, f"{one.step.canary.name}, not judged: promoted {orders.why}")])
            one.step = replace(one.step, canary=None, later_canaries=())
        compared = one.ready_at is not None
        if took_effect(one, self.seen, now=now, wait=self.options.wait):
            verdict = verdict_of(one, self.seen) if self.options.wait else None
            if verdict is not None and not self._is_accepted(one.step, verdict):
                return True
            if verdict is not None and one.step.later_canaries:
                one.compare_again(self.seen, now=now)
                self._tell("compared", [(one.step, _comparison(one.step))])
                return True
            one.left.pop(0)
            one.asked = False
            if not one.left:
                self._finish(one)
            return True
        if one.step.canary is not None and one.ready_at is not None and not compared:
            self._tell("compared", [(one.step, _comparison(one.step))])
        if lacks_supervisor(one, self.seen):
            raise _supervisor_lost(self.plan.fleet, one)
        if tries_again(one, self.seen):
            return True
        if reason := failure_of(one, self.seen, now=now):
            self._fail(one.step, reason)
            return True
        if self.options.passing:
            self._finish(one)
            return True
        return False

    def _is_accepted(self, step: Step, verdict: Verdict) -> bool:
        self._tell("judged", [(step, str(verdict))])
        if not verdict.passed:
            self._fail(step, str(verdict))
        return verdict.passed

    def _finish(self, one: RunningStep) -> None:
        self.running.remove(one)
        if self.options.wait:
            self.pacing.learn(one, now=self.options.now())
        self.done[one.step.id] = one.step
        if self.options.wait and not self.options.passing:
            since = self.options.now() if one.ready_since is None else one.ready_since
            self.watch.add(one.step, self.seen.replicas.get(one.step.replica), since=since)
        self._tell("done", [(one.step, one.step.reason)])

    def _fail(self, step: Step, reason: str) -> None:
        self.running = [one for one in self.running if one.step.id != step.id]
        self.failures.append((step, reason))
        self._tell("failed", [(step, reason)])

    def _done_changes(self) -> list[Step]:
        return [step for step in self.plan.changes if step.id in self.done]

    def _wait_for_kept(self, kept: Sequence[Step]) -> None:
        """Wait until replicas that the plan did not change are ready too."""
        began, pause = self.options.now(), PAUSE_MIN_SECONDS
        tried: set[str] = set()
        while kept:
            self.seen = self.backend.observe()
            late = [step for step in kept if not is_ready(self.seen.replicas.get(step.replica), "")]
            if not late:
                return
            self._check_may_go_on(late)
            if unable := [step for step in late if step.id not in tried and cannot_start(step, self.seen)]:
                tried.update(step.id for step in unable)
                self._start_again(unable)
                continue
            waited = self.options.now() - began
            gone = [step for step in late if waited > step.ready_timeout_seconds or _is_hopeless(step, self.seen)]
            if gone or not self.seen.up:
                raise self._not_ready(late)
            pause = min(pause * PAUSE_GROWTH, PAUSE_MAX_SECONDS)
            self.options.sleep(pause)

    def _start_again(self, steps: Sequence[Step]) -> None:
        """They were starting when the plan was made, and failed for a cause that may be gone since."""
        self.running = [_started_again(step) for step in steps]
        self._walk_wave([])
        self._raise_failures()

    # --- how it ends early, and what it tells

    def _check_may_go_on(self, late: Sequence[Step] = ()) -> None:
        """Raise Interrupted after a signal, NotReady after the timeout. ``late``: what is waited for beside steps."""
        if signum := self.options.interrupted():
            raise interrupted(self.plan, done=len(self._done_changes()), signum=signum)
        self._check_aborted()
        limit = self.options.timeout_seconds
        if limit is not None and self._counted() - self.began_at > limit:
            raise self._not_ready([*(one.step for one in self.running), *late], f"not ready within {limit:g} s")

    def _check_aborted(self) -> None:
        if (orders := self.options.orders()).aborted:
            raise steps_aborted(self.plan, done=len(self._done_changes()), why=orders.why)

    def _not_ready(self, late: Sequence[Step], head: str = "the fleet is not ready") -> NotReady:
        conditions = [(step.replica, condition(self.seen.replicas.get(step.replica))) for step in late]
        return not_ready(self.plan, conditions, head)

    def _tell(self, phase: Phase, what: Iterable[tuple[Step, str]]) -> None:
        elapsed = self.options.now() - self.began_at
        if events := [Event(phase, step, reason, elapsed) for step, reason in what]:
            self.on_event(events)

    def _counted(self) -> float:
        """The clock of the walk, standing still while it is paused."""
        return self.options.now() - self.paused_seconds
