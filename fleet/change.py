"""Carries out a change of a fleet: keeps the revision, tells the audit, walks the plan, rolls back where that is asked.

The order is what makes a crash harmless: what the fleet is to be is on the disk before the first step, and that it got
there is written after the last one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fleet import decisions
from fleet.apply import Event, Listener, Report, StepsFailed, Terms, apply
from fleet.audit import who
from fleet.core.desired import Desired, group_of
from fleet.core.plan import Action, Plan
from fleet.errors import FleetError, Interrupted, NotReady, RolloutFailed
from fleet.secrets import keep_key
from fleet.session import Outlook, Session
from fleet.standing import Standing
from fleet.wanted import Wanted, from_revision


@dataclass(frozen=True, slots=True)
class Change:
    """What a verb is about to do.

    verb: for the audit.  wanted: the manifest to keep as a revision (None: it stays as it is).  reason: a person's.
    """

    verb: str
    outlook: Outlook
    secrets: Mapping[str, str] = field(default_factory=dict)
    wanted: Wanted | None = None
    reason: str = ""

    @property
    def plan(self) -> Plan:
        """The steps."""
        return self.outlook.plan


def carry_out(session: Session, change: Change, *, tell: Listener | None = None, terms: Terms | None = None) -> Report:
    """Do it, with the lock held by the caller. A failed rollout goes back where its group's policy says so."""
    before = session.standing() or Standing(Desired(session.name))
    try:
        return _walk(session, change, before, tell, terms)
    except StepsFailed as failure:
        if not _goes_back(session, change, before.good, failure):
            raise
        raise _went_back(session, before.good, failure, tell, terms) from failure


def _walk(session: Session, change: Change, before: Standing, tell: Listener | None, terms: Terms | None) -> Report:
    if change.secrets:
        keep_key(session.places.key)
    revision = _keep_revision(session, change, before)
    down = not change.outlook.desired.groups
    session.keep(Standing(change.outlook.desired, revision, before.good, down=down))
    session.audit.write(_started(change, revision))
    log = _Log(session, tell)
    try:
        report = apply(
            change.plan,
            session.backend,
            desired=change.outlook.desired,
            secrets=change.secrets,
            tell=log.tell,
            terms=terms,
        )
    except BaseException as error:
        session.audit.write(_ended(change, revision, _outcome(error), reason=str(error), done=log.done))
        raise
    session.keep(Standing(change.outlook.desired, revision, before.good if down else revision, down=down))
    session.audit.write(_ended(change, revision, "done", done=log.done, seconds=report.seconds))
    return report


def _keep_revision(session: Session, change: Change, before: Standing) -> int:
    if change.wanted is None:
        return before.revision
    wanted = change.wanted
    message = wanted.message or change.reason
    return session.history.record(wanted.document, origin=wanted.origin, by=who(), message=message).number


def _goes_back(session: Session, change: Change, good: int, failure: StepsFailed) -> bool:
    """Only another manifest can be taken back, and only to one that worked."""
    now = session.standing()
    if change.wanted is None or now is None or good in {0, now.revision}:
        return False
    groups = change.outlook.desired.groups
    failed = {group_of(step.replica) for step, _ in failure.failures}
    return any(name in groups and groups[name].rollout.on_failure == "rollback" for name in failed)


def _went_back(
    session: Session, good: int, failure: StepsFailed, tell: Listener | None, terms: Terms | None
) -> RolloutFailed:
    message = f"back to revision {good} after a failed rollout"
    wanted = from_revision(session.history.get(good), message=message)
    aim = session.aim(wanted)
    outlook = session.outlook(aim.desired, prune=True)
    change = Change("rollback", outlook, aim.secrets, wanted, message)
    try:
        _walk(session, change, session.standing() or Standing(aim.desired), tell, terms)
    except FleetError as second:
        text = f"{failure.message}\nand the way back to revision {good} failed too:\n{second.message}"
        return RolloutFailed(text, hint=second.hint)
    return RolloutFailed(
        failure.message.replace("is paused", f"was rolled back to revision {good}", 1),
        hint=failure.hint.partition(";")[0],
        rolled_back=True,
    )


def take_down(session: Session, *, tell: Listener | None = None, terms: Terms | None = None) -> Report:
    """The empty fleet, then the end of the daemon itself. What the fleet does not own is left, and its daemon too."""
    from fleet.core.expand import nothing

    outlook = session.outlook(nothing(session.name), prune=True)
    terms = replace(terms or Terms(), wait=True)
    report = carry_out(session, Change("down", outlook), tell=tell, terms=terms)
    if not outlook.observed.foreign:
        session.backend.shutdown()
    # Whoever comes up again starts from its static share, and under another load.
    decisions.forget(session.places.decisions)
    session.places.controller.unlink(missing_ok=True)
    return report


class _Log:
    """Every event goes to the audit first, then to whoever listens."""

    def __init__(self, session: Session, tell: Listener | None) -> None:
        self.done = 0
        self._session = session
        self._tell = tell

    def tell(self, events: Sequence[Event]) -> None:
        self.done += sum(event.phase == "done" for event in events)
        self._session.audit.write(*(_step(event) for event in events if event.phase != "planned"))
        if self._tell is not None:
            self._tell(events)


def _step(event: Event) -> dict[str, Any]:
    return {
        "event": f"step.{event.phase}",
        "step": event.step.id,
        "replica": event.step.replica,
        "reason": event.reason,
        "seconds": round(event.seconds, 3),
    }


def _started(change: Change, revision: int) -> dict[str, Any]:
    entry: dict[str, Any] = {"event": f"{change.verb}.started", "revision": revision, "summary": summary(change.plan)}
    entry["steps"] = [[step.id, step.reason] for step in change.plan.changes]
    return {**entry, "reason": change.reason} if change.reason else entry


def _ended(change: Change, revision: int, outcome: str, **more: Any) -> dict[str, Any]:
    entry = {"event": f"{change.verb}.ended", "revision": revision, "outcome": outcome, "of": len(change.plan.changes)}
    return {**entry, **{key: value for key, value in more.items() if value != ""}}


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
