"""What the Dockerfiles name is there: files to copy, commands to run. Building them takes an engine and a network."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from fleet.cli.parser import parse

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "Dockerfile", ROOT / "examples" / "07-kubernetes" / "Dockerfile")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_what_is_copied_is_there_and_not_ignored(path: Path) -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    copied = [line.split()[1:-1] for line in path.read_text().splitlines() if re.match(r"COPY (?!--from)", line)]
    assert copied
    for source in (one for sources in copied for one in sources):
        assert (ROOT / source).exists()
        assert source.split("/")[0].removeprefix("./") not in ignored


def test_what_is_run_are_commands_of_fleet() -> None:
    text = (ROOT / "Dockerfile").read_text()
    entry, command, health = (
        json.loads(found[1])
        for word in ("^ENTRYPOINT", "^CMD", "^HEALTHCHECK.* CMD")
        if (found := re.search(rf"{word} (\[.*\])$", text, re.MULTILINE))
    )
    assert entry == ["fleet"] == health[:1]
    assert parse(command).verb.name == "run"
    assert parse(health[1:]).verb.name == "health"
