"""A cluster to work in: the stand-in, or the real API server where FLEET_TEST_KUBERNETES names its programs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from fleet import settings
from tests.backends.kubernetes.stand_in import StandIn
from tests.cli.conftest import Said, typed

if TYPE_CHECKING:
    from tests.backends.kubernetes.real_server import RealServer

PROGRAMS = os.environ.get("FLEET_TEST_KUBERNETES", "")

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  target: kubernetes
  app: shop:app
  broker: {{url: "redis://redis/0"}}
  concurrency: 20
  kubernetes: {{context: here, namespace: shop, image: "{image}"}}
  groups:
    mail:
      pool: {{type: threads, concurrency: {slots}}}
      replicas: {mail}   # enough
      queues: [mail]
      env: {{LEVEL: "{level}"}}
      rollout: {{strategy: recreate{deadline}}}
{more}"""
JOBS = """\
    migrate: {{command: [python, migrate.py{job}], job: true}}
    web: {{pool: solo, replicas: 1, queues: [web], dependsOn: {{migrate: completed}}, env: {{WEB: "{web}"}},
      rollout: {{strategy: recreate}}}}
"""
CLOCK = "    clock: {pool: solo, replicas: 1, queues: [ticks], rollout: {strategy: recreate}}\n"


class World(Protocol):
    """A cluster as tests steer it. ``broken_images``: pods with them never run.

    failing_images: pods of Jobs with them end with exit code 1.
    """

    has_custom_resources: bool
    broken_images: set[str]
    failing_images: set[str]
    forbidden: set[tuple[str, str]]

    def write_kubeconfig(self, path: Path) -> Path: ...
    def get(self, plural: str, name: str) -> dict[str, Any] | None: ...
    def names(self, plural: str) -> list[str]: ...
    def update(self, plural: str, name: str, patch: dict[str, Any], *, manager: str) -> None: ...
    def break_watches(self) -> None: ...


@dataclass
class Desk:
    """Where somebody sits and types."""

    folder: Path
    world: World

    @property
    def manifest(self) -> Path:
        return self.folder / "fleet.yaml"

    def write(self, **said: Any) -> None:
        values = {"mail": 2, "image": "shop:1", "level": "info", "slots": 4, "deadline": "", "more": ""}
        self.manifest.write_text(MANIFEST.format(**{**values, **said}))

    def fleet(self, verb: str, *words: str, code: int | None = 0) -> Said:
        return typed((verb, str(self.manifest), *words), code)

    def planned(self, *words: str) -> dict[str, dict[str, Any]]:
        """Reference -> what plan says of it."""
        document = self.fleet("plan", "-o", "json", *words).json
        return {f"{one['kind']}/{one['name']}": one for one in document["objects"]}

    def deployment(self, group: str = "mail") -> dict[str, Any]:
        found = self.world.get("deployments", f"shop-{group}")
        assert found is not None, self.world.names("deployments")
        return found


@pytest.fixture(scope="session")
def real_server() -> Iterator[RealServer | None]:
    """One for all tests: it takes long to start."""
    if not PROGRAMS:
        yield None
        return
    from tests.backends.kubernetes.real_server import RealServer

    with RealServer(Path(PROGRAMS)) as server:
        yield server


@pytest.fixture
def world(real_server: RealServer | None) -> Iterator[World]:
    if real_server is not None:
        real_server.reset()
        yield real_server
        return
    with StandIn() as api:
        yield api


@pytest.fixture
def desk(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KUBECONFIG", str(world.write_kubeconfig(tmp_path / "kubeconfig")))
    settings.load.cache_clear()
    made = Desk(tmp_path, world)
    made.write()
    yield made
    settings.load.cache_clear()
