"""A fleet whose replicas live in memory, driven through the command line in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fleet import settings
from fleet.backends.memory import MemoryBackend
from fleet.cli import main
from fleet.operate.local_fleet import LocalFleet

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  app: shop:app
  broker: {{url: "redis://localhost/0"}}
  heal: {{mode: "{heal}"}}
  groups:
    # the small ones
    thumbs: {{pool: solo, replicas: {thumbs}, queues: [thumbs]}}
    reports:
      pool: {{type: prefork, concurrency: 4}}
      replicas: 1   # one is enough
      queues: [reports]
    clock: {{command: [sleep, '1000'], replicas: 1}}
{more}"""


@dataclass(frozen=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def typed(words: Sequence[str], code: int | None) -> Said:
    """Run the command in this process, and check its exit code where one is given."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        returned = main(words)
    said = Said(returned, out.getvalue(), err.getvalue())
    assert code is None or returned == code, f"exit {returned}\n--- stdout\n{said.out}\n--- stderr\n{said.err}"
    return said


@dataclass
class Desk:
    """Where somebody sits and types."""

    folder: Path
    world: MemoryBackend

    @property
    def manifest(self) -> Path:
        return self.folder / "fleet.yaml"

    @property
    def state(self) -> Path:
        return self.folder / "home" / "shop" / "state"

    def write(self, thumbs: int = 3, more: str = "", heal: str = "off") -> None:
        self.manifest.write_text(MANIFEST.format(thumbs=thumbs, more=more, heal=heal))

    def fleet(self, *words: str, code: int | None = 0) -> Said:
        return typed(words, code)

    def pids(self) -> dict[str, int | None]:
        return {name: one.pid for name, one in self.world.observe().replicas.items() if one.running}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    world = MemoryBackend("shop")
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(LocalFleet, "backend", property(lambda self: world))
    settings.load.cache_clear()
    made = Desk(tmp_path, world)
    made.write()
    yield made
    settings.load.cache_clear()
