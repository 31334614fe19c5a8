"""From an entry of the audit to news, or to none: PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet.core.desired import group_of, is_replica
from fleet.core.manifest.news_kinds import PROBLEMS, NewsKind
from fleet.core.text.format import one_line

_BY_EVENT: Mapping[str, NewsKind] = {
    "worker.crashed": "crash",
    "worker.parked": "parked",
    "heal.parked": "parked",
    "heal.started": "heal",
    "heal.warned": "heal.warned",
    "heal.failed": "heal.failed",
    "controller.stuck": "controller.stuck",
    "sync.applied": "sync.done",
    "sync.failed": "sync.failed",
}
_FAILED = frozenset({"failed", "not ready"})
LONGEST_REASON = 1000


@dataclass(frozen=True, slots=True)
class News:
    """What happened, once. group, replica: '' where it is of the fleet as a whole.  at: Unix seconds."""

    kind: str
    at: float
    reason: str = ""
    group: str = ""
    replica: str = ""
    by: str = ""
    revision: int = 0

    @property
    def is_problem(self) -> bool:
        """Whether something went wrong."""
        return self.kind in PROBLEMS


def news_of(entry: Mapping[str, Any]) -> News | None:
    """The news in an entry of the audit; None where it is nothing that anybody is told of."""
    kind = _kind(entry)
    if kind is None:
        return None
    replica = str(entry.get("replica") or "")
    return News(
        kind=kind,
        at=float(entry["at"]),
        reason=one_line(_reason(entry), most=LONGEST_REASON),
        group=group_of(replica) if is_replica(replica) else "",
        replica=replica,
        by=str(entry.get("by") or ""),
        revision=entry["revision"] if isinstance(entry.get("revision"), int) else 0,
    )


def _kind(entry: Mapping[str, Any]) -> NewsKind | None:
    event = str(entry.get("event"))
    if event in _BY_EVENT:
        return _BY_EVENT[event]
    verb, _, phase = event.partition(".")
    if "wayBack" not in entry:  # only what deploys says that
        return None
    if phase == "started":
        return "rollout.started" if verb != "rollback" and entry.get("steps") else None
    if phase != "ended" or not entry.get("of"):
        return None
    failed = entry.get("outcome") in _FAILED
    if not failed and entry.get("outcome") != "done":
        return None
    if verb == "rollback":
        return "rollback.failed" if failed else "rollback.done"
    return "rollout.failed" if failed else "rollout.done"


def _reason(entry: Mapping[str, Any]) -> str:
    if reason := str(entry.get("reason") or ""):
        return reason
    if "summary" in entry:
        return ", ".join(f"{count} to {action}" for action, count in entry["summary"].items() if action != "keep")
    if "of" in entry:
        return f"{entry.get('done', 0)} of {entry['of']} steps"
    if "commit" in entry:
        return f"commit {str(entry['commit'])[:12]}: {entry.get('subject', entry.get('message', ''))}"
    return ""
