"""What was applied to a fleet last, as a small JSON file: ``status`` compares with it without reading any manifest."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.core.decode import decoded
from fleet.core.desired import Desired
from fleet.state.files import write_whole

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Applied:
    """What was applied last. ``good`` is the last revision of which every replica became ready, 0 for none."""

    desired: Desired
    revision: int = 0
    good: int = 0
    down: bool = False


def save(path: Path, applied: Applied) -> None:
    """Write it. The file holds no secret: specs name secrets and hold fingerprints."""
    document = {
        "format": FORMAT,
        "revision": applied.revision,
        "good": applied.good,
        "down": applied.down,
        "desired": desired_to_json(applied.desired),
    }
    write_whole(path, json.dumps(document, ensure_ascii=False))


def load(path: Path) -> Applied | None:
    """What was written, or None without a file of this version: the next apply writes a new one."""
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            return None
        desired = decoded(Desired, document["desired"])
        return Applied(desired, document["revision"], document["good"], document["down"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def desired_to_json(desired: Desired) -> dict[str, Any]:
    """A plain JSON document; ``decoded`` reads it back to an equal value."""
    return {
        "fleet": desired.fleet,
        "groups": {name: dataclasses.asdict(group) for name, group in desired.groups.items()},
        "budgets": dataclasses.asdict(desired.budgets),
        "drained": sorted(desired.drained),
        "notes": list(desired.notes),
    }
