"""A spec's digest stays what it was: a change would restart every replica at the next apply."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from fleet.core.desired import DesiredGroup
from fleet.core.expand.expand import expand
from fleet.core.expand.facts import Facts
from fleet.core.manifest.parse import parse
from fleet.core.manifest.tree import Source
from fleet.core.spec import digest, live_digest

MANIFEST = """
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: upgrade}
spec:
  app: shop.worker:app
  release: {workdir: /srv/shop, python: /srv/shop/.venv/bin/python, revision: r1}
  broker: {url: "redis://localhost:6379/0"}
  concurrency: 80
  balance: {mode: static}
  defaults: {env: {TZ: UTC}, drain: {timeout: 45s}}
  groups:
    solo: {pool: solo, replicas: 2, queues: [a]}
    prefork:
      pool: {type: prefork, concurrency: 10, maxTasksPerChild: 500, maxMemoryPerChild: 600Mi}
      replicas: 1
      queues: {b: {priority: 5}, c: {}}
      task: {timeLimit: 10m, softTimeLimit: 9m, acks: late, prefetch: 1}
    threads: {pool: {type: threads, concurrency: 8}, share: {weight: 1, min: 2, max: 24}, queues: [d]}
    gevent:
      pool: {type: gevent, concurrency: 20}
      autoscale: {weight: 3, min: 1, max: 40, targetWait: 5s}
      queues: [e]
      env: {POOL_SIZE: "20"}
    asyncio: {pool: {type: asyncio, concurrency: 50}, replicas: 1, queues: [f], logging: {level: DEBUG}}
    celery: {worker: celery, pool: {type: prefork, concurrency: 4}, replicas: 1, queues: [g]}
    beat:
      command: [celery, -A, shop.worker, beat]
      capacity: {slots: 0, processes: 1}
      replicas: 1
      rollout: {strategy: recreate}
"""

KNOWN = {
    "asyncio": ("3b4e280b", "dfccb89a"),
    "beat": ("1c9bb96f", "1c9bb96f"),
    "celery": ("a85aa86c", "a85aa86c"),
    "gevent": ("af3a8e66", "09b717c7"),
    "prefork": ("c01d6e12", "a9c60f5a"),
    "solo": ("a3c62e6f", "1066fd12"),
    "threads": ("b283df67", "562dd327"),
}
"""Digest and live digest per group, written down when 0.1 ran."""


def groups(text: str = MANIFEST) -> dict[str, DesiredGroup]:
    facts = Facts(cpus=4, python="/opt/python3", own_python="/opt/python3", own_version="0.1", workdir="/srv/shop")
    manifest = parse([Source("fleet.yaml", text.encode())], environ={}).manifest
    return dict(expand(manifest, facts=facts).groups)


@pytest.mark.parametrize("image", ["auto", "off"])
def test_a_spec_is_written_as_it_always_was_and_its_image_is_in_no_digest(image: str) -> None:
    plain = groups()
    for name, group in groups(MANIFEST.replace("release: {", f'release: {{image: "{image}", ')).items():
        assert json.dumps(group.spec.to_json()) == json.dumps(asdict(group.spec))
        assert (digest(group.spec), live_digest(group.spec)) == (
            digest(plain[name].spec),
            live_digest(plain[name].spec),
        )


@pytest.mark.parametrize("name", KNOWN)
def test_a_digest_is_what_running_fleets_have(name: str) -> None:
    spec = groups()[name].spec

    assert (digest(spec), live_digest(spec)) == KNOWN[name]
