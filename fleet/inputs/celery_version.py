"""Which Celery an interpreter has, read from the folders beside it: nothing is run."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from fleet.core.celery_versions import Version, version_in

_PACKAGES = ("lib/python3*/site-packages", "lib/python3/dist-packages", "local/lib/python3*/dist-packages")


def celery_of(python: str) -> Version | None:
    """The version that this interpreter imports; None where that is not certain."""
    if python == sys.executable:
        return _own()
    root = Path(python).parent.parent
    folders = (folder for packages in _PACKAGES for folder in root.glob(f"{packages}/celery-*-info"))
    found = {version for folder in folders if (version := version_in(folder.name)) is not None}
    return found.pop() if len(found) == 1 else None


def _own() -> Version | None:
    try:
        return version_in(metadata.version("celery"))
    except metadata.PackageNotFoundError:
        return None
