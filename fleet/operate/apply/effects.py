"""What an action asks of the backend, call by call, and how an observation shows the effect. Only `ask` acts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from fleet.backends.base import Backend
from fleet.core.canary import Verdict, judged
from fleet.core.desired import Replica
from fleet.core.observed import GONE, Observed, ObservedReplica, State
from fleet.core.plan import Action, Step

MARGIN_SECONDS = 30.0  # after the drain timeout: the backend then kills what still runs, which takes time too
SETTLE_SECONDS = 2.0  # a replica that was parked before may look parked for a moment after it was asked to start

RUNS = frozenset({Action.START, Action.REPLACE, Action.RESTART})
RUNS_ON = frozenset({Action.KEEP, Action.RESIZE})


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

START_AGAIN = (Request.STOP, Request.AGAIN)
"""For a start that was under way and failed: its launcher waits, and would read nothing new."""

_NEEDS_SUPERVISOR = frozenset({Request.START, Request.AGAIN, Request.RESIZE})

_COMES_UP = frozenset({Request.START, Request.AGAIN})

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


@dataclass(frozen=True, slots=True)
class Life:
    """One process of a replica. ``crashes``: of those before it."""

    pid: int | None
    crashes: int

    @classmethod
    def of(cls, replica: ObservedReplica) -> Life:
        return cls(replica.pid, replica.crashes)

    def crashed(self, replica: ObservedReplica | None) -> bool:
        """It has ended in a crash. A worker that ends cleanly, because a task of its own would not, is started again;
        while no process is there to say which it was, nothing is known."""
        if replica is None or replica.state in GONE:
            return True
        return replica.pid is not None and replica.pid != self.pid and replica.crashes > self.crashes


@dataclass(slots=True)
class RunningStep:
    """A step under way: which of its requests is current, and how far that one is.

    left: requests, the current one first.  asked_at: seconds by the clock of the walk.  was_parked: it had crashed too
    often before it was asked.  was_starting: its start was under way before, with what was there then.
    ready_at: when it was seen ready first, or was compared last, in the life ``ready_in``; None: not yet.
    ready_since: when it was seen ready first.
    window: its group as it was at that moment, for a canary.
    """

    step: Step
    left: list[Request]
    asked: bool = False
    asked_at: float = 0.0
    was_parked: bool = False
    was_starting: bool = False
    ready_at: float | None = None
    ready_in: Life | None = None
    ready_since: float | None = None
    window: Mapping[str, ObservedReplica] = field(default_factory=dict)

    @property
    def request(self) -> Request:
        return self.left[0]

    def compare_again(self, seen: Observed, *, now: float) -> None:
        """The next comparison of its canary begins."""
        following, *later = self.step.later_canaries
        self.step = replace(self.step, canary=following, later_canaries=tuple(later))
        self.begin_window(seen, now=now)

    def begin_window(self, seen: Observed, *, now: float) -> None:
        """It is ready: from now on it is looked at, beside the others of its group."""
        replica = seen.replicas[self.step.replica]
        self.ready_at, self.ready_in = now, Life.of(replica)
        self.ready_since = now if self.ready_since is None else self.ready_since
        self.window = {one.name: one for one in seen.replicas.values() if one.group == replica.group}


def requests_of(step: Step, replica: ObservedReplica | None) -> list[Request]:
    """The requests of a step. Settings of a replica that is run again are written only if they changed."""
    same = step.target is None or (replica is not None and replica.spec == step.target.spec)
    skipped = {Request.RESIZE} if step.action is Action.RESTART and same else set()
    return [request for request in REQUESTS[step.action] if request not in skipped]


def ask(backend: Backend, request: Request, steps: Sequence[Step], *, secrets: Mapping[str, str]) -> None:
    """One call for all these steps. Raises FleetError."""
    names = [step.replica for step in steps]
    match request:
        case Request.STOP:
            backend.stop(names)
        case Request.FORGET:
            backend.forget(names)
        case Request.AGAIN:
            backend.run_again(names)
        case Request.START:
            backend.start(_targets(steps), secrets=secrets)
        case Request.RESIZE:
            backend.resize(_targets(steps), secrets=secrets)
        case Request.HOLD | Request.RELEASE:
            backend.hold(names, on=request is Request.HOLD)
        case Request.REAP:
            backend.reap([step.pid for step in steps if step.pid is not None])


def _targets(steps: Sequence[Step]) -> list[Replica]:
    return [step.target for step in steps if step.target is not None]


def took_effect(running: RunningStep, seen: Observed, *, now: float, wait: bool) -> bool:
    """Whether the current request has taken effect. ``wait``: what is to run must be ready too."""
    replica = seen.replicas.get(running.step.replica)
    match running.request:
        case Request.STOP:
            return replica is None or (not replica.running and replica.state is not State.STARTING)
        case Request.FORGET:
            return replica is None
        case Request.START | Request.AGAIN:
            ready = is_ready(replica, running.step.target.digest if running.step.target else "")
            return not wait or (ready and _has_been_ready(running, replica, seen, now=now))
        case Request.RESIZE:
            return _has_resized(running, replica, now=now, wait=wait)
        case Request.HOLD:
            return replica is None or replica.held
        case Request.RELEASE:
            return replica is None or not replica.held
    return all(stray.pid != running.step.pid for stray in seen.strays)


def _has_been_ready(running: RunningStep, replica: ObservedReplica | None, seen: Observed, *, now: float) -> bool:
    """For as long as it must be, as one process. A crash in that time is for ``failure_of`` to tell."""
    if replica is None:
        return False
    if running.ready_at is None or running.ready_in is None:
        running.begin_window(seen, now=now)
    ready_for = 0.0 if running.ready_at is None else now - running.ready_at
    return ready_for >= running.step.watched_seconds and not _crashed(running, replica)


def _crashed(running: RunningStep, replica: ObservedReplica | None) -> bool:
    """More often than its canary may, which is not at all where it is none."""
    life, policy = running.ready_in, running.step.canary
    if life is None or not life.crashed(replica):
        return False
    return replica is None or policy is None or replica.crashes - life.crashes > policy.crashes


def verdict_of(running: RunningStep, seen: Observed) -> Verdict | None:
    """How the new revision did beside the old one, once it is ready for long enough; None for what is no canary."""
    step = running.step
    if step.canary is None or step.target is None or running.request not in _COMES_UP:
        return None
    return judged(step.canary, running.window, seen.replicas, digest=step.target.digest)


def crash_after_ready(life: Life, replica: ObservedReplica | None, *, seconds: float) -> str:
    """What to say of a replica that was ready in this life and was looked at again so many seconds later; '' if it has
    not crashed."""
    return f"crashed {seconds:.0f} s after it was ready{condition(replica)}" if life.crashed(replica) else ""


def _has_resized(running: RunningStep, replica: ObservedReplica | None, *, now: float, wait: bool) -> bool:
    """Whether it follows its new settings. Tasks in slots it gave up may finish within the drain timeout."""
    step = running.step
    if replica is None or step.target is None:
        return False
    if not wait or step.action is Action.RESTART:
        return replica.spec == step.target.spec
    fits = replica.busy <= replica.slots or now - running.asked_at > step.grace_seconds
    return fits and replica.follows(step.target.spec) and is_ready(replica, step.target.digest)


def lacks_supervisor(running: RunningStep, seen: Observed) -> bool:
    """Whether the current request can never take effect because the supervisor is gone."""
    return running.request in _NEEDS_SUPERVISOR and not seen.up


def cannot_start(step: Step, seen: Observed) -> bool:
    """Whether the last start of its replica failed for a reason that another start does not change."""
    replica = seen.replicas.get(step.replica)
    return replica is not None and replica.cannot_start


def tries_again(running: RunningStep, seen: Observed) -> bool:
    """Whether it cannot start, but had begun to before it was asked: the cause may be gone since. Asked anew, once."""
    if not running.was_starting or not cannot_start(running.step, seen):
        return False
    running.left[:1] = START_AGAIN
    running.asked = running.was_starting = False
    return True


def failure_of(running: RunningStep, seen: Observed, *, now: float) -> str:
    """Why a request that took no effect yet never will; '' while it still may."""
    replica = seen.replicas.get(running.step.replica)
    waited, patience = now - running.asked_at, _patience_seconds(running)
    if running.ready_at is not None and running.ready_in is not None:
        ready_for = now - running.ready_at
        if _crashed(running, replica):
            return crash_after_ready(running.ready_in, replica, seconds=ready_for)
        if ready_for < running.step.watched_seconds:
            return ""
    if running.request in _COMES_UP and replica is not None and replica.cannot_start:
        return f"cannot start{_note(replica)}"
    if running.request in _NEEDS_SUPERVISOR and replica is not None and replica.state is State.FAILED:
        settles = running.was_parked and waited < SETTLE_SECONDS
        if not settles:
            once = replica.spec is not None and replica.spec.restart.policy == "never"
            return f"failed{_note(replica)}" if once else f"parked after too many crashes{_note(replica)}"
    if waited <= patience:
        return ""
    if running.request is Request.RESIZE and replica is not None and is_ready(replica, ""):
        return f"not applied within {patience:g} s: {running.step.reason}{_has(replica)}"
    of_replica = "" if running.request is Request.REAP else condition(replica)  # a stray is another process
    return f"{_UNMET[running.request]} within {patience:g} s{of_replica}"


def _patience_seconds(running: RunningStep) -> float:
    match running.request:
        case Request.STOP | Request.REAP:
            return running.step.grace_seconds + MARGIN_SECONDS
        case Request.START | Request.AGAIN:
            return running.step.ready_timeout_seconds
        case Request.RESIZE:
            return running.step.grace_seconds + running.step.ready_timeout_seconds
    return MARGIN_SECONDS


def is_ready(replica: ObservedReplica | None, digest: str) -> bool:
    """Whether it works, or is held, and has this ``digest`` (empty: any)."""
    if replica is None or (digest and replica.digest != digest):
        return False
    return replica.is_ready


def is_heavy(step: Step) -> bool:
    """Whether a worker starts, which imports an app."""
    return step.action in RUNS and step.target is not None and step.target.spec.kind != "command"


def condition(replica: ObservedReplica | None) -> str:
    """The end of a sentence about a replica: the state it is in."""
    return ": it is gone" if replica is None else f": {replica.state}{_note(replica)}"


def _has(replica: ObservedReplica) -> str:
    return f" (it has {replica.slots} slots, {replica.busy} busy; its log says why)"


def _note(replica: ObservedReplica | None) -> str:
    return f" ({replica.note})" if replica is not None and replica.note else ""
