"""The commands that the page about the command line shows do work, in the order they are shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fleet.operate.doctor import examine
from tests.cli.conftest import Desk

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_can_be_followed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "examine", lambda *_, **__: [])
    text = PAGE.read_text()
    commands = re.findall(r"^\$ fleet (.+)$", text, flags=re.MULTILINE)
    assert len(commands) > 15
    for command in commands:
        desk.fleet(*shlex.split(command))
    assert desk.pids() == {}
