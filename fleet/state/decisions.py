"""What the controller decided, kept so that every apply follows it until the controller decides again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet.state.files import damaged, read_kept_json, remove_kept, write_whole

FORMAT = 1
_HINT = "`fleet doctor --fix` removes it: static shares apply until the controller decides again"


@dataclass(frozen=True, slots=True)
class Decisions:
    """Group -> slots, and why. ``at``: Unix seconds."""

    at: float = 0.0
    slots: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


def read(path: Path) -> Decisions:
    """What was kept. Nothing where there is nothing, or by another version of fleet: then static shares apply.

    Raises Damaged.
    """
    document = read_kept_json(path, hint=_HINT)
    if document is None or document.get("format", FORMAT) != FORMAT:
        return Decisions()
    try:
        slots = {str(name): int(count) for name, count in document["slots"].items()}
        return Decisions(float(document["at"]), slots, {str(key): str(why) for key, why in document["reasons"].items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, repr(error), hint=_HINT) from error


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
    remove_kept(path)
