"""The programs of examples/07-kubernetes that make an image and play pods, for tests that need podman."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "07-kubernetes"


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


play, local_image = _module("play"), _module("local_image")


def engine_or_skip() -> list[str]:
    """A command line of podman that runs containers here; else the test is skipped, with the reason."""
    try:
        command: list[str] = play.engine()
    except play.CannotPlay as error:
        pytest.skip(str(error))
    return command
