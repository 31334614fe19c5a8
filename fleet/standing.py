"""What a fleet was last told to be, as a small JSON file: ``status`` compares with it without reading any manifest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet.core.desired import Budgets, Desired, DesiredGroup, Price, RolloutPolicy
from fleet.core.spec import WorkerSpec
from fleet.files import write_whole

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Standing:
    """The last word on a fleet. ``good`` is the last revision that became ready whole, 0 for none."""

    desired: Desired
    revision: int = 0
    good: int = 0
    down: bool = False


def save(path: Path, standing: Standing) -> None:
    """Keep it. The file holds no secret: specs name secrets and carry fingerprints."""
    document = {
        "format": FORMAT,
        "revision": standing.revision,
        "good": standing.good,
        "down": standing.down,
        "desired": desired_to_json(standing.desired),
    }
    write_whole(path, json.dumps(document, ensure_ascii=False))


def load(path: Path) -> Standing | None:
    """What was kept, or None where nothing was or it is not of this version: the next apply writes it anew."""
    try:
        document = json.loads(path.read_text())
        if document["format"] != FORMAT:
            return None
        desired = desired_from_json(document["desired"])
        return Standing(desired, document["revision"], document["good"], document["down"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def desired_to_json(desired: Desired) -> dict[str, Any]:
    """A plain JSON document; :func:`desired_from_json` reads it back to an equal value."""
    return {
        "fleet": desired.fleet,
        "groups": {name: dataclasses.asdict(group) for name, group in desired.groups.items()},
        "budgets": dataclasses.asdict(desired.budgets),
        "drained": sorted(desired.drained),
        "notes": list(desired.notes),
    }


def desired_from_json(document: Mapping[str, Any]) -> Desired:
    """The value that ``desired_to_json`` wrote. Raises KeyError, TypeError or ValueError on another shape."""
    budgets = dict(document["budgets"])
    budgets["connections"] = _pairs(budgets["connections"])
    return Desired(
        fleet=document["fleet"],
        groups={name: _group(values) for name, values in document["groups"].items()},
        budgets=Budgets(**budgets),
        drained=frozenset(document["drained"]),
        notes=tuple(document["notes"]),
    )


def _group(document: Mapping[str, Any]) -> DesiredGroup:
    values = dict(document)
    price = dict(values["price"])
    for name in ("connections_per_slot", "connections_per_replica"):
        price[name] = _pairs(price[name])
    values["spec"] = WorkerSpec.from_json(values["spec"])
    values["price"] = Price(**price)
    values["rollout"] = RolloutPolicy(**values["rollout"])
    values["shape"] = tuple(values["shape"])
    values["depends_on"] = tuple(values["depends_on"])
    return DesiredGroup(**values)


def _pairs(rows: list[list[Any]]) -> tuple[tuple[str, int], ...]:
    return tuple((str(name), int(count)) for name, count in rows)
