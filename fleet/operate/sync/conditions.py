"""How far a revision got: Fetched, Verified, Valid, Planned, Applying, Ready, each with since when and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Stage = Literal["Fetched", "Verified", "Valid", "Planned", "Applying", "Ready"]
State = Literal["True", "False", "Unknown"]
FETCHING: tuple[Stage, ...] = ("Fetched", "Verified", "Valid")
RECONCILING: tuple[Stage, ...] = ("Planned", "Applying", "Ready")
STAGES: tuple[Stage, ...] = (*FETCHING, *RECONCILING)


@dataclass(frozen=True, slots=True)
class Condition:
    """One stage. ``since``: Unix time of the last change of its state.  revision: the commit it speaks of."""

    stage: Stage
    state: State
    reason: str = ""
    message: str = ""
    revision: str = ""
    since: float = 0.0

    @property
    def status_text(self) -> str:
        """``False (NotSigned) 3f2c9ab01234: why``, for a line of text."""
        why = f" ({self.reason})" if self.reason and self.reason != "Succeeded" else ""
        revision = f" {self.revision[:12]}" if self.revision else ""
        return f"{self.state}{why}{revision}" + (f": {self.message}" if self.message else "")

    def to_json(self) -> dict[str, Any]:
        """With the field names of Kubernetes' conditions."""
        return {
            "type": self.stage,
            "status": self.state,
            "reason": self.reason,
            "message": self.message,
            "revision": self.revision,
            "lastTransitionTime": round(self.since, 3),
        }


@dataclass(frozen=True, slots=True)
class Conditions:
    """The stages one loop answers for; what was never reached is Unknown."""

    stages: tuple[Stage, ...]
    rows: Mapping[Stage, Condition] = field(default_factory=dict)

    def get(self, stage: Stage) -> Condition:
        """One stage."""
        return self.rows.get(stage, Condition(stage, "Unknown", "NotReached"))

    def all(self) -> tuple[Condition, ...]:
        """All of them, in order."""
        return tuple(self.get(stage) for stage in self.stages)

    def with_(self, new: Condition) -> Conditions:
        """With one stage changed. What comes after a stage that is not true is not known for that revision."""
        rows = dict(self.rows)
        old = self.get(new.stage)
        rows[new.stage] = replace(new, since=old.since) if old.state == new.state and old.since else new
        if new.state != "True":
            for later in self.stages[self.stages.index(new.stage) + 1 :]:
                if (seen := self.get(later)).state == "True" and seen.revision != new.revision:
                    continue  # still true of an earlier revision, which goes on
                rows[later] = _unknown(seen, new)
        return replace(self, rows=rows)

    def to_json(self) -> list[dict[str, Any]]:
        """In order."""
        return [one.to_json() for one in self.all()]


def _unknown(seen: Condition, cause: Condition) -> Condition:
    since = seen.since if seen.state == "Unknown" and seen.since else cause.since
    return Condition(seen.stage, "Unknown", f"Not{cause.stage}", "", cause.revision, since)


def from_json(rows: Sequence[Mapping[str, Any]], stages: tuple[Stage, ...]) -> Conditions:
    """What :meth:`Conditions.to_json` wrote. Raises KeyError, TypeError or ValueError on another shape."""
    known = {}
    for row in rows:
        one = Condition(
            row["type"],
            row["status"],
            str(row["reason"]),
            str(row["message"]),
            str(row["revision"]),
            float(row["lastTransitionTime"]),
        )
        if one.stage not in stages or one.state not in ("True", "False", "Unknown"):
            raise ValueError(f"not a condition: {row!r}")
        known[one.stage] = one
    return Conditions(stages, known)
