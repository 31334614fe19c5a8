"""What was applied to a fleet last, as a small JSON file: ``status`` compares with it without reading any manifest."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.core.decode import decoded
from fleet.core.desired import Desired
from fleet.state.files import damaged, read_kept_json, write_whole

FORMAT = 1
_HINT = "`fleet apply MANIFEST` writes it again, as every verb does that changes the fleet"


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
    """What was kept; None where nothing was, or by another version of fleet: the next apply writes it again.

    Raises Damaged.
    """
    document = read_kept_json(path, hint=_HINT)
    if document is None or document.get("format", FORMAT) != FORMAT:
        return None
    try:
        desired = decoded(Desired, document["desired"])
        facts = (document["revision"], document["good"], document["down"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, repr(error), hint=_HINT) from error
    if [type(fact) for fact in facts] != [int, int, bool]:
        raise damaged(path, f"revision, good and down are {facts}", hint=_HINT)
    return Applied(desired, *facts)


def desired_to_json(desired: Desired) -> dict[str, Any]:
    """A plain JSON document; ``decoded`` reads it back to an equal value."""
    return {
        "fleet": desired.fleet,
        "groups": {name: dataclasses.asdict(group) for name, group in desired.groups.items()},
        "budgets": dataclasses.asdict(desired.budgets),
        "drained": sorted(desired.drained),
        "notes": list(desired.notes),
    }
