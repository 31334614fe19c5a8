"""docs/architecture.md says what is there."""

from __future__ import annotations

import re

from docs.draw_architecture import PICTURE, picture
from tests.architecture.imports import ROOT, folders

PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMED = {name.rstrip("/") for name in re.findall(r"`((?:fleet|pools|tests|docs)(?:/[\w.]+)+/?|pools)`", PAGE)}


def test_every_folder_is_named() -> None:
    there = {name.replace(".", "/") for name in folders()} - {"fleet"}

    assert there - NAMED == set()


def test_everything_named_is_there() -> None:
    assert [name for name in sorted(NAMED) if not (ROOT / name).exists()] == []


def test_the_picture_is_drawn_from_the_imports_of_today() -> None:
    assert PICTURE.read_text() == picture(), "run: python -m docs.draw_architecture"
