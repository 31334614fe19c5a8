"""The records of the replicas in this pod: of the one that it runs, or of all that `fleet run` keeps in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

RECORD_VARIABLE = "FLEET_RECORD"
"""The path of the one record."""
RECORDS_VARIABLE = "FLEET_RECORDS"
"""How the paths of several begin: their folder, and the name of the group."""


def is_pod(environ: Mapping[str, str]) -> bool:
    """Whether its variables say which replicas are meant."""
    return bool(environ.get(RECORD_VARIABLE) or environ.get(RECORDS_VARIABLE))


def records_of_pod(environ: Mapping[str, str]) -> dict[str, Path]:
    """Name of a replica -> its record: the one that is named, whether it is there or not, or all that are there."""
    if own := environ.get(RECORD_VARIABLE):
        return {Path(own).stem: Path(own)}
    if not (beginning := environ.get(RECORDS_VARIABLE)):
        return {}
    path = Path(beginning)
    return {found.stem: found for found in sorted(path.parent.glob(f"{path.name}.*.rec"))}
