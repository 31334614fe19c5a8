"""The plan as a value: steps with reasons, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from fleet.core.desired import CanaryPolicy, Replica
from fleet.core.spec import DRAIN_TIMEOUT_SECONDS, READY_TIMEOUT_SECONDS


class Action(StrEnum):
    """What a step does to one replica.

    start: write its file and run it.
    replace: drain the running one, forget it, start the wanted one under the same name.
    restart: drain it and run the same spec again.
    resize: change its slots and settings in place.
    drain: let it finish and take nothing, then stop and forget it.
    stop: the same without waiting longer than the grace.
    forget: remove a replica that does not run from the backend.
    reap: end a stray process.
    hold, release: stop or resume taking work.
    keep: leave it alone.
    """

    START = "start"
    REPLACE = "replace"
    RESIZE = "resize"
    RESTART = "restart"
    DRAIN = "drain"
    STOP = "stop"
    FORGET = "forget"
    REAP = "reap"
    HOLD = "hold"
    RELEASE = "release"
    KEEP = "keep"


GLYPHS: Mapping[Action, str] = {
    Action.START: "+",
    Action.REPLACE: "±",
    Action.RESIZE: "~",
    Action.RESTART: "↻",
    Action.DRAIN: "-",
    Action.STOP: "-",
    Action.FORGET: "-",
    Action.REAP: "!",
    Action.HOLD: "‖",
    Action.RELEASE: "▸",
    Action.KEEP: "=",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One action on one replica, with a reason for people (code never branches on it).

    replica: its name.  target: what it must be afterwards (start, replace, resize).  pid: of the stray, for reap.
    after: ids of steps that must be done first.  wave: steps of one wave may run together; waves run in order.
    grace_seconds: how long its drain may take.  ready_timeout_seconds: how long it may take to be ready.
    min_ready_seconds: how long it must be ready without a crash before it counts.  deadline_seconds: how long after
    the first step of its group the last one must be done; None: whenever.  canary: once it is ready, the new revision
    is compared with the old one before the step is done.  later_canaries: then it is compared again, by each of them.
    """

    action: Action
    replica: str
    reason: str
    target: Replica | None = None
    pid: int | None = None
    after: tuple[str, ...] = ()
    wave: int = 0
    grace_seconds: float = DRAIN_TIMEOUT_SECONDS
    ready_timeout_seconds: float = READY_TIMEOUT_SECONDS
    min_ready_seconds: float = 0.0
    deadline_seconds: float | None = None
    canary: CanaryPolicy | None = None
    later_canaries: tuple[CanaryPolicy, ...] = ()

    @property
    def watched_seconds(self) -> float:
        """How long it is looked at once it is ready, before it is judged, or the step is done."""
        return max(self.min_ready_seconds, self.canary.seconds if self.canary is not None else 0.0)

    @property
    def longest_watched_seconds(self) -> float:
        """How long it is looked at until the step is done, later comparisons included."""
        return self.watched_seconds + sum(max(self.min_ready_seconds, one.seconds) for one in self.later_canaries)

    @property
    def id(self) -> str:
        """Readable identity within a plan: ``start thumbs.10``."""
        return f"{self.action} {self.replica}" if self.pid is None else f"{self.action} {self.replica}@{self.pid}"


_STOPS = frozenset({Action.HOLD, Action.DRAIN, Action.STOP, Action.REAP, Action.FORGET})


@dataclass(frozen=True, slots=True)
class Usage:
    """What the fleet uses of each budget, at rest and at the rollout's peak. ``limit`` None: no ceiling."""

    name: str
    at_rest: int
    at_peak: int
    limit: int | None = None
    unit: str = ""

    @property
    def above_at_peak(self) -> int:
        """How much more than the limit is used at the peak."""
        return 0 if self.limit is None else max(0, self.at_peak - self.limit)

    @property
    def above_at_rest(self) -> int:
        return 0 if self.limit is None else max(0, self.at_rest - self.limit)


@dataclass(frozen=True, slots=True)
class Plan:
    """The ordered steps from observed to desired. ``steps`` holds every replica, kept ones included.

    notes: what a person should know.  warnings: what a person should look at before it is carried out.
    """

    fleet: str
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    usage: tuple[Usage, ...] = ()
    worst_case_seconds: float = 0.0
    observed_fingerprint: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def changes(self) -> tuple[Step, ...]:
        """All steps but those that keep."""
        return tuple(step for step in self.steps if step.action is not Action.KEEP)

    @property
    def is_empty(self) -> bool:
        return not self.changes

    @property
    def only_stops(self) -> bool:
        """Whether it starts and changes nothing: such a plan must be possible on a full disk."""
        return all(step.action in _STOPS for step in self.changes)

    def count(self, *actions: Action) -> int:
        return sum(1 for step in self.steps if step.action in actions)
