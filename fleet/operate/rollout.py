"""How far the rollout of a fleet got, also when the process that carried it out is gone; and orders to one that goes
on.

Nothing is kept for this beside what every change writes: what was applied, the audit, and the lock of its process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from fleet.core.desired import CanaryPolicy
from fleet.operate.local_fleet import LocalFleet
from fleet.state import rollout_orders
from fleet.state.applied import Applied
from fleet.state.audit import who
from fleet.state.lock import holder
from fleet.state.revisions import Revision

_LAST_ENTRIES = 20_000
_COMPARISON = frozenset({"title", "number", "of"})


class RolloutState(StrEnum):
    """interrupted: its process ended in the middle, or gave up waiting.  failed: it stopped at a step that failed."""

    NONE = "none"
    PROGRESSING = "progressing"
    PAUSED = "paused"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    COMPLETE = "complete"
    DOWN = "down"


UNDER_WAY = frozenset({RolloutState.PROGRESSING, RolloutState.PAUSED})
CUT_SHORT = frozenset({RolloutState.INTERRUPTED, RolloutState.FAILED})


@dataclass(frozen=True, slots=True)
class Walked:
    """What the audit says of the newest rollout.

    comparing: the canary that is compared now, '' for none.  comparison: which of its comparisons that is.
    verdicts: of canaries, oldest first.
    outcome: how it ended, '' where nothing says so.  good: the revision that it can go back to.
    """

    verb: str
    by: str
    pid: int
    at: float
    revision: int
    good: int
    steps: int
    done: int = 0
    under_way: tuple[str, ...] = ()
    comparing: str = ""
    comparison: CanaryPolicy = field(default_factory=CanaryPolicy)
    verdicts: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    outcome: str = ""
    is_way_back: bool = False


@dataclass(frozen=True, slots=True)
class Rollout:
    """The newest rollout. ``revision`` is to run, ``good`` ran whole last; 0 for none.

    pid: of the process that carries it out, 0 where there is none.  failure: why the revision failed.
    """

    state: RolloutState
    revision: int = 0
    good: int = 0
    pid: int = 0
    walked: Walked | None = None
    failure: str = ""
    orders: rollout_orders.RolloutOrders = rollout_orders.NO_ORDERS

    @property
    def comparing(self) -> str:
        """The canary that waits for its verdict."""
        return self.walked.comparing if self.walked is not None and self.state in UNDER_WAY else ""


def seen(fleet: LocalFleet) -> Rollout:
    """How far it got, from files only. Raises Damaged."""
    held = holder(fleet.places)
    walked = last_walk(fleet.audit.read(last=_LAST_ENTRIES))
    applied = fleet.applied()
    if held is not None and walked is not None and walked.pid == held.pid and walked.outcome != "done":
        # One that failed holds the lock until it is back, or has said that it stays.
        orders = rollout_orders.read(fleet.places.rollout_orders, pid=held.pid)
        state = RolloutState.PAUSED if orders.paused else RolloutState.PROGRESSING
        return Rollout(state, walked.revision, walked.good, held.pid, walked, orders=orders)
    revision = fleet.history.get(applied.revision) if applied and applied.revision in fleet.history.numbers() else None
    return at_rest(applied, revision, walked)


def at_rest(applied: Applied | None, revision: Revision | None, walked: Walked | None) -> Rollout:
    """The state without a process that works on it."""
    if applied is None or not applied.revision:
        return Rollout(RolloutState.NONE)
    failed = revision is not None and revision.outcome == "failed"
    failure = revision.failure if revision is not None and failed else ""
    state = RolloutState.COMPLETE
    if applied.down:
        state = RolloutState.DOWN
    elif applied.revision != applied.good:
        state = RolloutState.FAILED if failed else RolloutState.INTERRUPTED
    elif walked is not None and walked.revision == applied.revision and walked.outcome != "done":
        state = RolloutState.INTERRUPTED
    return Rollout(state, applied.revision, applied.good, 0, walked, failure)


def last_walk(entries: Sequence[Mapping[str, Any]]) -> Walked | None:
    """The newest rollout in an audit, oldest entry first."""
    starts = [number for number, entry in enumerate(entries) if _is_start(entry)]
    if not starts:
        return None
    first, *rest = entries[starts[-1] :]
    walked = Walked(
        verb=str(first["event"]).removesuffix(".started"),
        by=str(first.get("by", "")),
        pid=int(first.get("pid", 0)),
        at=float(first["at"]),
        revision=int(first.get("revision", 0)),
        good=int(first["good"]),
        steps=len(first.get("steps", ())),
        is_way_back=bool(first.get("wayBack")),
    )
    for entry in rest:
        if entry.get("pid") == walked.pid and not walked.outcome:
            walked = _after(walked, entry)
    return walked


def _is_start(entry: Mapping[str, Any]) -> bool:
    """Of a change that deploys something: only these know what they may go back to."""
    return str(entry.get("event", "")).endswith(".started") and "good" in entry and "steps" in entry


def _after(walked: Walked, entry: Mapping[str, Any]) -> Walked:
    event, step, reason = str(entry.get("event", "")), str(entry.get("step", "")), str(entry.get("reason", ""))
    others = tuple(one for one in walked.under_way if one != step)
    match event:
        case "step.started":
            return replace(walked, under_way=(*others, step))
        case "step.compared":
            known = {key: value for key, value in (entry.get("canary") or {}).items() if key in _COMPARISON}
            return replace(walked, comparing=step, comparison=CanaryPolicy(**known))
        case "step.judged":
            return replace(walked, comparing="", verdicts=(*walked.verdicts, reason))
        case "step.done":
            return replace(walked, under_way=others, done=walked.done + 1)
        case "step.failed":
            return replace(walked, under_way=others, comparing="", failures=(*walked.failures, f"{step}: {reason}"))
    if event == f"{walked.verb}.ended":
        return replace(walked, outcome=str(entry.get("outcome", "")))
    return walked


def order(fleet: LocalFleet, rollout: Rollout, *, reason: str, **what: bool) -> None:
    """Tell the process of a rollout that goes on; ``what``: paused, promoted, aborted. Raises CannotWrite."""
    orders = replace(rollout.orders, pid=rollout.pid, by=who(), reason=reason, **what)
    rollout_orders.write(fleet.places.rollout_orders, orders)
    words = [name for name, on in what.items() if on] or ["resumed"]
    fleet.audit.write({"event": f"rollout.{words[0]}", "revision": rollout.revision, "reason": reason})
