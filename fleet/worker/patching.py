"""Patches a process for the green pool of its launch document, before anything else is imported."""

from __future__ import annotations

import json
from pathlib import Path

from fleet.file_access import NAMED_BYTES, read_file
from pools.errors import PoolUnavailable
from pools.patching import GREEN, patch


def patch_for(path: Path) -> PoolUnavailable | None:
    """Patch for the pool of a launch document, where that is a green one; what stood against it.

    A wrong document is no error here: whoever reads it next says what is wrong.
    """
    try:
        kind = json.loads(read_file(path, limit_bytes=NAMED_BYTES))["spec"]["pool"]["type"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    try:
        if kind in GREEN:
            patch(kind)
    except PoolUnavailable as error:
        return error
    return None
