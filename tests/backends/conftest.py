"""A fleet under a real supervisord for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.worlds import World


@pytest.fixture
def world(short_tmp: Path) -> Iterator[World]:
    """An empty fleet; whatever runs of it at the end is ended."""
    world = World(short_tmp)
    try:
        yield world
    finally:
        world.end()
