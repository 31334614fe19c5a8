"""What the controller decided, kept so that every apply follows it until the controller decides again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.state.files import write_whole

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Decisions:
    """Group -> slots, and why. ``at``: Unix seconds."""

    at: float = 0.0
    slots: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


def read(path: Path) -> Decisions:
    """The kept decisions; none without a readable file: then static shares apply."""
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            return Decisions()
        slots = {str(name): int(count) for name, count in document["slots"].items()}
        return Decisions(float(document["at"]), slots, {str(key): str(why) for key, why in document["reasons"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Decisions()


def write(path: Path, decisions: Decisions) -> None:
    """Write them, on disk before this returns."""
    document = {
        "format": FORMAT,
        "at": decisions.at,
        "slots": dict(sorted(decisions.slots.items())),
        "reasons": dict(sorted(decisions.reasons.items())),
    }
    write_whole(path, json.dumps(document, ensure_ascii=False))


def forget(path: Path) -> None:
    """Remove the decisions: static shares apply again."""
    path.unlink(missing_ok=True)
