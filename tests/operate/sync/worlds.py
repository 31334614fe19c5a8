"""Repositories to push to, a source that follows one, and a fleet in memory that it keeps."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet.backends.memory import MemoryBackend
from fleet.core.manifest.tree import Source
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.sync.definition import Definition
from fleet.operate.sync.following import Following
from fleet.operate.sync.reconcile import LocalTarget
from fleet.operate.sync.source import parse
from fleet.operate.sync.state import Fetched, Reconciled, SourcePlaces
from fleet.operate.sync.watcher import NOBODY, Watcher
from fleet.settings import Settings

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: {name}}}
spec:
  heal: {{mode: "off"}}
  groups:
    clock: {{command: [sleep, '1000'], replicas: {replicas}}}
{more}"""

SOURCE = """\
apiVersion: workerfleet.dev/v1alpha1
kind: FleetSource
metadata: {{name: shop-prod}}
spec:
  git:
    url: {url}
    ref: {{{ref}}}
    paths: [{paths}]
{git}{more}"""


def manifest(replicas: int = 2, *, name: str = "shop", more: str = "") -> str:
    return MANIFEST.format(replicas=replicas, name=name, more=more)


@dataclass
class Upstream:
    """A bare repository and somebody's clone of it."""

    root: Path
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def bare(self) -> Path:
        return self.root / "deploy.git"

    @property
    def work(self) -> Path:
        return self.root / "work"

    def make(self) -> Upstream:
        self.root.mkdir(exist_ok=True)
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.bare)], check=True)
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.work)], check=True)
        self.git("remote", "add", "origin", str(self.bare))
        return self

    def git(self, *words: str) -> str:
        """git as a person runs it, with no configuration of this machine's."""
        person = {f"GIT_{who}_{what}": "ana" for who in ("AUTHOR", "COMMITTER") for what in ("NAME",)}
        person |= {f"GIT_{who}_EMAIL": "ana@example.com" for who in ("AUTHOR", "COMMITTER")}
        base = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        environ = {**base, "HOME": str(self.root), "GIT_CONFIG_GLOBAL": "/dev/null", **person, **self.environ}
        done = subprocess.run(["git", *words], cwd=self.work, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"git {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout.strip()

    def write(self, path: str, text: str) -> None:
        place = self.work / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def commit(self, message: str = "a change", *flags: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, *flags)
        return self.git("rev-parse", "HEAD")

    def push(self, *flags: str) -> None:
        self.git("push", "-q", *flags, "origin", "HEAD:main")

    def publish(self, text: str, *, path: str = "fleet.yaml", message: str = "a change") -> str:
        """Write one file, commit, push; the commit."""
        self.write(path, text)
        commit = self.commit(message)
        self.push()
        return commit


@dataclass
class Place:
    """A source that follows an upstream and keeps a fleet in memory. ``clock`` is the time it goes by."""

    root: Path
    upstream: Upstream
    world: MemoryBackend
    clock: float = 1_796_000_000.0

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def places(self) -> SourcePlaces:
        return SourcePlaces.of(self.home, "shop-prod")

    def local(self, name: str = "shop") -> LocalFleet:
        return LocalFleet(name, settings=Settings(home=self.home), backend=self.world, now=lambda: self.clock)

    def text(
        self, *, url: str = "", ref: str = "branch: main", paths: str = "fleet.yaml", git: str = "", more: str = ""
    ) -> str:
        return SOURCE.format(url=url or self.upstream.bare, ref=ref, paths=paths, git=git, more=more)

    def following(self, *, adopt: bool = False, watcher: Watcher = NOBODY, **fields: Any) -> Following:
        source = parse(Source("source.yaml", self.text(**fields)), environ=os.environ)
        target = LocalTarget(open_fleet=self.local)
        loops = Following(
            Definition(source, self.root),
            self.places,
            target=target,
            now=lambda: self.clock,
            adopt=adopt,
            watcher=watcher,
        )
        loops.revisions.prepare()
        return loops

    def look(self, **fields: Any) -> tuple[Fetched, Reconciled]:
        """One look of both loops, as a process that was just started makes it."""
        loops = self.following(**fields)
        return loops.fetch(), loops.look()

    def running(self) -> list[str]:
        return sorted(name for name, one in self.world.observe().replicas.items() if one.running)

    def pids(self) -> dict[str, int | None]:
        return {name: one.pid for name, one in self.world.observe().replicas.items() if one.running}


def conditions(fetched: Fetched, reconciled: Reconciled) -> dict[str, str]:
    """Stage -> state, for short."""
    return {one.stage: one.state for one in (*fetched.conditions.all(), *reconciled.conditions.all())}
