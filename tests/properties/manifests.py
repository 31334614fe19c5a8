"""Arbitrary valid manifests for a cluster."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from fleet.core.manifest.models import API_VERSION
from pools.traits import TRAITS

NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?", fullmatch=True).filter(lambda name: name[:6] != "fleet-")
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00$"), max_size=20)
QUEUES = st.from_regex(r"[A-Za-z0-9_.:@/-]{1,40}", fullmatch=True)
BROKERS = (
    {"url": "redis://redis.example:6380/3"},
    {"url": "rediss://redis.example"},
    {"url": "amqp://rabbit.example//"},
    {"url": {"secret": "broker-url"}},
)
POOLS = tuple(name for name in TRAITS if name != "custom")


CHECKS: list[dict[str, Any]] = [
    {},
    {"command": ["check", "--all"], "timeout": "1500ms", "interval": "100ms"},
    {"http": {"port": 8000, "path": "/ok", "host": "shop.example"}, "failures": 1},
]
WAITS: list[dict[str, Any]] = [
    {},
    {"waitFor": ["tcp://db:5432"]},
    {"waitFor": {"urls": ["http://a/b"], "timeout": "2h"}},
]


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    groups = {name: draw(st.one_of(workers(), commands(), jobs())) for name in names}
    for number, name in enumerate(names[1:], start=1):
        if draw(st.booleans()):
            groups[name]["dependsOn"] = draw(st.lists(st.sampled_from(names[:number]), max_size=2, unique=True))
    broker = draw(st.sampled_from(BROKERS))
    return {
        "apiVersion": API_VERSION,
        "kind": "Fleet",
        "metadata": {"name": draw(NAMES)},
        "spec": {
            "app": "shop:app",
            "broker": broker,
            "secrets": {"broker-url": {"file": "/nowhere"}, "key": {"env": "NOWHERE"}, "password": {"exec": ["no"]}},
            "concurrency": 10_000,
            "kubernetes": draw(clusters(names)),
            "groups": groups,
        },
    }


@st.composite
def workers(draw: st.DrawFn) -> dict[str, Any]:
    pool = draw(st.sampled_from(POOLS))
    slots = TRAITS[pool].fixed_slots or draw(st.integers(1, 30))
    celery = draw(st.booleans()) and pool in ("solo", "prefork", "threads", "gevent")
    queues = {
        name: draw(st.sampled_from([{}, {"priority": 3}])) for name in draw(st.sets(QUEUES, min_size=1, max_size=3))
    }
    worker: dict[str, Any] = {
        "pool": {"type": pool, "concurrency": slots},
        "queues": {name: {} for name in queues} if celery else queues,
        "secretEnv": draw(st.sampled_from([{}, {"KEY": "key"}])),
        "env": draw(st.dictionaries(st.from_regex(r"[A-Z]{1,8}", fullmatch=True), TEXTS, max_size=3)),
        "drain": {"timeout": f"{draw(st.integers(0, 600))}s"},
        "health": {"readyTimeout": f"{draw(st.integers(1, 3000))}s", **draw(st.sampled_from(CHECKS))},
        **draw(st.sampled_from(WAITS)),
        "perReplica": {"memory": f"{draw(st.integers(0, 5000))}Ki"},
        "rollout": draw(rollouts()),
        "paused": draw(st.booleans()),
    }
    if celery:
        return {**worker, "worker": "celery", "replicas": draw(st.integers(0, 5))}
    least = draw(st.integers(0, 20))
    # A pod of a cluster is indivisible: a whole number of them lies between the bounds.
    bounds = {"min": least, "max": draw(st.integers(max(1, least + slots - 1), 60))}
    scale = {**bounds, "targetWait": f"{draw(st.integers(1, 90))}s"}
    return {**worker, **draw(st.sampled_from([{"replicas": 3}, {"share": bounds}, {"autoscale": scale}]))}


@st.composite
def commands(draw: st.DrawFn) -> dict[str, Any]:
    words = draw(st.lists(TEXTS.filter(bool), min_size=1, max_size=4).filter(lambda words: words[0].strip()))
    return {
        "command": words,
        "replicas": draw(st.integers(0, 3)),
        "health": {"readyAfter": f"{draw(st.integers(0, 5))}s", **draw(st.sampled_from(CHECKS))},
        **draw(st.sampled_from(WAITS)),
        "rollout": draw(rollouts()),
    }


@st.composite
def jobs(draw: st.DrawFn) -> dict[str, Any]:
    again = st.sampled_from([{}, {"restart": {"policy": "onFailure"}}, {"paused": True}])
    return {"command": ["python", draw(TEXTS)], "job": True, **draw(again)}


@st.composite
def rollouts(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"strategy": "recreate"}
    surge = draw(st.integers(0, 3))
    least = draw(st.integers(0, 900))
    times = {"minReady": f"{least}s", "deadline": f"{least + draw(st.integers(1, 900))}s"}
    return {"maxSurge": surge, "maxUnavailable": draw(st.integers(0 if surge else 1, 3)), **times}


@st.composite
def clusters(draw: st.DrawFn, groups: list[str]) -> dict[str, Any]:
    own = {name: draw(pods()) for name in groups if draw(st.booleans())}
    keda = {
        "broker": draw(st.sampled_from(["redis", "rabbitmq"])),
        "address": "redis.example:6379",
        "host": "broker-url",
    }
    return {
        "image": "registry.example:5000/shop@sha256:" + "0" * 64,
        "namespace": "workers",
        "scaler": draw(st.sampled_from(["native", "fleet"])),
        "networkPolicy": draw(st.sampled_from(["none", "deny-ingress"])),
        "serviceAccount": draw(st.sampled_from(["robot", "shop.robot"])),
        "pullSecrets": ["registry"],
        "keda": draw(st.sampled_from([keda, {**keda, "password": "password"}])),
        "groups": own,
        **draw(pods()),
    }


@st.composite
def pods(draw: st.DrawFn) -> dict[str, Any]:
    every = {
        "annotations": {"example.com/note": draw(TEXTS)},
        "labels": {"team": "backend", "example.com/tier": ""},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
        "topologySpread": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "priorityClass": "high",
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1.5Gi", "nvidia.com/gpu": "1"}},
    }
    return {name: every[name] for name in draw(st.sets(st.sampled_from(sorted(every))))}
