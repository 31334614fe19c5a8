"""Leaves metrics in a folder of node_exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fleet.errors import UsageError
from fleet.operate.metrics.exposition import text
from fleet.operate.metrics.samples import Sample
from fleet.state.files import write_all

READABLE = 0o644
"""node_exporter runs as another account."""


def textfile_of(folder: Path, fleet: str) -> Path:
    """The file of one fleet, or of all of a host where ``fleet`` is ''. Raises UsageError where there is no folder."""
    if not folder.is_dir():
        hint = "name the folder of node_exporter's --collector.textfile.directory"
        raise UsageError(f"there is no folder {folder}", hint=hint)
    return folder / (f"fleet-{fleet}.prom" if fleet else "fleet.prom")


def write_textfile(path: Path, samples: Iterable[Sample]) -> None:
    """Replace the file in one step. Raises CannotWrite."""
    write_all({path: text(samples)}, mode=READABLE, lasting=False)
