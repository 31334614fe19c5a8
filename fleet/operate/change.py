"""Carries out a change of a fleet: keeps the revision, writes the audit, walks the plan, rolls back where asked to.

The order makes a crash harmless: what the fleet is to be is on disk before the first step, and that it got there is
written after the last one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fleet.core.desired import CONTROLLER_GROUP, Desired, group_of, nothing
from fleet.core.plan import Action, Plan
from fleet.core.text.format import listed
from fleet.errors import CannotWrite, Damaged, FleetError, Interrupted, NotReady, Refused, RolloutFailed
from fleet.inputs.secrets import keep_key
from fleet.operate.apply.events import Event, Listener, Report, StepsFailed, WalkOptions
from fleet.operate.apply.walk import apply
from fleet.operate.local_fleet import LocalFleet, PlannedChange
from fleet.operate.notify.sending import receivers_of, told
from fleet.state import decisions, rollout_orders
from fleet.state.applied import Applied
from fleet.state.audit import Audit, who
from fleet.state.files import remove_kept

if TYPE_CHECKING:
    from fleet.inputs.manifest import LoadedManifest


@dataclass(frozen=True, slots=True)
class _Order:
    """Who asked for a change, and how it is made. ``verb`` and ``reason`` are for the audit.

    is_way_back: it takes back what failed, and nobody may stop it halfway.
    """

    verb: str
    reason: str
    on_event: Listener | None
    options: WalkOptions | None
    is_way_back: bool = False


@dataclass(slots=True)
class Kept:
    """What a change writes down. A change that only stops things is not held up by a full disk: it warns instead."""

    may_fail: bool = False
    warnings: list[str] = field(default_factory=list)

    def do(self, write: Callable[[], None]) -> None:
        """Write; raises CannotWrite unless that may fail."""
        try:
            write()
        except CannotWrite as error:
            if not self.may_fail:
                raise
            if error.message not in self.warnings:
                self.warnings.append(error.message)


def carry_out(
    fleet: LocalFleet,
    change: PlannedChange,
    *,
    verb: str,
    reason: str = "",
    on_event: Listener | None = None,
    options: WalkOptions | None = None,
) -> Report:
    """Carry out a change; the caller holds the lock. A failed rollout is rolled back if its group's policy says so.

    verb, reason: for the audit; the reason is a person's.  Raises what :func:`fleet.operate.apply.walk.apply` raises.
    """
    order = _Order(verb, reason, on_event, options)
    if change.manifest is not None:
        _refuse_cluster(fleet.name, change.manifest)
        _refuse_moved(fleet, change.desired)
        orders = partial(rollout_orders.read, fleet.places.rollout_orders, pid=os.getpid())
        order = replace(order, options=replace(options or WalkOptions(), orders=orders))
    loaded = change.manifest
    receivers = None if loaded is None else receivers_of(loaded, lambda: change.secrets)
    with told(fleet.places, receivers, now=fleet.now):
        return _carried_out(fleet, change, order)


def _carried_out(fleet: LocalFleet, change: PlannedChange, order: _Order) -> Report:
    kept = Kept(may_fail=change.plan.only_stops)
    before = _before(fleet, kept)
    kept.do(lambda: remove_kept(fleet.places.rollout_orders))  # of an earlier process that had this number
    _say_stuck_controller(fleet, change, kept)
    try:
        report = _walk(fleet, change, before, order, kept)
        return replace(report, warnings=tuple(kept.warnings))
    except StepsFailed as failure:
        if not _goes_back(fleet, change, before.good, failure):
            raise
        raise _went_back(fleet, before.good, failure, order) from failure


def _say_stuck_controller(fleet: LocalFleet, change: PlannedChange, kept: Kept) -> None:
    """It cannot say so itself."""
    stuck = [one for one in change.observed.replicas.values() if one.group == CONTROLLER_GROUP and one.trouble]
    entries = [{"event": "controller.stuck", "replica": one.name, "reason": one.note} for one in stuck]
    kept.do(lambda: fleet.audit.write(*entries))


def _refuse_cluster(name: str, loaded: LoadedManifest) -> None:
    """A fleet that lives in a cluster must not be started here as well."""
    if loaded.manifest.spec.target == "kubernetes":
        hint = (
            "`fleet apply --target kubernetes`; for one on this host, add an overlay with `spec: {target: supervisor}`"
        )
        raise Refused(f"fleet {name!r} lives in a cluster: its manifest says `target: kubernetes`", hint=hint)


def _refuse_moved(fleet: LocalFleet, desired: Desired) -> None:
    """Of a fleet that moved to a cluster as a whole, no group starts here, not even one that came later."""
    migration = fleet.migration()
    if migration is None or not migration.is_complete:
        return
    new = sorted(name for name, one in desired.groups.items() if not one.system and name not in migration.groups)
    if new:
        hint = "apply it there: `--target kubernetes`; `fleet migrate step --back` brings groups back to this host"
        raise Refused(f"fleet {fleet.name!r} lives in {migration.place}, so {listed(new)} cannot start here", hint=hint)


def _before(fleet: LocalFleet, kept: Kept) -> Applied:
    """What was applied last. Where that is damaged, the newest revision stands for it; the change writes it again."""
    try:
        return fleet.applied() or Applied(Desired(fleet.name))
    except Damaged as error:
        kept.warnings.append(f"{error.message}; it is written again by this change")
        return Applied(Desired(fleet.name), (fleet.history.numbers() or [0])[-1])


def _walk(fleet: LocalFleet, change: PlannedChange, before: Applied, order: _Order, kept: Kept) -> Report:
    if change.secrets:
        kept.do(lambda: keep_key(fleet.places.key))
    revision = _keep_revision(fleet, change, before, order.reason)
    down = not change.desired.groups
    deploys = change.manifest is not None
    kept.do(lambda: fleet.keep_applied(Applied(change.desired, revision, before.good, down=down)))
    records = _Records(fleet.audit, order, change.plan, revision, kept, good=before.good if deploys else None)
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
            failure = f"aborted {error.aborted}" if error.aborted else _first_failure(error)
            kept.do(lambda: fleet.history.conclude(revision, "failed", failure=failure))
        raise
    if deploys:
        kept.do(lambda: fleet.history.conclude(revision, "good"))
    good = revision if deploys and not down else before.good
    kept.do(lambda: fleet.keep_applied(Applied(change.desired, revision, good, down=down)))
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

    A rollout that is paused may be gone on with, and so may one of a fleet whose last word is damaged: nobody knows
    then what was taken back. ``secrets``: values by name.
    """
    try:
        applied = fleet.applied()
    except Damaged:
        return  # the change says so, and writes it again
    facts = fleet.facts_of(loaded, secrets)
    failed = fleet.history.failed_before(loaded.document, origin=loaded.origin, facts=facts)
    if failed is None or applied is None or applied.revision == failed.number:
        return
    raise Refused(
        f"exactly this failed before, as revision {failed.number}, and was taken back: {failed.failure}",
        hint="change it, or add --retry where the cause lay elsewhere; see `fleet history`",
    )


def _goes_back(fleet: LocalFleet, change: PlannedChange, good: int, failure: StepsFailed) -> bool:
    """Whether to roll back: only a changed manifest can be, and only to a revision that worked."""
    now = fleet.applied()
    if change.manifest is None or now is None or good in {0, now.revision}:
        return False
    if failure.aborted:
        return True
    groups = change.desired.groups
    failed = {group_of(step.replica) for step, _ in failure.failures}
    return any(name in groups and groups[name].rollout.on_failure == "rollback" for name in failed)


def _went_back(fleet: LocalFleet, good: int, failure: StepsFailed, order: _Order) -> RolloutFailed:
    from fleet.inputs.manifest import from_revision

    message = f"back to revision {good} after a failed rollout"
    loaded = from_revision(fleet.history.get(good), message=message)
    desired, secrets = fleet.desired_of(loaded)
    change = fleet.planned(desired, secrets, manifest=loaded, prune=True)
    try:
        options = replace(order.options or WalkOptions(), orders=lambda: rollout_orders.NO_ORDERS)
        way_back = replace(order, verb="rollback", reason=message, options=options, is_way_back=True)
        _walk(fleet, change, fleet.applied() or Applied(desired), way_back, Kept())
    except FleetError as second:
        text = f"{failure.message}\nand the way back to revision {good} failed too:\n{second.message}"
        return RolloutFailed(text, hint=second.hint)
    return RolloutFailed(
        failure.message.replace("is paused", f"was rolled back to revision {good}", 1),
        hint=failure.hint.partition(";")[0],
        rolled_back=True,
    )


def take_down(fleet: LocalFleet, *, on_event: Listener | None = None, options: WalkOptions | None = None) -> Report:
    """Stop every replica, then the daemon. Programs that the fleet does not own stay, and then the daemon too."""
    change = fleet.planned(nothing(fleet.name), prune=True)
    options = replace(options or WalkOptions(), wait=True)
    report = carry_out(fleet, change, verb="down", on_event=on_event, options=options)
    if not change.observed.foreign:
        fleet.backend.shutdown()
    # The next apply starts from static shares, and under another load.
    kept = Kept(may_fail=True, warnings=list(report.warnings))
    kept.do(lambda: decisions.forget(fleet.places.decisions))
    kept.do(lambda: remove_kept(fleet.places.controller))
    return replace(report, warnings=tuple(kept.warnings))


class _Records:
    """The audit of one walk. Every event is written there first, then passed to the listener."""

    def __init__(self, audit: Audit, order: _Order, plan: Plan, revision: int, kept: Kept, *, good: int | None) -> None:
        """``good``: the revision to go back to; None where nothing is deployed."""
        self._kept = kept
        self._good = good
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
        if self._good is not None:
            entry |= {"good": self._good, "wayBack": self._order.is_way_back}
        self._write({**entry, "reason": self._order.reason} if self._order.reason else entry)

    def on_event(self, events: Sequence[Event]) -> None:
        self._done += sum(event.phase == "done" for event in events)
        self._write(*(_step(event) for event in events if event.phase != "planned"))
        if self._order.on_event is not None:
            self._order.on_event(events)

    def ended(self, outcome: str, **more: Any) -> None:
        entry: dict[str, Any] = {
            "event": f"{self._order.verb}.ended",
            "revision": self._revision,
            "outcome": outcome,
            "of": len(self._plan.changes),
            "done": self._done,
        }
        if self._good is not None:
            entry["wayBack"] = self._order.is_way_back
        self._write({**entry, **{key: value for key, value in more.items() if value != ""}})

    def _write(self, *entries: Mapping[str, Any]) -> None:
        self._kept.do(lambda: self._audit.write(*entries))


def _step(event: Event) -> dict[str, Any]:
    entry = {
        "event": f"step.{event.phase}",
        "step": event.step.id,
        "replica": event.step.replica,
        "reason": event.reason,
        "seconds": round(event.seconds, 3),
    }
    if event.phase == "compared" and event.step.canary is not None:
        canary = event.step.canary
        entry["canary"] = {"title": canary.title, "number": canary.number, "of": canary.of}
    return entry


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
