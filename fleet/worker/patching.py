"""Patches a process for the green pool of its launch document, before anything else is imported."""

from __future__ import annotations

import json
from pathlib import Path

from fleet.file_access import NAMED_BYTES, read_file
from pools.patching import GREEN, patch


def patch_for(path: Path) -> None:
    """Patch for the pool of a launch document, where that is a green one. A wrong document is no error here.

    Raises PoolUnavailable where the library is missing, or where it is too late.
    """
    try:
        kind = json.loads(read_file(path, limit_bytes=NAMED_BYTES))["spec"]["pool"]["type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # whoever reads it next says what is wrong
    if kind in GREEN:
        patch(kind)
