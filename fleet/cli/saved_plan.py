"""A plan saved in a file, for an apply that does exactly that or refuses."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fleet.core.plan import Plan
from fleet.core.planning import plan_text
from fleet.errors import FleetError, StalePlan
from fleet.inputs.manifest import LoadedManifest, from_document
from fleet.operate.local_fleet import PlannedChange
from fleet.state.revisions import Origin

KIND = "FleetPlan"
FORMAT = 1
SUFFIX = ".json"


def saved_document(loaded: LoadedManifest, change: PlannedChange, *, prune: bool) -> dict[str, Any]:
    """What the file holds: the manifest, where it came from, and the plan. No secret is in it."""
    return {
        "kind": KIND,
        "format": FORMAT,
        "madeAt": round(time.time(), 3),
        "prune": prune,
        "manifest": loaded.document,
        "origin": asdict(loaded.origin),
        "plan": plan_text.document(change.plan),
    }


def read_saved(path: str) -> Mapping[str, Any] | None:
    """The document of a saved plan; None where the file is something else."""
    if not path.endswith(SUFFIX):
        return None
    try:
        document = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        return None
    if document.get("format") != FORMAT:
        raise FleetError(f"{path} was written by another version of fleet", hint="make the plan again")
    return document


def manifest_in(document: Mapping[str, Any], path: str) -> LoadedManifest:
    """The manifest of a saved plan."""
    origin = document["origin"]
    came_from = Origin(origin["base"], tuple(origin["sources"]), dict(origin["git"]))
    return from_document(document["manifest"], origin=came_from, name=path)


def check_fresh(document: Mapping[str, Any], plan: Plan) -> None:
    """Raise StalePlan when planning now gives a different plan than the saved one."""
    now = plan_text.document(plan)
    kept = document["plan"]
    same = [[(step["action"], step["replica"]) for step in one["steps"]] for one in (kept, now)]
    if kept["fingerprint"] != now["fingerprint"] or same[0] != same[1]:
        message = f"fleet {plan.fleet!r} has changed since the plan was made"
        raise StalePlan(message, hint="look at `fleet plan` again, and save it with --out")
