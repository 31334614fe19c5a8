"""What a page asks for once: revisions, what happened, the rollout, why each group has its slots, the ends of logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleet.core.expand import explain
from fleet.core.expand.expand import static_division
from fleet.errors import UsageError
from fleet.operate import rollout
from fleet.operate.controller.memory_file import last_look
from fleet.operate.dashboard.following import DECISION_SECONDS
from fleet.operate.dashboard.shown import difference
from fleet.operate.local_fleet import LocalFleet
from fleet.state import logs
from fleet.state.revisions import Revision

MOST_ENTRIES = 1_000
MOST_LINES = 2_000


def history(fleet: LocalFleet) -> dict[str, Any]:
    """The revisions, the newest first."""
    applied = fleet.applied()
    current = applied.revision if applied is not None else 0
    revisions = [_revision(one, is_current=one.number == current) for one in reversed(fleet.history.all())]
    return {"fleet": fleet.name, "damaged": list(fleet.history.damaged()), "revisions": revisions}


def _revision(one: Revision, *, is_current: bool) -> dict[str, Any]:
    return {
        "revision": one.number,
        "current": is_current,
        "at": one.at,
        "by": one.by,
        "message": one.message,
        "outcome": one.outcome,
        "failure": one.failure,
        "git": dict(one.origin.git),
        "sources": list(one.origin.sources),
        "digest": one.digest,
    }


def revision(fleet: LocalFleet, number: int) -> dict[str, Any]:
    """One revision: what its manifest changed from the one before, and what was planned to get there."""
    numbers = fleet.history.numbers()
    found = fleet.history.get(number)
    earlier = max((one for one in numbers if one < number), default=None)
    before = fleet.history.get(earlier).manifest if earlier is not None else {}
    return {
        **_revision(found, is_current=False),
        "before": earlier,
        "difference": difference(before, found.manifest),
        "plans": _plans(fleet, number),
    }


def _plans(fleet: LocalFleet, number: int) -> list[dict[str, Any]]:
    """The changes that were begun for this revision, as the audit has them, each with how it ended."""
    plans: list[dict[str, Any]] = []
    for entry in fleet.audit.entries():
        event = str(entry.get("event", ""))
        if entry.get("revision") != number:
            continue
        if event.endswith(".started") and isinstance(entry.get("steps"), list):
            steps = [[str(part) for part in step] for step in entry["steps"] if isinstance(step, list)]
            about = {key: entry.get(key, "") for key in ("at", "by", "pid", "reason")}
            plans.append({**about, "verb": event.removesuffix(".started"), "steps": steps, "outcome": ""})
        elif event.endswith(".ended") and plans and plans[-1]["pid"] == entry.get("pid"):
            plans[-1]["outcome"] = str(entry.get("outcome", ""))
    return plans[-20:]


def events(fleet: LocalFleet, *, last: int) -> dict[str, Any]:
    """What happened, the newest first."""
    entries = fleet.audit.read(last=min(max(last, 1), MOST_ENTRIES))
    return {"fleet": fleet.name, "events": [_event(entry) for entry in reversed(entries)]}


def _event(entry: Mapping[str, Any]) -> dict[str, Any]:
    """One entry: what it is about and why, apart from the rest of it."""
    about = str(entry.get("replica") or entry.get("step") or "")
    why = str(entry.get("reason") or entry.get("override") or "")
    if isinstance(entry.get("moves"), dict):
        moves = entry["moves"].items()
        why = "; ".join(f"{name} {one.get('from')} to {one.get('to')} slots: {one.get('why')}" for name, one in moves)
    if not why and "summary" in entry:
        why = ", ".join(f"{count} to {action}" for action, count in entry["summary"].items() if action != "keep")
    keys = ("at", "by", "event", "outcome", "revision", "step")
    return {**{key: entry.get(key) for key in keys}, "about": about, "why": why}


def rollout_now(fleet: LocalFleet) -> dict[str, Any]:
    """How far the newest rollout got, and what its judge said."""
    found = rollout.seen(fleet)
    walked = found.walked
    document: dict[str, Any] = {
        "state": str(found.state),
        "revision": found.revision,
        "good": found.good,
        "pid": found.pid or None,
        "failure": found.failure,
        "walked": None,
    }
    if walked is None:
        return document
    comparison = walked.comparison
    return {
        **document,
        "walked": {
            "verb": walked.verb,
            "by": walked.by,
            "at": walked.at,
            "revision": walked.revision,
            "steps": walked.steps,
            "done": walked.done,
            "underWay": list(walked.under_way),
            "comparing": found.comparing,
            "comparison": [comparison.number, comparison.of] if found.comparing else None,
            "verdicts": list(walked.verdicts),
            "failures": list(walked.failures),
            "outcome": walked.outcome,
            "isWayBack": walked.is_way_back,
        },
    }


def explained(fleet: LocalFleet) -> dict[str, Any]:
    """Why each group has its slots: as it was applied, and what the controller decided last where it runs."""
    desired = fleet.desired_as_applied()
    division = static_division(fleet.applied_manifest().manifest, desired, overrides=fleet.overrides_in_force())
    look = last_look(fleet.places.controller)
    fresh = look is not None and fleet.now() - float(look["at"]) < DECISION_SECONDS
    return {**explain.document(desired, division), "live": look if fresh else None, "overrides": _overrides(fleet)}


def _overrides(fleet: LocalFleet) -> list[str]:
    now = fleet.now()
    return [str(one) for one in fleet.kept_overrides() if one.until is None or one.until > now]


def replicas_with_logs(fleet: LocalFleet) -> list[str]:
    """Names of replicas that have a log."""
    return list(logs.files(fleet.places.log))


def log_lines(fleet: LocalFleet, names: tuple[str, ...], *, last: int) -> list[dict[str, Any]]:
    """The last lines of the logs of groups or replicas, oldest first. Raises UsageError for one without a log."""
    known = logs.files(fleet.places.log)
    chosen = logs.chosen(list(known), names)
    if names and not chosen:
        raise UsageError(f"there is no log of {', '.join(names)}")
    found = logs.merged({name: known[name] for name in chosen}, last=min(max(last, 1), MOST_LINES))
    return [line_document(line) for line in found]


def line_document(line: logs.Line) -> dict[str, Any]:
    """One line as pages have it."""
    return {"replica": line.replica, "at": line.at or None, "text": line.text[:4_000]}
