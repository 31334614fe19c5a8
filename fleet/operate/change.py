"""Carries out a change of a fleet: keeps the revision, tells the audit, walks the plan, rolls back where that is asked.

The order is what makes a crash harmless: what the fleet is to be is on the disk before the first step, and that it got
there is written after the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fleet.core.desired import Desired, group_of
from fleet.core.plan import Action, Plan
from fleet.errors import FleetError, Interrupted, NotReady, Refused, RolloutFailed
from fleet.inputs.manifest import LoadedManifest, from_revision
from fleet.inputs.secrets import keep_key
from fleet.operate.apply.events import Event, Listener, Report, StepsFailed, WalkOptions
from fleet.operate.apply.walk import apply
from fleet.operate.local_fleet import LocalFleet, PlannedChange
from fleet.state import decisions
from fleet.state.applied import Applied
from fleet.state.audit import Audit, who


@dataclass(frozen=True, slots=True)
class _Order:
    """Who asked for a change, and how it is made. ``verb`` and ``reason`` are for the audit."""

    verb: str
    reason: str
    on_event: Listener | None
    options: WalkOptions | None


def carry_out(
    fleet: LocalFleet,
    change: PlannedChange,
    *,
    verb: str,
    reason: str = "",
    on_event: Listener | None = None,
    options: WalkOptions | None = None,
) -> Report:
    """Do it, with the lock held by the caller. A failed rollout goes back where its group's policy says so.

    verb, reason: for the audit; the reason is a person's.  Raises what :func:`fleet.operate.apply.walk.apply` raises.
    """
    order = _Order(verb, reason, on_event, options)
    before = fleet.applied() or Applied(Desired(fleet.name))
    try:
        return _walk(fleet, change, before, order)
    except StepsFailed as failure:
        if not _goes_back(fleet, change, before.good, failure):
            raise
        raise _went_back(fleet, before.good, failure, order) from failure


def _walk(fleet: LocalFleet, change: PlannedChange, before: Applied, order: _Order) -> Report:
    if change.secrets:
        keep_key(fleet.places.key)
    revision = _keep_revision(fleet, change, before, order.reason)
    down = not change.desired.groups
    deploys = change.manifest is not None
    fleet.keep_applied(Applied(change.desired, revision, before.good, down=down))
    records = _Records(fleet.audit, order, change.plan, revision)
    records.started()
    try:
        report = apply(
            change.plan,
            fleet.backend,
            desired=change.desired,
            secrets=change.secrets,
            on_event=records.on_event,
            options=order.options,
        )
    except BaseException as error:
        records.ended(_outcome(error), reason=str(error))
        if deploys and isinstance(error, StepsFailed) and revision != before.good:
            fleet.history.conclude(revision, "failed", failure=_first_failure(error))
        raise
    if deploys:
        fleet.history.conclude(revision, "good")
    good = revision if deploys and not down else before.good
    fleet.keep_applied(Applied(change.desired, revision, good, down=down))
    records.ended("done", seconds=report.seconds)
    return report


def _keep_revision(fleet: LocalFleet, change: PlannedChange, before: Applied, reason: str) -> int:
    loaded = change.manifest
    if loaded is None:
        return before.revision
    message, facts = loaded.message or reason, fleet.facts_of(loaded, change.secrets)
    return fleet.history.record(loaded.document, origin=loaded.origin, by=who(), message=message, facts=facts).number


def _first_failure(error: StepsFailed) -> str:
    step, reason = error.failures[0]
    return f"{step.id}: {reason}"


def refuse_failed(fleet: LocalFleet, loaded: LoadedManifest, secrets: Mapping[str, str]) -> None:
    """Raise Refused for what failed before and was taken back, unchanged in manifest, paths, secrets and commit.

    A rollout that is paused may be gone on with. ``secrets``: values by name.
    """
    applied, facts = fleet.applied(), fleet.facts_of(loaded, secrets)
    failed = fleet.history.failed_before(loaded.document, origin=loaded.origin, facts=facts)
    if failed is None or applied is None or applied.revision == failed.number:
        return
    raise Refused(
        f"exactly this failed before, as revision {failed.number}, and was taken back: {failed.failure}",
        hint="change it, or add --retry where the cause lay elsewhere; see `fleet history`",
    )


def _goes_back(fleet: LocalFleet, change: PlannedChange, good: int, failure: StepsFailed) -> bool:
    """Only another manifest can be taken back, and only to one that worked."""
    now = fleet.applied()
    if change.manifest is None or now is None or good in {0, now.revision}:
        return False
    groups = change.desired.groups
    failed = {group_of(step.replica) for step, _ in failure.failures}
    return any(name in groups and groups[name].rollout.on_failure == "rollback" for name in failed)


def _went_back(fleet: LocalFleet, good: int, failure: StepsFailed, order: _Order) -> RolloutFailed:
    message = f"back to revision {good} after a failed rollout"
    loaded = from_revision(fleet.history.get(good), message=message)
    desired, secrets = fleet.desired_of(loaded)
    change = fleet.planned(desired, secrets, manifest=loaded, prune=True)
    try:
        way_back = replace(order, verb="rollback", reason=message)
        _walk(fleet, change, fleet.applied() or Applied(desired), way_back)
    except FleetError as second:
        text = f"{failure.message}\nand the way back to revision {good} failed too:\n{second.message}"
        return RolloutFailed(text, hint=second.hint)
    return RolloutFailed(
        failure.message.replace("is paused", f"was rolled back to revision {good}", 1),
        hint=failure.hint.partition(";")[0],
        rolled_back=True,
    )


def take_down(fleet: LocalFleet, *, on_event: Listener | None = None, options: WalkOptions | None = None) -> Report:
    """The empty fleet, then the end of the daemon itself. What the fleet does not own is left, and its daemon too."""
    from fleet.core.expand.expand import nothing

    change = fleet.planned(nothing(fleet.name), prune=True)
    options = replace(options or WalkOptions(), wait=True)
    report = carry_out(fleet, change, verb="down", on_event=on_event, options=options)
    if not change.observed.foreign:
        fleet.backend.shutdown()
    # The next apply starts from static shares, and under another load.
    decisions.forget(fleet.places.decisions)
    fleet.places.controller.unlink(missing_ok=True)
    return report


class _Records:
    """The audit of one walk. Every event is written there first, then told to the listener."""

    def __init__(self, audit: Audit, order: _Order, plan: Plan, revision: int) -> None:
        self._audit = audit
        self._order = order
        self._plan = plan
        self._revision = revision
        self._done = 0

    def started(self) -> None:
        entry: dict[str, Any] = {
            "event": f"{self._order.verb}.started",
            "revision": self._revision,
            "summary": summary(self._plan),
            "steps": [[step.id, step.reason] for step in self._plan.changes],
        }
        self._audit.write({**entry, "reason": self._order.reason} if self._order.reason else entry)

    def on_event(self, events: Sequence[Event]) -> None:
        self._done += sum(event.phase == "done" for event in events)
        self._audit.write(*(_step(event) for event in events if event.phase != "planned"))
        if self._order.on_event is not None:
            self._order.on_event(events)

    def ended(self, outcome: str, **more: Any) -> None:
        entry = {
            "event": f"{self._order.verb}.ended",
            "revision": self._revision,
            "outcome": outcome,
            "of": len(self._plan.changes),
            "done": self._done,
        }
        self._audit.write({**entry, **{key: value for key, value in more.items() if value != ""}})


def _step(event: Event) -> dict[str, Any]:
    return {
        "event": f"step.{event.phase}",
        "step": event.step.id,
        "replica": event.step.replica,
        "reason": event.reason,
        "seconds": round(event.seconds, 3),
    }


def _outcome(error: BaseException) -> str:
    """One word for how it ended."""
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, NotReady):
        return "not ready"
    return "failed"


def summary(plan: Plan) -> dict[str, int]:
    """How many steps of each kind there are; kinds without any are left out."""
    counts = {action.value: plan.count(action) for action in Action}
    return {name: count for name, count in counts.items() if count}
