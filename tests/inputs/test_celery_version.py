"""The Celery of an interpreter, by the folders beside it."""

from __future__ import annotations

import sys
from pathlib import Path

import celery

from fleet.core.celery_versions import version_in
from fleet.inputs.celery_version import celery_of


def environment(folder: Path, *packages: str) -> str:
    for package in packages:
        (folder / "lib" / "python3.12" / "site-packages" / package).mkdir(parents=True)
    return str(folder / "bin" / "python")


def test_of_a_virtual_environment(tmp_path: Path) -> None:
    assert celery_of(environment(tmp_path, "celery-5.4.0.dist-info", "celery_redbeat-2.0.dist-info")) == (5, 4)


def test_nothing_is_said_where_it_is_not_certain(tmp_path: Path) -> None:
    assert celery_of(str(tmp_path / "bin" / "python")) is None
    assert celery_of(environment(tmp_path, "celery-5.4.0.dist-info", "celery-5.5.0.dist-info")) is None


def test_of_fleets_own_interpreter() -> None:
    assert celery_of(sys.executable) == version_in(celery.__version__)
