"""The world fixture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system import worlds


@pytest.fixture
def world(short_tmp: Path) -> Iterator[worlds.World]:
    """A fleet folder that is taken down afterwards, whatever happened."""
    made = worlds.make(short_tmp)
    try:
        yield made
    finally:
        made.close()
