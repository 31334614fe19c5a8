"""The file that a controller leaves: its last look, and what it remembers of earlier ones. It may be lost."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet.core.autoscale.decide import EMPTY, Memory
from fleet.core.autoscale.sample import Meter
from fleet.core.decode import decoded
from fleet.file_access import KEPT_BYTES, read_file
from fleet.operate.controller.look import Look
from fleet.state.files import write_whole

FORMAT = 1


def last_look(path: Path) -> dict[str, Any] | None:
    """What the controller saw and decided last, as :meth:`Look.to_json` has it; None where it never looked."""
    document = _document(path)
    return None if document is None else document["look"]


def read(path: Path) -> tuple[Memory, dict[str, Meter]]:
    """What it remembered: memory of decisions, and a meter per group. Both empty where the file cannot be read."""
    document = _document(path)
    try:
        if document is None:
            return EMPTY, {}
        meters = {name: decoded(Meter, one) for name, one in document["meters"].items()}
        return decoded(Memory, document["memory"]), meters
    except (ValueError, KeyError, TypeError, RecursionError):
        return EMPTY, {}


def write(path: Path, look: Look, memory: Memory, *, meters: Mapping[str, Meter]) -> None:
    """Replace the file in one step, without waiting for the disk."""
    document = {
        "format": FORMAT,
        "look": look.to_json(),
        "memory": memory.to_json(),
        "meters": {name: meter.to_json() for name, meter in sorted(meters.items())},
    }
    write_whole(path, json.dumps(document, ensure_ascii=False), lasting=False)


def _document(path: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(read_file(path, limit_bytes=KEPT_BYTES, own=True))
        return document if document["format"] == FORMAT and _is_look(document["look"]) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


_FACTS: Mapping[str, tuple[type, ...]] = {
    "at": (int, float),
    "tickSeconds": (int, float),
    "budget": (int,),
    "squeezed": (bool,),
    "groups": (dict,),
    "steps": (list,),
    "note": (str,),
}


def _is_look(look: object) -> bool:
    """Whether it has what every look has. The next look writes it again: one of another kind is as good as none."""
    return isinstance(look, dict) and all(isinstance(look.get(name), kinds) for name, kinds in _FACTS.items())
