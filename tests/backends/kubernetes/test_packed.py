"""Several replicas in one pod: how many pods that makes, what is in them, and what cannot be."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
import yaml

from fleet.backends.kubernetes import objects
from fleet.backends.kubernetes.packed import manifest_of_pod
from fleet.backends.kubernetes.pod_status import as_one
from fleet.core.autoscale.in_cluster import scaled_in_cluster
from fleet.core.expand.expand import divided_again, expand
from fleet.core.expand.facts import NO_OVERRIDES, Facts
from fleet.core.expand.in_cluster import desired_in_cluster, untranslated
from fleet.core.manifest.parse import from_document, parse
from fleet.core.manifest.tree import Source
from fleet.core.observed import Observed
from fleet.core.planning.assignment import free_indices
from fleet.core.planning.planner import plan
from fleet.core.spec import WorkerSpec
from tests.core.texts import fleet, said

BROKER = "  broker: {url: redis://redis/0}\n"


def document(group: str, pack: int = 4, *, more: str = "", cluster: str = "") -> dict[str, Any]:
    own = f"  kubernetes: {{image: shop:1, namespace: x, {cluster} groups: {{a: {{pack: {pack}}}}}}}\n"
    text = fleet(f"a: {{{group}}}").replace("  broker: embedded\n", BROKER + own + "  concurrency: 40\n" + more)
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def rendered(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The objects of group ``a``, by their kind."""
    parsed = from_document(given, name="given")
    return {one["kind"]: one for one in objects.files(parsed.manifest, parsed.document)["group-a.yaml"]}


def notes(given: dict[str, Any]) -> list[str]:
    manifest = from_document(given, name="given").manifest
    return list(untranslated(manifest, desired_in_cluster(manifest)))


@pytest.mark.parametrize(
    ("count", "pods", "note"),
    [
        ("replicas: 12", 3, []),
        ("replicas: 10", 3, ["the 10 replicas of a become 3 pods of 4: 2 more than written"]),
        ("replicas: 1", 1, ["the 1 replicas of a become 1 pod of 4: 3 more than written"]),
        ("replicas: 0", 0, []),
        ("replicas: 10, paused: true", 0, []),
        ("share: {max: 12}", 3, []),
        ("share: {max: 11}", 2, ["the 11 replicas of a become 2 pods of 4: 3 fewer than written"]),
    ],
)
def test_replicas_become_whole_pods(count: str, pods: int, note: list[str]) -> None:
    given = document(f"pool: solo, {count}, queues: [q]")
    assert rendered(given)["Deployment"]["spec"]["replicas"] == pods
    assert notes(given) == note


def test_a_share_never_gets_more_than_its_part() -> None:
    """Replicas that are written are all there; a share is a part of a budget that others need, too."""
    for most in range(4, 40):
        pods = rendered(document(f"pool: solo, share: {{max: {most}}}, queues: [q]"))["Deployment"]["spec"]["replicas"]
        assert most - 4 < pods * 4 <= most


def test_bounds_of_a_rollout_are_of_pods() -> None:
    made = rendered(document("pool: solo, replicas: 40, queues: [q]", pack=10))
    bounds = made["Deployment"]["spec"]["strategy"]["rollingUpdate"]
    assert bounds == {"maxSurge": 1, "maxUnavailable": 1}
    assert made["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1
    assert "PodDisruptionBudget" not in rendered(document("pool: solo, replicas: 4, queues: [q]"))


def test_keda_counts_for_the_slots_of_a_pod() -> None:
    scale = "autoscale: {min: 2, max: 22, targetWait: 10s, expectedRuntime: 2s}"
    spec = rendered(document(f"pool: solo, {scale}, queues: [q]"))["ScaledObject"]["spec"]
    assert spec["advanced"]["scalingModifiers"]["target"] == "20", "four slots start twenty tasks within ten seconds"
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 5)

    asked = document(f"pool: solo, {scale}, queues: [q]", cluster="scaler: fleet,")
    spec = rendered(asked)["ScaledObject"]["spec"]
    assert spec["triggers"][0]["metadata"]["targetValue"] == "4"
    manifest = from_document(asked, name="given").manifest
    (group,) = scaled_in_cluster(manifest, desired_in_cluster(manifest)).groups
    assert group.share.unit == 4


def test_a_pod_asks_for_what_its_replicas_need_together() -> None:
    group = "pool: {type: threads, concurrency: 3}, replicas: 4, queues: [q], perReplica: {memory: 50Mi}"
    pod = rendered(document(f"{group}, perSlot: {{memory: 10Mi}}"))["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["requests"]["memory"] == "320Mi"
    assert pod["volumes"][1]["emptyDir"]["sizeLimit"] == "256Mi"
    assert pod["terminationGracePeriodSeconds"] == 90


def test_all_replicas_start_a_pod_and_one_keeps_it() -> None:
    """A pod that restarts because one of its replicas is ill would end what the others run."""
    group = "pool: solo, replicas: 8, queues: [q], health: {readyTimeout: 20s, command: [check]}"
    (container,) = rendered(document(group))["Deployment"]["spec"]["template"]["spec"]["containers"]
    ask = ["python3", "-P", "-m", "fleet", "health", "--probe"]
    assert container["startupProbe"]["exec"]["command"] == [*ask, "ready", "--least", "4"]
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 20
    assert container["livenessProbe"]["exec"]["command"] == [*ask, "live", "--least", "1"]
    assert container["readinessProbe"]["exec"]["command"] == [*ask, "ready", "--least", "1"]


def test_what_a_running_worker_applies_keeps_the_pods_and_everything_else_replaces_them() -> None:
    def made(group: str, pack: int = 4) -> tuple[str, str]:
        kinds = rendered(document(group, pack))
        return str(kinds["Deployment"]["spec"]["template"]), kinds["ConfigMap"]["data"]["fleet.json"]

    base = made("pool: solo, replicas: 8, queues: [q]")
    more = made("pool: solo, replicas: 40, queues: [q]")
    live = made("pool: solo, replicas: 8, queues: [q, r], logging: {level: DEBUG}")
    assert more == base, "the number of pods is no matter of a pod"
    assert live[0] == base[0]
    assert live[1] != base[1]
    assert made("pool: solo, replicas: 8, queues: [q], env: {A: b}")[0] != base[0]
    assert made("pool: solo, replicas: 8, queues: [q]", pack=2)[0] != base[0]


def test_a_pack_of_one_is_none() -> None:
    plain = document("pool: solo, replicas: 3, queues: [q]")
    del plain["spec"]["kubernetes"]["groups"]
    assert rendered(plain) == rendered(document("pool: solo, replicas: 3, queues: [q]", pack=1))


def test_the_manifest_of_a_pod_has_the_group_and_none_of_what_the_cluster_does() -> None:
    group = (
        "pool: solo, replicas: 8, queues: [q], secretEnv: {KEY: key}, waitFor: ['tcp://db:1'], user: nobody,"
        " rollout: {maxSurge: 2}, health: {command: [check]}, drain: {timeout: 5s}"
    )
    more = "  secrets: {key: {file: /nowhere}, other: {env: OTHER}}\n  heal: {stuck: warn, drift: enabled}\n"
    more += "  release: {revision: '7', workdir: /srv, python: /srv/python, image: 'off'}\n  budgets: {processes: 9}\n"
    made = rendered(document(group, more=more))
    inner = json.loads(made["ConfigMap"]["data"]["fleet.json"])
    spec = inner["spec"]
    assert inner["metadata"] == {"name": "shop"}
    assert spec["release"] == {"workdir": "/app", "revision": "7", "image": "off"}
    assert spec["secrets"] == {"key": {"env": "FLEET_SECRET_KEY"}}
    heals = dict.fromkeys(("stopped", "missing", "parked"), "enabled")
    assert spec["heal"] == {"mode": "off", "stuck": "warn", **heals}
    assert spec["groups"]["a"] == {
        "pool": {"type": "solo", "concurrency": 1},
        "replicas": 4,
        "queues": {"q": {}},
        "secretEnv": {"KEY": "key"},
        "waitFor": {"urls": ["tcp://db:1"]},
        "health": {"command": ["check"]},
        "drain": {"timeout": "5s"},
    }
    assert "budgets" not in spec


def test_a_value_is_the_same_in_the_pod_whatever_it_looks_like() -> None:
    value = '\U0001f600 \x7f\x85\u2028\ufeff \u00e9 ${env:HOME} $${env:HOME} \\ud83d "quoted" {index}'
    group = {"pool": "solo", "queues": {"q": {}}, "env": {"A": value}}
    whole = {
        "apiVersion": "workerfleet.dev/v1alpha1",
        "kind": "Fleet",
        "spec": {"app": "shop:app", "broker": {"url": "redis://redis/0"}, "groups": {"a": group}},
    }
    text = manifest_of_pod(whole, WorkerSpec("worker", "shop", "a"), 2, workdir="/app")
    inner = parse([Source("fleet.json", text.encode())], environ={"HOME": "/root"}).manifest
    assert (inner.spec.groups["a"].env or {})["A"] == value
    assert json.loads(text)["metadata"] == {"name": "shop"}


@pytest.mark.parametrize(
    ("group", "pack", "message"),
    [
        ("command: [serve], replicas: 2", 2, "group 'a' is a command, and pack is for workers"),
        ("command: [migrate], job: true", 2, "group 'a' is a command, and pack is for workers"),
        ("pool: solo, queues: [q], autoscale: {max: 3}", 4, "4 replicas has 4 slots, and autoscale.max of 'a' is 3"),
        ("pool: solo, queues: [q], share: {max: 3}", 4, "4 replicas has 4 slots, and share.max of 'a' is 3"),
        (
            "pool: {type: threads, concurrency: 8}, queues: [q], autoscale: {max: 15}",
            2,
            "one pod of 2 replicas has 16 slots, and autoscale.max of 'a' is 15",
        ),
        ("pool: solo, queues: [q], replicas: 1", 0, "spec.kubernetes.groups.a.pack"),
        ("pool: solo, queues: [q], replicas: 1", 101, "spec.kubernetes.groups.a.pack"),
    ],
)
def test_what_cannot_be_packed_is_refused_with_its_place(group: str, pack: int, message: str) -> None:
    more = f"  concurrency: 40\n  kubernetes:\n    image: x\n    groups:\n      a:\n        pack: {pack}\n"
    problems = said(fleet(f"a: {{{group}}}", more=more))
    assert message in problems
    assert "1.yaml:12:9 " in problems


@pytest.mark.parametrize("metrics", ["none", "port", "annotations"])
@pytest.mark.parametrize("pack", [1, 3])
def test_pods_can_be_scraped_where_that_is_said(metrics: str, pack: int) -> None:
    policy = "networkPolicy: deny-ingress,"
    given = document("pool: solo, replicas: 3, queues: [q]", pack, cluster=f"metrics: {metrics}, {policy}")
    template = rendered(given)["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    parsed = from_document(given, name="given")
    policies = [
        one for one in objects.files(parsed.manifest, parsed.document)["fleet.yaml"] if one["kind"] == "NetworkPolicy"
    ]
    served = metrics != "none"
    assert container.get("ports", []) == [{"name": "metrics", "containerPort": 9465, "protocol": "TCP"}] * served
    assert ("FLEET_REPORT_PORT" in {one["name"] for one in container["env"]}) == served
    assert ("prometheus.io/scrape" in template["metadata"]["annotations"]) == (metrics == "annotations")
    assert len(policies) == 1 + served, "who may ask is let in"


def test_replicas_of_a_pod_are_one_row() -> None:
    first = {"name": "a.7", "condition": "ready", "pid": 5, "slots": 1, "busy": 1, "processed": 3, "failed": 1}
    first |= {"tasks": [{"id": "1", "name": "t", "since": 2.0}], "memory": 100, "reason": ""}
    second = {**first, "name": "a.8", "busy": 0, "tasks": [], "condition": "stuck", "reason": "no heartbeat"}
    third = {"name": "a.9", "condition": "dead", "reason": "killed"}
    one = as_one([first, second, third])
    assert (one["slots"], one["busy"], one["processed"], one["failed"], one["memory"]) == (2, 1, 6, 2, 100)
    assert [task["id"] for task in one["tasks"]] == ["1"]
    assert (one["condition"], one["reason"]) == ("stuck", "a.8: no heartbeat")
    assert as_one([third, first])["condition"] == "ready", "what works, works"
    assert as_one([first]) == first
    assert as_one([]) == {}


def test_replicas_in_a_pod_are_counted_from_a_number_of_its_own() -> None:
    made = rendered(document("pool: solo, replicas: 8, queues: [q]"))["ConfigMap"]["data"]["fleet.json"]
    inner = parse([Source("fleet.json", made.encode())], environ={}).manifest
    desired = expand(inner, facts=Facts(first_index=500))
    steps = plan(desired, Observed("shop", up=False)).steps
    assert {step.replica for step in steps} == {"fleet-controller.0", *(f"a.{500 + number}" for number in range(4))}
    again = divided_again(inner, desired, overrides=NO_OVERRIDES)
    assert {name: group.first_index for name, group in again.groups.items()} == {"a": 500, "fleet-controller": 0}
    assert list(islice(free_indices([501, 3], first=500), 3)) == [500, 502, 503]
