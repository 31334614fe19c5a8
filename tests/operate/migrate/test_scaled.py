"""Groups that autoscale, and shares: the controller of the host and the scaler of the cluster divide one budget."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from fleet import settings
from fleet.backends.kubernetes.client import Cluster, Place
from fleet.backends.kubernetes.kinds import DEPLOYMENT, Kind
from fleet.core.autoscale.in_cluster import scaled_in_cluster
from fleet.core.autoscale.sample import Backlog, QueueSample
from fleet.core.expand.in_cluster import desired_in_cluster
from fleet.core.manifest.parse import from_document
from fleet.operate.controller.loop import Controller
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.migrate import effects
from fleet.operate.scaler.loop import Scaler
from fleet.state import decisions
from tests.conftest import eventually
from tests.operate.migrate.conftest import Desk
from tests.operate.migrate.test_flow import Crash, around

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: shop}
spec:
  app: shop:app
  broker: {url: "redis://redis.internal/0"}
  heal: {mode: "off"}
  concurrency: 24
  groups:
    mail: {pool: {type: threads, concurrency: 4}, autoscale: {min: 4, max: 20}, queues: [mail]}
    news: {pool: {type: threads, concurrency: 4}, autoscale: {min: 4, max: 20}, queues: [news]}
    bulk: {pool: {type: threads, concurrency: 4}, share: {min: 2, max: 8}, queues: [bulk]}
"""
CLUSTER = """\
spec:
  target: kubernetes
  kubernetes: {context: here, namespace: shop, image: "shop:1", scaler: %s}
"""


@pytest.fixture(params=["native", "fleet"])
def scaled(desk: Desk, request: pytest.FixtureRequest) -> Desk:
    (desk.folder / "prod.yaml").write_text(MANIFEST)
    (desk.folder / "cluster.yaml").write_text(CLUSTER % request.param)
    desk.units = {"mail": 4, "news": 4, "bulk": 4}
    desk.fleet("apply prod.yaml --yes --prune")
    assert desk.slots_here() == 24
    return desk


class Busy:
    """A broker in which very much waits for everybody."""

    def sample(self, queues: list[str]) -> Backlog:
        return Backlog({name: QueueSample(waiting=10_000) for name in queues})

    def close(self) -> None:
        pass


def budget_of_host() -> int:
    """What the host's controller divides among the groups that autoscale there, and gives to them when all are busy."""
    fleet = LocalFleet("shop", settings=settings.load())
    controller = Controller(fleet, source=lambda _url, _options: Busy())
    look = controller.look().look
    assert sum(look.asked.values()) <= look.budget
    return look.budget


def budget_there(desk: Desk) -> int:
    """What the cluster's own scaler divides, by the manifest that is mounted in its pods; and orders no more."""
    deployment = desk.api.get("deployments", "shop-fleet-controller")
    assert deployment is not None
    volume = next(one for one in deployment["spec"]["template"]["spec"]["volumes"] if one["name"] == "manifest")
    mounted = desk.api.get("configmaps", volume["configMap"]["name"])
    assert mounted is not None
    manifest = from_document(json.loads(mounted["data"]["manifest.json"]), name="mounted").manifest
    desired = desired_in_cluster(manifest)
    found = scaled_in_cluster(manifest, desired)
    busy = Busy().sample(["mail", "news"])
    cluster = Cluster(Place("here", "shop"))
    scaler = Scaler(desired, found, cluster, read_backlog=lambda _groups: busy, ask_pod=lambda _pod: None)
    assert sum(scaler.tick().orders.values()) <= found.budget
    return found.budget


def most_pods(desk: Desk) -> dict[str, int]:
    names = desk.api.names("scaledobjects")
    found = [desk.api.get("scaledobjects", name) for name in names]
    return {one["metadata"]["name"]: one["spec"]["maxReplicaCount"] for one in found if one is not None}


def test_both_sides_divide_one_budget(scaled: Desk) -> None:
    desk = scaled
    before = budget_of_host()
    part = next(one for one in desk.migrate("plan -o json").json["moves"] if one["group"] == "mail")["steps"][-1]
    desk.step("mail")
    kept = desk.kept()["groups"]["mail"]
    assert kept["part"] >= part["slotsThere"] > 0
    assert budget_of_host() == before - kept["part"]
    assert desk.slots_here() == 24 - kept["part"], "the others keep what they had"
    assert most_pods(desk)["shop-mail"] * 4 <= kept["part"], "KEDA never asks for more than the cluster's part"
    if "shop-fleet-controller" in desk.api.names("deployments"):
        assert budget_there(desk) == kept["part"]
    spec = desk.api.get("deployments", "shop-mail")["spec"]  # type: ignore[index]
    assert spec["replicas"] == part["pods"], "the handover to the scaler drops no pods"

    desk.step("news")
    both = [desk.kept()["groups"][name]["part"] for name in ("mail", "news")]
    assert sum(both) + desk.slots_here() <= 24
    if "shop-fleet-controller" in desk.api.names("deployments"):
        assert budget_there(desk) == sum(both)


def test_a_group_that_the_scaler_moved_comes_back_and_the_controller_moves_it_again(scaled: Desk) -> None:
    desk = scaled
    before = budget_of_host()
    desk.step("mail")
    desk.api.update("deployments", "shop-mail", {"spec": {"replicas": 5}}, manager="hpa")
    desk.step("--back mail")
    assert desk.there() == {}
    assert desk.slots_here() == 24
    assert budget_of_host() == before
    assert desk.kept() is None


def test_a_share_has_the_same_pods_whoever_is_there_already(scaled: Desk) -> None:
    desk = scaled
    desk.step("bulk")
    alone = desk.there()["bulk"]
    desk.step("mail")
    assert desk.there()["bulk"] == alone
    desk.step("news")
    assert desk.kept()["is_complete"]
    assert desk.there()["bulk"] == alone
    assert desk.slots_here() == 0


def test_what_the_hosts_controller_had_lent_is_taken_back_before_pods_come(
    scaled: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = scaled
    path = LocalFleet("shop", settings=settings.load()).places.decisions
    decisions.write(path, decisions.Decisions(1.0, {"mail": 4, "news": 18}, {}))
    desk.fleet("apply prod.yaml --yes")
    assert desk.slots_of_host()["news"] > 10

    around(monkeypatch, lambda _effect, _is_over: within(desk))
    desk.step("mail")
    assert desk.there()["mail"] == 2
    assert sum(desk.slots_of_host().values()) + desk.kept()["groups"]["mail"]["part"] <= 24


def test_what_the_scaler_had_lent_in_the_cluster_is_waited_for_before_the_host_starts_more(
    scaled: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = scaled
    desk.step("mail")
    desk.step("news")
    if "shop-fleet-controller" not in desk.api.names("deployments"):
        return  # with KEDA alone nobody keeps the budget
    parts = {name: one["part"] // 4 for name, one in desk.kept()["groups"].items()}

    def pods(**counts: int) -> None:
        for group, count in counts.items():
            desk.api.update("deployments", f"shop-{group}", {"spec": {"replicas": count}}, manager="hpa")
            eventually(lambda group=group, count=count: desk.there().get(group, 0) == count)

    pods(mail=parts["mail"] - 1)
    pods(news=parts["news"] + 1)
    assert desk.slots_here() + desk.slots_there() <= 24
    given_back: list[float] = []

    def play_scaler(seconds: float) -> None:
        given_back.append(seconds)
        if desk.kept_there()["groups"]["mail"]["to"] == "host":
            pods(news=parts["news"])

    monkeypatch.setattr(effects, "time", SimpleNamespace(sleep=play_scaler))
    around(monkeypatch, lambda _effect, _is_over: within(desk))
    said = desk.step("--back mail")
    assert "to stay: others give back" in said.err
    assert given_back


def test_a_step_that_ended_between_a_scaler_and_its_deployment_goes_on(
    scaled: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = scaled
    desk.step("mail")
    desk.api.update("deployments", "shop-mail", {"spec": {"replicas": 3}}, manager="kube-controller-manager")
    plain = Cluster.apply

    def crash(self: Cluster, kind: Kind, *args: Any, **more: Any) -> Any:
        if kind == DEPLOYMENT and not more.get("dry_run") and "shop-mail" not in desk.api.names("scaledobjects"):
            raise Crash
        return plain(self, kind, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Cluster, "apply", crash)
        with pytest.raises(Crash):
            desk.step("--back mail")
    assert "shop-mail" not in desk.api.names("scaledobjects")
    desk.step("--back")
    assert (desk.slots_here(), desk.there(), desk.kept()) == (24, {}, None)


def test_every_group_finds_room_although_pods_are_whole(scaled: Desk) -> None:
    """Twelve slots for two groups are six each on the host, and one pod of four and two slots beside it each there."""
    desk = scaled
    text = MANIFEST.replace("concurrency: 24", "concurrency: 20")
    (desk.folder / "prod.yaml").write_text(text.replace("min: 2, max: 8", "min: 8, max: 8"))
    desk.fleet("apply prod.yaml --yes")
    assert desk.slots_of_host() == {"mail": 6, "news": 6, "bulk": 8}
    steps = desk.migrate("plan -o json news").json["moves"][0]["steps"]
    assert [(one["pods"], one["slotsHere"]) for one in steps] == [(0, 6), (0, 2), (1, 2), (1, 0)], "it serves"
    for _ in range(3):
        desk.step()
    assert desk.kept()["is_complete"]
    assert {name: desk.kept()["groups"][name]["part"] for name in ("mail", "news", "bulk")} == {
        "mail": 6,
        "news": 6,
        "bulk": 8,
    }
    for _ in range(3):
        desk.step("--back")
    assert desk.slots_of_host() == {"mail": 6, "news": 6, "bulk": 8}


def within(desk: Desk) -> None:
    assert desk.slots_here() + desk.slots_there() <= 24
