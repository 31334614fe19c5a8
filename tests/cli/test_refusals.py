"""Every malformed manifest of the corpus, given to the command itself: exit 3, a place, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleet import settings
from fleet.cli import main
from tests.core.test_malformed import CORPUS

PLACED = re.compile(r"fleet\.yaml:\d+:\d+ ")


@pytest.mark.parametrize("verb", ["validate", "plan", "apply"])
def test_a_malformed_manifest_is_refused_and_nothing_is_written(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home, manifest = tmp_path / "home", tmp_path / "fleet.yaml"
    monkeypatch.setenv("FLEET_HOME", str(home))
    settings.load.cache_clear()
    placed = 0
    for name, content in CORPUS.items():
        manifest.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        code = main([verb, str(manifest)])
        said = capsys.readouterr()
        assert (code, said.out) == (3, ""), f"{name}: {code} {said.out}"
        assert "Traceback" not in said.err
        assert "nothing was touched" in said.err, name
        placed += bool(PLACED.search(said.err))
    settings.load.cache_clear()
    assert len(CORPUS) >= 200
    assert placed == len(CORPUS)
    assert not home.exists()
