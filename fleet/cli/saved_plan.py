"""A plan saved in a file, for an apply that does exactly that or refuses."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fleet.core.decode import decoded
from fleet.core.plan import Plan
from fleet.core.planning import plan_text
from fleet.errors import FleetError, StalePlan
from fleet.file_access import NAMED_BYTES, read_file
from fleet.inputs.manifest import LoadedManifest, from_document
from fleet.operate.local_fleet import PlannedChange
from fleet.state.revisions import Origin

KIND = "FleetPlan"
FORMAT = 2
SUFFIX = ".json"
_AGAIN = "look at `fleet plan` again, and save it with --out"


def saved_document(loaded: LoadedManifest, change: PlannedChange, *, prune: bool, key: bytes) -> dict[str, Any]:
    """What the file holds: the manifest, where it came from, and the plan. No secret is in it.

    key: the fleet's own; the seal that is made with it shows any change of the file.
    """
    document = {
        "kind": KIND,
        "format": FORMAT,
        "madeAt": round(time.time(), 3),
        "prune": prune,
        "manifest": loaded.document,
        "origin": asdict(loaded.origin),
        "plan": plan_text.document(change.plan),
        "targets": _targets(change.plan),
    }
    return {**document, "seal": _seal(document, key)}


def read_saved(path: str) -> Mapping[str, Any] | None:
    """The document of a saved plan; None where the file is something else."""
    if not path.endswith(SUFFIX):
        return None
    try:
        document = json.loads(read_file(Path(path), limit_bytes=NAMED_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("kind") != KIND:
        return None
    if document.get("format") != FORMAT:
        raise FleetError(f"{path} was written by another version of fleet", hint="make the plan again")
    return document


def manifest_in(document: Mapping[str, Any], path: str) -> LoadedManifest:
    """The manifest of a saved plan. Raises FleetError for a document that no `plan --out` wrote."""
    try:
        came_from = decoded(Origin, document["origin"])
        manifest = document["manifest"]
        if not isinstance(manifest, dict) or not isinstance(document["prune"], bool):
            raise TypeError("manifest and prune are of other kinds")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetError(f"{path} is no saved plan: {error!r}", hint="make the plan again") from error
    return from_document(manifest, origin=came_from, name=path)


def check_seal(document: Mapping[str, Any], path: str, *, key: bytes) -> None:
    """Raise StalePlan for a file that is not as `plan --out` wrote it, before anything that it says is done."""
    rest = {name: value for name, value in document.items() if name != "seal"}
    if not hmac.compare_digest(str(document.get("seal", "")).encode(), _seal(rest, key).encode()):
        message = f"{path} is not as `fleet plan --out` wrote it for this fleet on this machine"
        raise StalePlan(message, hint=_AGAIN)


def check_fresh(document: Mapping[str, Any], plan: Plan) -> None:
    """Raise StalePlan when planning now gives a different plan than the saved one."""
    now = plan_text.document(plan)
    kept = document["plan"]
    same = [[(step["action"], step["replica"]) for step in one["steps"]] for one in (kept, now)]
    if kept["fingerprint"] != now["fingerprint"] or same[0] != same[1] or document["targets"] != _targets(plan):
        message = f"fleet {plan.fleet!r} has changed since the plan was made"
        raise StalePlan(message, hint=_AGAIN)


def _targets(plan: Plan) -> dict[str, str]:
    """Replica -> a hash of all that it is to be, for those that change."""
    targets = {step.replica: step.target for step in plan.changes if step.target is not None}
    return {name: _hash(target.spec.to_json()) for name, target in sorted(targets.items())}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _seal(document: Mapping[str, Any], key: bytes) -> str:
    text = json.dumps(document, sort_keys=True, default=dict)
    return hmac.new(key, f"plan {text}".encode(errors="surrogatepass"), hashlib.sha256).hexdigest()
