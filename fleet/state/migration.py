"""How far the migration of a fleet is, as its host keeps it: written before every step, so that it can be resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from fleet.state.files import damaged, read_kept_json, remove_kept, write_whole

if TYPE_CHECKING:
    from fleet.core.migration.state import Migration

_HINT = "the ConfigMap `<fleet>-migration` in the cluster holds the same: write it there, or ask for help; do not guess"


def read(path: Path) -> Migration | None:
    """What was kept; None where no group was ever moved. Raises Damaged: nobody knows then which side runs what."""
    document = read_kept_json(path, hint=_HINT)
    if document is None:
        return None
    from fleet.core.migration.state import from_json

    try:
        return from_json(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, repr(error), hint=_HINT) from error


def write(path: Path, migration: Migration) -> None:
    """Write it, on disk before this returns."""
    from fleet.core.migration.state import to_json

    write_whole(path, json.dumps(to_json(migration), ensure_ascii=False, indent=1))


def forget(path: Path) -> None:
    """Every group is on the host again."""
    remove_kept(path)
