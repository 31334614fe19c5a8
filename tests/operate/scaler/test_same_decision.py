"""The same decision on a host and in a cluster: one trace of the simulator, played to both, tick by tick."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleet import settings
from fleet.backends.kubernetes.client import Cluster
from fleet.backends.memory import MemoryBackend
from fleet.core.autoscale.groups import scaled_groups
from fleet.core.autoscale.in_cluster import scaled_in_cluster
from fleet.core.autoscale.sample import Backlog, QueueSample, Sample
from fleet.core.expand.in_cluster import desired_in_cluster
from fleet.core.manifest.tree import Source as Text
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.simulation.engine import Arrival, Orders, Setting, Station, simulate
from fleet.core.simulation.policies import Fleet, PolicyInput
from fleet.inputs import facts
from fleet.inputs.manifest import LoadedManifest, from_sources
from fleet.operate.change import carry_out
from fleet.operate.controller.loop import Controller
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.scaler.loop import Scaler
from fleet.replica.pod_report import PodReport

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: shop}
spec:
  app: shop:app
  broker: {url: "redis://localhost/0"}
  concurrency: 17
  balance: {tick: 2s}
  kubernetes: {image: shop:1, namespace: shop, scaler: fleet}
  groups:
    mail: {pool: solo, autoscale: {max: 9, weight: 2, targetWait: 5s, expectedRuntime: 1s}, queues: [mail]}
    web: {pool: solo, autoscale: {max: 9, targetWait: 2s, expectedRuntime: 1s}, queues: [web]}
    slow: {pool: solo, autoscale: {max: 9, targetWait: 20s, expectedRuntime: 4s}, queues: [slow]}
    fixed: {pool: solo, replicas: 1, queues: [fixed]}
"""
BEGAN_AT = 1_000_000.0
Trace = list[tuple[float, Mapping[str, Sample]]]


class Recorded:
    """A policy that notes what it was asked."""

    def __init__(self, inner: Fleet) -> None:
        self.inner, self.trace, self.orders = inner, Trace(), list[Orders]()
        self.tick_seconds = inner.tick_seconds

    def start(self) -> Mapping[str, int]:
        return self.inner.start()

    def decide(self, now: float, samples: Mapping[str, Sample]) -> Orders:
        self.trace.append((now, samples))
        self.orders.append(self.inner.decide(now, samples))
        return self.orders[-1]


def arrivals(
    chance: random.Random, *, per_second: float, runtime: float, burst: tuple[float, float]
) -> Iterator[Arrival]:
    """Poisson, eight times as many during the burst."""
    now = 0.0
    while True:
        factor = 8.0 if burst[0] <= now < burst[1] else 1.0
        now += chance.expovariate(per_second * factor)
        yield now, chance.expovariate(1 / runtime)


def recorded(loaded: LoadedManifest, *, seed: int, seconds: float = 700.0) -> Recorded:
    desired = desired_in_cluster(loaded.manifest)
    found = scaled_groups(loaded.manifest, {name: one.spec for name, one in desired.groups.items()})
    stations = [Station(group) for group in found.groups]
    policy = Recorded(Fleet(PolicyInput(found.groups, found.budget, found.parameters, {})))
    chance = random.Random(seed)
    coming = {
        "mail": arrivals(chance, per_second=1.5, runtime=1.0, burst=(200, 260)),
        "web": arrivals(chance, per_second=1.0, runtime=0.5, burst=(230, 300)),
        "slow": arrivals(chance, per_second=0.2, runtime=4.0, burst=(500, 560)),
    }
    simulate(Setting(stations, found.budget, seconds), coming, policy)
    return policy


class Broker:
    """Says what the trace says."""

    def __init__(self) -> None:
        self.now, self.samples = BEGAN_AT, dict[str, Sample]()

    def backlog(self, queues: Sequence[str]) -> Backlog:
        found = {}
        for name in queues:
            sample = self.samples[name]
            sent = None if not sample.queue else self.now - (sample.oldest_age_seconds or 0.0)
            found[name] = QueueSample(sample.queue, sent)
        return Backlog(found, None)

    sample = backlog

    def close(self) -> None:
        pass


def replicas(group: str, sample: Sample) -> Iterator[tuple[int, State, dict[str, Any]]]:
    """Index, state and what each replica says; the first one, which is always there, has all counts."""
    states = [State.READY] * sample.ready + [State.STARTING] * sample.starting + [State.DRAINING] * sample.draining
    assert sample.ready, f"{group} has no replica that works"
    left = sample.busy
    order = sorted(range(len(states)), key=lambda index: states[index] is not State.DRAINING)
    busy = dict.fromkeys(range(len(states)), 0)
    for index in order:
        if left and states[index] is not State.STARTING:
            busy[index], left = 1, left - 1
    for index, state in enumerate(states):
        first = index == 0
        told = {"ended": sample.completions if first else 0, "seconds": sample.busy_seconds if first else 0.0}
        yield index, state, {**told, "busy": busy[index]}


class PlayedHost(MemoryBackend):
    """A host whose replicas are those of the trace, once there is one."""

    samples: Mapping[str, Sample] | None = None

    def observe(self, *, shares: bool = False, usage: bool = True) -> Observed:
        plain = super().observe(shares=shares)
        if self.samples is None:
            return plain
        found = {name: one for name, one in plain.replicas.items() if one.group not in self.samples}
        for group, sample in self.samples.items():
            spec = next(one.spec for one in plain.replicas.values() if one.group == group)
            for index, state, told in replicas(group, sample):
                runs = state is not State.STARTING
                one = ObservedReplica(
                    group, index, "", state, pid=7 if runs else None, spec=spec, slots=1, busy=told["busy"],
                    processed=told["ended"], busy_seconds=told["seconds"], counts=runs,
                )  # fmt: skip
                found[one.name] = one
        return Observed("shop", up=True, replicas=found)


class PlayedCluster(Cluster):
    """A cluster whose pods are those of the trace."""

    def __init__(self) -> None:
        self.samples: Mapping[str, Sample] = {}
        self.reports: dict[str, PodReport] = {}
        self.written: list[str] = []

    def objects(self, kind: Any, labels: Mapping[str, str]) -> list[dict[str, Any]]:
        self.reports = {}
        return [pod for group, sample in self.samples.items() for pod in self._pods(group, sample)]

    def _pods(self, group: str, sample: Sample) -> Iterator[dict[str, Any]]:
        for index, state, told in replicas(group, sample):
            name = f"shop-{group}-{index}"
            ready = {"type": "Ready", "status": "False" if state is State.STARTING else "True"}
            gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if state is State.DRAINING else {}
            if state is not State.STARTING:
                self.reports[name] = PodReport(
                    7, "ready", 1, told["busy"], told["ended"], told["seconds"], told["busy"], counts=True
                )
            yield {
                "metadata": {"name": name, "labels": {"app.kubernetes.io/name": group}, **gone},
                "status": {"phase": "Running", "conditions": [ready]},
            }

    def merge(self, kind: Any, name: str, patch: Mapping[str, Any], *, manager: str) -> dict[str, Any]:
        self.written.append(name)
        return {}

    def run(self, pod: str, command: tuple[str, ...], *, timeout_seconds: float = 15.0) -> str:
        return "done"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> LoadedManifest:
    """The app of the manifest is not there to be asked: it lays out its queues as everybody does."""
    monkeypatch.setattr(facts, "probe", lambda _app, **_where: {"transportOptions": {}})
    return from_sources([Text("fleet.yaml", MANIFEST.encode())], environ={})


@pytest.mark.parametrize("seed", [1, 2])
def test_one_trace_gives_the_same_slots_on_a_host_and_in_a_cluster(
    loaded: LoadedManifest, tmp_path: Path, seed: int
) -> None:
    policy = recorded(loaded, seed=seed)
    host, broker = PlayedHost("shop"), Broker()
    fleet = LocalFleet("shop", settings=settings.Settings(home=tmp_path), backend=host, now=lambda: broker.now)
    carry_out(fleet, fleet.planned(*fleet.desired_of(loaded), manifest=loaded), verb="apply")
    host.settle()
    controller = Controller(fleet, source=lambda _url, _options: broker)
    desired, cluster = desired_in_cluster(loaded.manifest), PlayedCluster()
    scaler = Scaler(
        desired,
        scaled_in_cluster(loaded.manifest, desired),
        cluster,
        read_backlog=broker.backlog,
        ask_pod=lambda pod: cluster.reports.get(pod["metadata"]["name"]),
        now=lambda: broker.now,
    )
    on_host, in_cluster, simulated = [], [], []
    for (now, samples), orders in zip(policy.trace, policy.orders, strict=True):
        broker.now, broker.samples, host.samples, cluster.samples = BEGAN_AT + now, dict(samples), samples, samples
        look, there = controller.look().look, scaler.tick()
        assert look.decision is not None
        on_host.append((dict(look.decision.slots), dict(look.asked)))
        in_cluster.append((dict(there.decision.slots), dict(there.orders)))
        simulated.append(dict(orders.slots))
    assert in_cluster == on_host
    assert [slots for slots, _ in on_host] == simulated
    assert all(sum(asked.values()) <= 16 for _, asked in in_cluster)
    assert len({tuple(sorted(slots.items())) for slots, _ in in_cluster}) > 3, "the trace moves slots"
    assert max(slots["mail"] for slots, _ in in_cluster) > min(slots["mail"] for slots, _ in in_cluster)
