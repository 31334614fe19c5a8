"""Tells the forge, and a file, what became of each commit; what was told last is on the disk, and not told twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet.errors import FleetError
from fleet.file_access import KEPT_BYTES, read_file
from fleet.operate.sync.forges import Forge
from fleet.operate.sync.reports import Report, reports
from fleet.operate.sync.state import SourcePlaces, read_fetched, read_reconciled
from fleet.state.files import write_whole

REMEMBERED = 30


class Telling:
    """Who else is told about one source. ``forge`` gives the door when there is something to say."""

    def __init__(
        self,
        name: str,
        places: SourcePlaces,
        *,
        forge: Callable[[], Forge] | None = None,
        comments: bool = True,
        file: str = "",
        document: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.name = name
        self.places = places
        self._forge = forge
        self._comments = comments
        self._file = file
        self._document = document

    def look(self) -> int:
        """Say what is new; how much that was. Raises FleetError where somebody could not be told: it is tried again."""
        if self._file:
            write_whole(Path(self._file), json.dumps(self._document(), ensure_ascii=False, indent=1), mode=0o644)
        if self._forge is None:
            return 0
        told = self._told()
        due = reports(self.name, read_fetched(self.places), read_reconciled(self.places))
        fresh = [report for report in due if told.get(report.commit) != _mark(report)]
        for report in fresh:
            door = self._forge()
            door.set_status(report)
            if self._comments and report.comment:
                door.comment(report)
            told.pop(report.commit, None)
            told[report.commit] = _mark(report)
            kept = dict(list(told.items())[-REMEMBERED:])
            write_whole(self.places.reported, json.dumps(kept))
        return len(fresh)

    def _told(self) -> dict[str, str]:
        """What was told last of each commit. Where that is lost it is told once more."""
        try:
            document = json.loads(read_file(self.places.reported, limit_bytes=KEPT_BYTES, own=True))
        except (OSError, ValueError, RecursionError):
            return {}
        return {str(key): str(value) for key, value in document.items()} if isinstance(document, dict) else {}


def _mark(report: Report) -> str:
    text = json.dumps([report.state, report.line, report.comment])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def said(error: FleetError) -> str:
    """An error as one line of a log."""
    return " ".join((error.message + (f" ({error.hint})" if error.hint else "")).split())
