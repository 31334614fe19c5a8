"""A fleet whose replicas live in memory, and a stand-in of a cluster beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleet import settings
from fleet.backends.memory import MemoryBackend
from fleet.core.observed import GONE
from fleet.operate.local_fleet import LocalFleet
from tests.backends.kubernetes.stand_in import StandIn
from tests.cli.conftest import Said, typed

HOST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  app: shop:app
  broker: {{url: "redis://redis.internal/0"}}
  heal: {{mode: "off"}}
  concurrency: {budget}
  groups:
    mail: {{pool: {{type: threads, concurrency: 4}}, replicas: 2, queues: [mail]}}
    thumbs: {{pool: solo, replicas: {thumbs}, queues: [thumbs]}}
    clock: {{command: [celery, beat], replicas: 1}}
{more}"""
CLUSTER = """\
spec:
  target: kubernetes
  kubernetes: {context: here, namespace: shop, image: "shop:1"}
"""
UNITS = {"mail": 4, "thumbs": 1, "clock": 0}


@dataclass
class Desk:
    """Where somebody sits and types. ``units``: slots of the budget of one pod."""

    folder: Path
    host: MemoryBackend
    api: StandIn
    units: dict[str, int] = field(default_factory=lambda: dict(UNITS))

    def write(self, *, budget: int = 13, thumbs: int = 5, more: str = "", cluster: str = CLUSTER) -> None:
        (self.folder / "prod.yaml").write_text(HOST.format(budget=budget, thumbs=thumbs, more=more))
        (self.folder / "cluster.yaml").write_text(cluster)

    def fleet(self, line: str, code: int | None = 0) -> Said:
        words = [str(self.folder / word) if word.endswith(".yaml") else word for word in line.split()]
        return typed(words, code)

    def migrate(self, line: str, code: int | None = 0) -> Said:
        return self.fleet(f"migrate {line} prod.yaml cluster.yaml", code)

    def step(self, line: str = "", code: int | None = 0) -> Said:
        return self.migrate(f"step --yes {line}", code)

    # --- what runs

    def here(self) -> dict[str, int]:
        """Group -> replicas on the host."""
        own: dict[str, int] = {}
        for one in self.host.observe().replicas.values():
            if one.state not in GONE and not one.group.startswith("fleet-"):
                own[one.group] = own.get(one.group, 0) + 1
        return own

    def slots_of_host(self) -> dict[str, int]:
        """Group -> slots of its replicas on the host."""
        found = [one for one in self.host.observe().replicas.values() if one.state not in GONE]
        return {name: sum(one.slots for one in found if one.group == name) for name in self.units if self.units[name]}

    def slots_here(self) -> int:
        return sum(self.slots_of_host().values())

    def there(self) -> dict[str, int]:
        """Group -> pods in the cluster."""
        own: dict[str, int] = {}
        for name in self.api.names("pods"):
            pod = self.api.get("pods", name)
            if pod is not None:
                group = pod["metadata"]["labels"]["app.kubernetes.io/name"]
                own[group] = own.get(group, 0) + 1
        return own

    def slots_there(self) -> int:
        return sum(count * self.units.get(group, 0) for group, count in self.there().items())

    def kept(self) -> Any:
        path = self.folder / "home" / "shop" / "state" / "migration.json"
        return json.loads(path.read_text()) if path.exists() else None

    def kept_there(self) -> Any:
        found = self.api.get("configmaps", "shop-migration")
        return None if found is None else json.loads(found["data"]["migration.json"])


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    world = MemoryBackend("shop")
    with StandIn() as api:
        monkeypatch.setenv("FLEET_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("KUBECONFIG", str(api.write_kubeconfig(tmp_path / "kubeconfig")))
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(LocalFleet, "backend", property(lambda self: world))
        settings.load.cache_clear()
        made = Desk(tmp_path, world, api)
        made.write()
        made.fleet("apply prod.yaml --yes")
        yield made
    settings.load.cache_clear()
