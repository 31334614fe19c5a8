"""Walks a plan: one step, the calls it is made of, and one event each time something happens to it.

It decides nothing. Which steps there are, in which wave and after which others was said by the plan; this module asks
the backend, waits until the world shows the effect, and stops the rollout at the first step that fails. Everything it
asks for is idempotent, so a walk that was killed is finished by walking the next plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from fleet.backends.base import Backend
from fleet.core.desired import Desired, Replica
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.plan import Action, Plan, Step
from fleet.errors import FleetError, Interrupted, NotReady, RolloutFailed, Unreachable

PAUSE_MIN_SECONDS = 0.02
PAUSE_MAX_SECONDS = 0.5
PAUSE_GROWTH = 1.5
MARGIN_SECONDS = 30.0  # on top of a grace: the backend kills what outlives it, and that takes a moment too
SETTLE_SECONDS = 2.0  # a replica that was parked before may look parked for a moment after it was asked to start

Phase = Literal["planned", "started", "done", "failed"]


class StepsFailed(RolloutFailed):
    """Steps of a rollout failed; the rest was not begun."""

    def __init__(self, message: str, *, hint: str, failures: Sequence[tuple[Step, str]]) -> None:
        super().__init__(message, hint=hint)
        self.failures = tuple(failures)


class Request(StrEnum):
    """What is asked of the backend; an action is a sequence of these. The order here is the order within one round."""

    STOP = "stop"
    FORGET = "forget"
    RESIZE = "resize"
    AGAIN = "again"
    START = "start"
    HOLD = "hold"
    RELEASE = "release"
    REAP = "reap"


REQUESTS: Mapping[Action, tuple[Request, ...]] = {
    Action.START: (Request.START,),
    Action.REPLACE: (Request.STOP, Request.FORGET, Request.START),
    Action.RESTART: (Request.STOP, Request.RESIZE, Request.AGAIN),
    Action.RESIZE: (Request.RESIZE,),
    Action.DRAIN: (Request.STOP, Request.FORGET),
    Action.STOP: (Request.STOP, Request.FORGET),
    Action.FORGET: (Request.FORGET,),
    Action.HOLD: (Request.HOLD,),
    Action.RELEASE: (Request.RELEASE,),
    Action.REAP: (Request.REAP,),
}


RUNS = frozenset({Action.START, Action.REPLACE, Action.RESTART})
RUNS_ON = frozenset({Action.KEEP, Action.RESIZE})


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to a step. ``seconds`` counts from the start of the walk; ``reason`` is for people."""

    phase: Phase
    step: Step
    reason: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """What a walk did. ``observed`` is the last look at the world."""

    done: tuple[Step, ...]
    seconds: float
    observed: Observed


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one walk.

    timeout_seconds: give up waiting after this long (None: never); what was asked for goes on without us.
    wait: also wait until what was started, or kept, is ready.
    passing: wait for nothing at all: ask once and leave the rest to the next look, which is never far.
    starts_at_once: workers that may be on their way up together (None: all). Importing an app is processor work: a
        hundred at once would make each of them late and starve the tasks that run.
    interrupted: the number of a signal that asked us to stop, or 0.
    """

    timeout_seconds: float | None = None
    wait: bool = True
    passing: bool = False
    starts_at_once: int | None = None
    interrupted: Callable[[], int] = lambda: 0
    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


Listener = Callable[[Sequence[Event]], None]


def apply(
    plan: Plan,
    backend: Backend,
    *,
    desired: Desired,
    secrets: Mapping[str, str],
    tell: Listener | None = None,
    terms: Terms | None = None,
) -> Report:
    """Bring the world to where the plan ends. Raises RolloutFailed, NotReady, Unreachable or Interrupted."""
    if any(step.action in RUNS for step in plan.changes):
        backend.prepare(desired)
    return _Walk(plan, backend, secrets, tell or _deaf, terms or Terms()).run()


def _deaf(_events: Sequence[Event]) -> None:
    """Nobody listens."""


@dataclass(slots=True)
class _Going:
    """A step under way: which of its requests is current, and how far that one is."""

    step: Step
    left: list[Request]
    asked: bool = False
    asked_at: float = 0.0
    was_parked: bool = False

    @property
    def request(self) -> Request:
        return self.left[0]


@dataclass(slots=True)
class _Walk:
    plan: Plan
    backend: Backend
    secrets: Mapping[str, str]
    tell: Listener
    terms: Terms
    began_at: float = field(init=False)
    done: dict[str, Step] = field(default_factory=dict)
    failures: list[tuple[Step, str]] = field(default_factory=list)
    going: list[_Going] = field(default_factory=list)
    seen: Observed = field(init=False)

    def __post_init__(self) -> None:
        self.began_at = self.terms.now()
        self.seen = self.backend.observe()

    def run(self) -> Report:
        changes = self.plan.changes
        self._tell("planned", ((step, step.reason) for step in changes))
        for step in self.plan.steps:
            if step.action is Action.KEEP:
                self.done[step.id] = step
        for wave in sorted({step.wave for step in changes}):
            self._walk_wave([step for step in changes if step.wave == wave])
            if self.failures:
                raise self._failed()
        if self.terms.wait:
            self._wait_for_kept([step for step in self.plan.steps if step.action in RUNS_ON and step.target])
        finished = tuple(step for step in changes if step.id in self.done)
        return Report(finished, self._elapsed(), self.seen)

    def _walk_wave(self, waiting: list[Step]) -> None:
        """Rounds of: begin what may begin, ask, look, move on. After a failure what is under way is still finished."""
        pause = PAUSE_MIN_SECONDS
        while waiting or self.going:
            self._check_terms()
            if not self.failures:
                waiting = self._begin(waiting)
            if not self.going:
                return
            self._ask()
            moved = self._look()
            pause = PAUSE_MIN_SECONDS if moved else min(pause * PAUSE_GROWTH, PAUSE_MAX_SECONDS)
            if self.going and not moved:
                self.terms.sleep(pause)

    def _begin(self, waiting: list[Step]) -> list[Step]:
        ready = [step for step in waiting if all(one in self.done for one in step.after)]
        if not ready and waiting and not self.going:
            self._fail(waiting[0], f"waits for {', '.join(waiting[0].after)}, which is in no earlier wave")
            return waiting
        ready = self._paced(ready)
        self._tell("started", ((step, step.reason) for step in ready))
        self.going += [_Going(step, self._requests(step)) for step in ready]
        begun = {step.id for step in ready}
        return [step for step in waiting if step.id not in begun]

    def _requests(self, step: Step) -> list[Request]:
        """What an action is made of. What is run again gets its settings anew only where they changed."""
        known = self.seen.replicas.get(step.replica)
        same = step.target is None or (known is not None and known.spec == step.target.spec)
        skipped = {Request.RESIZE} if step.action is Action.RESTART and same else set()
        return [request for request in REQUESTS[step.action] if request not in skipped]

    def _paced(self, ready: list[Step]) -> list[Step]:
        """Those that may begin now without too many workers being on their way up."""
        limit = self.terms.starts_at_once
        if limit is None:
            return ready
        room = limit - sum(_is_heavy(one.step) for one in self.going)
        heavy = [step for step in ready if _is_heavy(step)]
        late = {step.id for step in heavy[max(0, room) :]}
        return [step for step in ready if step.id not in late]

    def _ask(self) -> None:
        """One call per kind of request, for every step that is there."""
        for request in Request:
            batch = [one for one in self.going if not one.asked and one.request is request]
            if not batch:
                continue
            for one in batch:
                known = self.seen.replicas.get(one.step.replica)
                one.was_parked = known is not None and known.state is State.FAILED
                one.asked, one.asked_at = True, self.terms.now()
            try:
                self._call(request, [one.step for one in batch])
            except (Unreachable, Interrupted) as error:
                self._tell("failed", ((one.step, error.message) for one in batch))
                raise
            except FleetError as error:
                for one in batch:
                    self._fail(one.step, error.message)

    def _call(self, request: Request, steps: Sequence[Step]) -> None:
        names = [step.replica for step in steps]
        match request:
            case Request.STOP:
                self.backend.stop(names)
            case Request.FORGET:
                self.backend.forget(names)
            case Request.AGAIN:
                self.backend.run_again(names)
            case Request.START:
                self.backend.start(_targets(steps), secrets=self.secrets)
            case Request.RESIZE:
                self.backend.resize(_targets(steps), secrets=self.secrets)
            case Request.HOLD | Request.RELEASE:
                self.backend.hold(names, on=request is Request.HOLD)
            case Request.REAP:
                self.backend.reap([step.pid for step in steps if step.pid is not None])

    def _look(self) -> bool:
        """Observe once and move every step whose current request took effect. True when any moved."""
        self.seen = self.backend.observe()
        moved = False
        for one in tuple(self.going):
            problem = self._problem(one)
            if problem:
                self._fail(one.step, problem)
                moved = True
            elif self._took_effect(one):
                moved = True
                one.left.pop(0)
                one.asked = False
                if not one.left:
                    self._finish(one)
            elif self.terms.passing:
                moved = True
                self._finish(one)
        return moved

    def _took_effect(self, one: _Going) -> bool:
        replica = self.seen.replicas.get(one.step.replica)
        match one.request:
            case Request.STOP:
                return replica is None or (not replica.running and replica.state is not State.STARTING)
            case Request.FORGET:
                return replica is None
            case Request.START | Request.AGAIN:
                return not self.terms.wait or is_ready(replica, one.step.target.digest if one.step.target else "")
            case Request.RESIZE:
                return self._has_resized(one, replica)
            case Request.HOLD:
                return replica is None or replica.held
            case Request.RELEASE:
                return replica is None or not replica.held
        return all(stray.pid != one.step.pid for stray in self.seen.strays)

    def _has_resized(self, one: _Going, replica: ObservedReplica | None) -> bool:
        """It goes by its new settings. What runs in slots it gave up may finish within the grace, as in a drain."""
        if replica is None or one.step.target is None:
            return False
        if not self.terms.wait or one.step.action is Action.RESTART:
            return replica.spec == one.step.target.spec
        waited = self.terms.now() - one.asked_at
        fits = replica.busy <= replica.slots or waited > one.step.grace_seconds
        return fits and replica.follows(one.step.target.spec) and is_ready(replica, one.step.target.digest)

    def _problem(self, one: _Going) -> str:
        """Why this step cannot succeed any more, or nothing."""
        if self._took_effect(one):
            return ""
        replica = self.seen.replicas.get(one.step.replica)
        waited = self.terms.now() - one.asked_at
        if one.request in {Request.START, Request.AGAIN, Request.RESIZE}:
            if not self.seen.up:
                doing = "changing its settings" if one.request is Request.RESIZE else "starting"
                raise Unreachable(
                    f"fleet {self.plan.fleet}: the supervisor went away while {one.step.replica} was {doing}",
                    hint="run the same command again to resume",
                )
            if (
                replica is not None
                and replica.state is State.FAILED
                and not (one.was_parked and waited < SETTLE_SECONDS)
            ):
                return f"parked after too many crashes{_note(replica)}"
        if waited <= _patience_seconds(one):
            return ""
        if one.request is Request.RESIZE and replica is not None and is_ready(replica, ""):
            return f"did not take up within {_patience_seconds(one):g} s: {one.step.reason}{_has(replica)}"
        return f"{_UNMET[one.request]} within {_patience_seconds(one):g} s{_condition(replica)}"

    def _finish(self, one: _Going) -> None:
        self.going.remove(one)
        self.done[one.step.id] = one.step
        self._tell("done", [(one.step, one.step.reason)])

    def _fail(self, step: Step, reason: str) -> None:
        self.going = [one for one in self.going if one.step.id != step.id]
        self.failures.append((step, reason))
        self._tell("failed", [(step, reason)])

    def _failed(self) -> StepsFailed:
        lines = "\n".join(f"  {step.id}: {reason}" for step, reason in self.failures[:10])
        more = f"\n  and {len(self.failures) - 10} more" if len(self.failures) > 10 else ""
        left = len(self.plan.changes) - len(self._done_changes()) - len(self.failures)
        logs = f"fleet logs {self.failures[0][0].replica} -n 50 --fleet {self.plan.fleet}"
        return StepsFailed(
            f"the rollout failed and is paused, {left} steps were not begun:\n{lines}{more}",
            hint=f"see `{logs}`; mend the cause and run the same command again",
            failures=self.failures,
        )

    def _done_changes(self) -> list[Step]:
        return [step for step in self.plan.changes if step.id in self.done]

    def _wait_for_kept(self, kept: Sequence[Step]) -> None:
        """What the plan left alone must be ready too before the fleet is."""
        if not kept:
            return
        began = self.terms.now()
        pause = PAUSE_MIN_SECONDS
        while True:
            self._check_terms()
            self.seen = self.backend.observe()
            late = [step for step in kept if not is_ready(self.seen.replicas.get(step.replica), "")]
            if not late:
                return
            waited = self.terms.now() - began
            gone = [step for step in late if waited > step.ready_timeout_seconds or self._is_parked(step.replica)]
            if gone or not self.seen.up:
                raise self._not_ready(late)
            pause = min(pause * PAUSE_GROWTH, PAUSE_MAX_SECONDS)
            self.terms.sleep(pause)

    def _is_parked(self, name: str) -> bool:
        replica = self.seen.replicas.get(name)
        return replica is None or replica.state is State.FAILED

    def _check_terms(self) -> None:
        if signum := self.terms.interrupted():
            raise Interrupted(
                f"interrupted after {len(self._done_changes())} of {len(self.plan.changes)} steps",
                hint="run the same command again to resume",
                signum=signum,
            )
        limit = self.terms.timeout_seconds
        if limit is not None and self._elapsed() > limit:
            raise self._not_ready([one.step for one in self.going], f"not ready within {limit:g} s")

    def _not_ready(self, late: Sequence[Step], head: str = "the fleet is not ready") -> NotReady:
        lines = [f"  {step.replica}{_condition(self.seen.replicas.get(step.replica))}" for step in late[:10]]
        more = [f"  and {len(late) - 10} more"] if len(late) > 10 else []
        name = late[0].replica if late else ""
        return NotReady(
            "\n".join([f"{head}; still waiting for:" if late else head, *lines, *more]),
            hint=f"see `fleet logs {name} --fleet {self.plan.fleet}`; run the same command again to go on waiting",
        )

    def _tell(self, phase: Phase, what: Iterable[tuple[Step, str]]) -> None:
        elapsed = self._elapsed()
        events = [Event(phase, step, reason, elapsed) for step, reason in what]
        if events:
            self.tell(events)

    def _elapsed(self) -> float:
        return self.terms.now() - self.began_at


_UNMET: Mapping[Request, str] = {
    Request.STOP: "did not stop",
    Request.RESIZE: "not ready",
    Request.FORGET: "was not struck from the supervisor",
    Request.AGAIN: "not ready",
    Request.START: "not ready",
    Request.HOLD: "does not answer to being held",
    Request.RELEASE: "does not answer to being released",
    Request.REAP: "did not exit",
}


def is_ready(replica: ObservedReplica | None, digest: str) -> bool:
    """It takes work, or is held on purpose, and is what ``digest`` says (empty: any)."""
    if replica is None or (digest and replica.digest != digest):
        return False
    return replica.state is State.READY or (replica.held and replica.state is State.DRAINING)


def _is_heavy(step: Step) -> bool:
    return step.action in RUNS and step.target is not None and step.target.spec.kind != "command"


def _targets(steps: Sequence[Step]) -> list[Replica]:
    return [step.target for step in steps if step.target is not None]


def _patience_seconds(one: _Going) -> float:
    match one.request:
        case Request.STOP | Request.REAP:
            return one.step.grace_seconds + MARGIN_SECONDS
        case Request.START | Request.AGAIN:
            return one.step.ready_timeout_seconds
        case Request.RESIZE:
            return one.step.grace_seconds + one.step.ready_timeout_seconds
    return MARGIN_SECONDS


def _condition(replica: ObservedReplica | None) -> str:
    return ": it is gone" if replica is None else f": {replica.state}{_note(replica)}"


def _has(replica: ObservedReplica) -> str:
    return f" (it has {replica.slots} slots, {replica.busy} busy; its log says why)"


def _note(replica: ObservedReplica | None) -> str:
    return f" ({replica.note})" if replica is not None and replica.note else ""
