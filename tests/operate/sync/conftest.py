"""A repository and a source that follows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.backends.memory import MemoryBackend
from tests.operate.sync.worlds import Place, Upstream


@pytest.fixture
def upstream(tmp_path: Path) -> Upstream:
    return Upstream(tmp_path / "upstream").make()


@pytest.fixture
def place(tmp_path: Path, upstream: Upstream) -> Place:
    return Place(tmp_path, upstream, MemoryBackend("shop"))
