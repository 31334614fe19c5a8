"""Manifests that tests start from."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import yaml

from fleet.core.manifest.parse import Parsed, parse
from fleet.core.manifest.tree import Source
from fleet.errors import ManifestError, Problem

GOOD = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: shop, labels: {team: backend}}
spec:
  app: shop.worker:app
  release: {workdir: /srv/shop, python: /srv/shop/python, revision: "${env:GIT_SHA}"}
  broker: {url: {secret: broker-url}, visibilityTimeout: 1h}
  secrets:
    broker-url: {file: /etc/shop/broker_url}
    stripe-key: {exec: [vault, read, stripe]}
  concurrency: 80
  balance: {mode: dynamic, tick: auto, surplus: keep, squeeze: 120s, tail: hold}
  budgets: {processes: 60, memory: 16Gi, connections: {postgres: 120}}
  defaults:
    env: {TZ: UTC}
    drain: {timeout: 60s}
  groups:
    thumbs:
      pool: solo
      replicas: 10
      queues: [thumbs]
    reports:
      pool: {type: prefork, concurrency: 10, maxTasksPerChild: 500, maxMemoryPerChild: 600Mi,
             maxAgePerChild: 1h, startMethod: fork}
      replicas: 1
      queues: {reports: {priority: 5}}
      task: {timeLimit: 10m, softTimeLimit: 9m, acks: late, prefetch: 1, maxAttempts: 3}
      restart: {backoff: {initial: 1s, max: 1m}, maxCrashes: 8, window: 10m}
      rollout: {strategy: rolling, maxSurge: 1, maxUnavailable: 0, onFailure: pause}
      health: {readyTimeout: 2m}
      logging: {level: INFO, format: json}
      perSlot: {memory: 600Mi, connections: {postgres: 1}}
      paused: false
    mail:
      pool: {type: threads, concurrency: 8}
      share: {weight: 1, min: 2, max: 24, tier: 0, unit: 1}
      queues: [mail]
    webhooks:
      pool: {type: gevent, concurrency: 20}
      autoscale: {weight: 3, min: 1, max: 40, targetWait: 5s, expectedRuntime: 1s, onMissingMetrics: hold}
      queues: [webhooks]
      env: {POOL_SIZE: "20"}
      secretEnv: {STRIPE_KEY: stripe-key}
    beat:
      command: [celery, -A, shop.worker, beat]
      capacity: {slots: 0, processes: 1}
      replicas: 1
      rollout: {strategy: recreate}
      dependsOn: [mail]
"""
ENVIRON = {"GIT_SHA": "9f31c2ab"}


def read(*texts: str | bytes, environ: dict[str, str] | None = None) -> Parsed:
    """Parse texts as files called 1.yaml, 2.yaml and so on."""
    sources = [Source(f"{number}.yaml", text) for number, text in enumerate(texts, 1)]
    return parse(sources, environ=ENVIRON if environ is None else environ)


def problems(*texts: str | bytes, environ: dict[str, str] | None = None) -> list[Problem]:
    """The problems of texts; empty when there are none."""
    try:
        read(*texts, environ=environ)
    except ManifestError as error:
        return list(error.problems)
    return []


def said(*texts: str | bytes, environ: dict[str, str] | None = None) -> str:
    """All problems as people see them."""
    return "\n".join(str(problem) for problem in problems(*texts, environ=environ))


def document() -> dict[str, Any]:
    """The good manifest as plain values, to change one thing in."""
    return copy.deepcopy(_good_values())


@cache
def _good_values() -> dict[str, Any]:
    """Read once: hundreds of tests are made of it, at collection and in each process."""
    values: dict[str, Any] = yaml.safe_load(GOOD)
    return values


def fleet(groups: str, *, more: str = "") -> str:
    """A small manifest around some groups, given in flow style: ``a: {pool: solo, replicas: 1}``."""
    head = "apiVersion: workerfleet.dev/v1alpha1\nkind: Fleet\nmetadata: {name: shop}\n"
    return f"{head}spec:\n  app: shop:app\n  broker: embedded\n{more}  groups:\n    {groups}\n"
