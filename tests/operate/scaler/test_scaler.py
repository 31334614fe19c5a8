"""The controller in a cluster, with the stand-in for an API server, and KEDA played by a few lines."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fleet.backends.kubernetes.client import Cluster, Place
from fleet.backends.kubernetes.kinds import POD, Object, name_of
from fleet.backends.kubernetes.leader import SECONDS, Leadership
from fleet.backends.kubernetes.names import DELETION_COST, LEADS
from fleet.core.autoscale.in_cluster import scaled_in_cluster
from fleet.core.autoscale.sample import Backlog, QueueSample
from fleet.core.expand.in_cluster import desired_in_cluster
from fleet.errors import FleetError
from fleet.inputs.manifest import from_files
from fleet.operate.scaler.__main__ import Candidate, Mounted, main
from fleet.operate.scaler.loop import Scaler, ScalerLook, cost_of
from fleet.operate.scaler.server import STALE_SECONDS, Board, ScalerServer
from fleet.replica.pod_report import PodReport
from tests.backends.kubernetes.conftest import Desk
from tests.backends.kubernetes.stand_in import StandIn
from tests.conftest import eventually

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {name: shop}
spec:
  app: shop:app
  target: kubernetes
  broker: {url: "redis://redis/0"}
  concurrency: 12
  balance: {tick: 2s, surplus: release}
  kubernetes: {context: here, namespace: shop, image: shop:1, scaler: fleet}
  groups:
    web: {pool: solo, autoscale: {max: 9, targetWait: 5s, expectedRuntime: 1s}, queues: [web]}
    mail: {pool: {type: threads, concurrency: 2}, autoscale: {max: 8, targetWait: 5s}, queues: [mail]}
"""


@pytest.fixture
def world() -> Iterator[StandIn]:
    with StandIn() as api:
        yield api


@dataclass
class Stage:
    """The fleet in a cluster, its broker, its clock, and what its pods tell."""

    world: StandIn
    clock: list[float]
    scaler: Scaler
    waiting: dict[str, int] = field(default_factory=lambda: {"web": 0, "mail": 0})
    held: Mapping[str, int] | None = None
    busy: dict[str, int] = field(default_factory=dict)
    done: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)

    def backlog(self, groups: Sequence[str]) -> Backlog:
        return Backlog({name: QueueSample(self.waiting[name]) for name in groups}, self.held)

    def report(self, pod: Object) -> PodReport:
        busy = self.busy.get(name_of(pod), 0)
        return PodReport(7, "ready", 1, busy, self.done, float(self.done), busy, counts=True)

    def run(self, pod: str, command: list[str]) -> str:
        self.asked.append((pod, command[-1]))
        return "done\n"

    def tick(self, seconds: float = 2.0) -> ScalerLook:
        self.clock[0] += seconds
        return self.scaler.tick()

    def keda(self, look: ScalerLook) -> None:
        """KEDA and the HorizontalPodAutoscaler: pods for the slots, but for a change within its tolerance."""
        for group, slots in look.orders.items():
            scaled = self.world.get("scaledobjects", f"shop-{group}")
            assert scaled is not None
            target = int(scaled["spec"]["triggers"][0]["metadata"]["targetValue"])
            present, wanted = len(self.pods(group)), -(-slots // target)
            if abs(wanted / present - 1) > 0.1:
                patch = {"spec": {"replicas": wanted}}
                self.world.update("deployments", f"shop-{group}", patch, manager="kube-controller-manager")
                eventually(lambda group=group, wanted=wanted: len(self.pods(group)) == wanted)

    def pods(self, group: str) -> list[str]:
        return [name for name in self.world.names("pods") if name.startswith(f"shop-{group}-")]

    def costs(self, group: str) -> dict[str, int]:
        pods = {name: self.world.get("pods", name) for name in self.pods(group)}
        return {name: cost for name, pod in pods.items() if pod is not None and (cost := cost_of(pod)) is not None}

    def until(self, group: str, slots: int) -> ScalerLook:
        """Look on until so much is ordered."""
        return self.until_look(lambda look: look.orders[group] == slots)

    def until_look(self, wanted: Callable[[ScalerLook], object]) -> ScalerLook:
        """Look on until one is as wanted."""
        for _ in range(300):
            look = self.tick()
            if wanted(look):
                return look
        raise AssertionError(f"{look.to_json()}")


@pytest.fixture
def stage(desk: Desk, world: StandIn) -> Stage:
    desk.manifest.write_text(MANIFEST)
    desk.fleet("apply", "--yes")
    loaded = from_files([str(desk.manifest)])
    desired, clock = desired_in_cluster(loaded.manifest), [1_000_000.0]
    made: list[Stage] = []
    scaler = Scaler(
        desired,
        scaled_in_cluster(loaded.manifest, desired),
        Cluster(Place("here", "shop")),
        read_backlog=lambda groups: made[0].backlog(groups),
        ask_pod=lambda pod: made[0].report(pod),
        now=lambda: clock[0],
    )
    made.append(Stage(world, clock, scaler))
    world.run = made[0].run
    return made[0]


def patched(world: StandIn) -> int:
    return sum(one.startswith("patch pods/") for one in world.requests)


def grown(stage: Stage) -> None:
    stage.waiting["web"] = 500
    stage.keda(stage.until("web", 9))
    assert len(stage.pods("web")) == 9


def test_a_burst_gets_slots_and_no_pod_is_written_to(stage: Stage) -> None:
    grown(stage)
    look = stage.tick()
    assert look.samples["web"].has == 9
    assert sum(look.orders.values()) <= 12
    assert patched(stage.world) == 0


def test_slots_that_are_ordered_and_not_there_yet_are_given_to_nobody_else(stage: Stage) -> None:
    stage.waiting["web"] = 500
    stage.until("web", 9)  # and KEDA does not ask
    stage.waiting["mail"] = 500
    ordered = 9
    for _ in range(5):
        look = stage.tick()
        web = look.samples["web"]
        assert (web.ready, web.starting) == (1, ordered - 1)
        assert web.has + web.draining == 9, "KEDA may still act on the larger number"
        assert look.orders["mail"] <= 12 - 9
        ordered = look.orders["web"]
    for _ in range(10):  # by now it asked again
        look = stage.tick()
        assert sum(look.orders.values()) <= 12
    assert look.orders["mail"] > 3


def test_the_least_busy_pods_are_held_marked_and_go_first(stage: Stage) -> None:
    grown(stage)
    busy = stage.pods("web")[4:5]
    stage.busy, stage.waiting["web"], stage.done = dict.fromkeys(busy, 1), 0, 1
    stage.until("web", 9)
    look = stage.until_look(lambda look: look.orders["web"] < 9)
    going = look.going["web"]
    assert len(going) == 9 - look.orders["web"] > 0
    assert not set(going) & set(busy)
    assert sorted(stage.asked) == sorted((pod, "on") for pod in going)
    costs = stage.costs("web")
    assert {pod for pod, cost in costs.items() if cost < 0} == set(going)
    assert {pod: costs[pod] for pod in busy if pod not in going} == dict.fromkeys(busy, 1)

    written = patched(stage.world)
    waits = stage.tick()
    assert waits.samples["web"].draining == len(going), "they are on their way out until they are gone"
    if waits.orders == look.orders:
        assert patched(stage.world) == written, "nothing changed, nothing is written"
    stage.keda(waits)
    assert set(busy) <= set(stage.pods("web"))
    assert not set(waits.going["web"]) & set(stage.pods("web"))

    stage.tick()
    if not stage.tick().going.get("web"):
        assert stage.costs("web") == {}, "no scale-in is near: the marks are taken away"


def test_pods_that_are_to_stay_after_all_take_tasks_again(stage: Stage) -> None:
    grown(stage)
    stage.waiting["web"], stage.done = 0, 1
    look = stage.until_look(lambda look: look.going)
    held = set(look.going["web"])
    stage.waiting["web"] = 500
    stage.asked.clear()
    stage.until("web", 9)
    assert {pod for pod, word in stage.asked if word == "off"} >= held & set(stage.pods("web"))
    assert stage.costs("web") == {}


def test_messages_that_workers_hold_unacknowledged_count(stage: Stage) -> None:
    """The list looks empty; the broker knows that a worker has taken everything ahead."""
    stage.tick()
    pod = stage.pods("web")[0]
    from fleet.replica.pod_report import pod_index

    stage.held = {f"web.{pod_index(pod)}": 400}
    look = stage.until("web", 9)
    assert look.samples["web"].queue == 400


def test_a_pod_that_cannot_be_held_is_said_and_marked_all_the_same(stage: Stage) -> None:
    grown(stage)
    stage.world.forbidden.add(("create", "pods/exec"))
    stage.waiting["web"], stage.done = 0, 1
    look = stage.until_look(lambda look: look.going)
    assert "may not create pods/exec" in look.note
    assert any(cost < 0 for cost in stage.costs("web").values())


def test_while_a_rollout_replaces_pods_none_of_them_is_held(stage: Stage, desk: Desk) -> None:
    grown(stage)
    stage.world.broken_images.add("shop:2")
    desk.manifest.write_text(MANIFEST.replace("shop:1", "shop:2").replace("[web]}", "[web], env: {A: b}}"))
    desk.fleet("apply", "--yes", code=6)
    stage.waiting["web"], stage.done = 0, 1
    for _ in range(100):
        assert "web" not in stage.tick().going
    assert stage.costs("web") == {}


def test_the_fleet_is_applied_seen_and_taken_down_with_its_controller(stage: Stage, desk: Desk) -> None:
    groups = desk.fleet("status", "-o", "json").json["groups"]
    assert groups["fleet-controller"]["replicas"] == {"desired": 2, "ready": 2}
    assert desk.planned() == {}
    stage.asked.clear()
    desk.fleet("restart", "--all", "--yes")
    desk.manifest.write_text(MANIFEST.replace(", scaler: fleet", "").replace("redis://redis/0", "redis://redis/1"))
    assert desk.planned()["Deployment/shop-fleet-controller"]["action"] == "remove"
    desk.fleet("apply", "--yes")
    assert [name for name in stage.world.names("pods") if "controller" in name] == []
    desk.fleet("down", "--yes")
    assert stage.world.names("roles") == stage.world.names("services") == []


# --- who leads, and what is answered


def test_one_candidate_leads_until_it_goes_or_is_silent(desk: Desk, world: StandIn) -> None:
    moment = [0.0]
    doors = [Cluster(Place("here", "shop")) for _ in range(2)]
    one, two = (
        Leadership(door, name="lead", fleet="shop", holder=name, monotonic=lambda: moment[0])
        for door, name in zip(doors, ("one", "two"), strict=True)
    )
    assert (one.look(), two.look()) == (True, False)
    assert two.held_by == "one"
    for _ in range(10):
        moment[0] += SECONDS / 3
        assert (one.look(), two.look()) == (True, False)
    moment[0] += SECONDS + 1  # `one` hangs
    assert not one.leads
    two.look()
    moment[0] += 1
    assert two.look()
    assert (one.look(), one.leads) == (False, False)
    two.give_up()
    assert one.look()


def test_a_leader_that_reaches_no_server_stops_before_another_may_begin(desk: Desk, world: StandIn) -> None:
    moment = [0.0]
    lead = Leadership(
        Cluster(Place("here", "shop")), name="lead", fleet="shop", holder="one", monotonic=lambda: moment[0]
    )
    assert lead.look()
    world.forbidden.add(("update", "leases"))
    moment[0] += 6
    assert lead.look(), "one missed renewal is no end"
    moment[0] += SECONDS / 2
    with pytest.raises(FleetError, match="may not update leases"):
        lead.look()
    assert not lead.leads


def test_of_two_pods_one_answers_and_the_other_takes_over(stage: Stage, desk: Desk, world: StandIn) -> None:
    pods = [name for name in world.names("pods") if "controller" in name]
    mounted = Mounted(from_files([str(desk.manifest)]).manifest, {})
    boards = [Board(), Board()]
    first, second = (
        Candidate(mounted, Cluster(Place("here", "shop")), pod, board) for pod, board in zip(pods, boards, strict=True)
    )
    first.round()
    second.round()
    assert [board.answer("/slots?group=web")[0] for board in boards] == [200, 503]
    assert [labelled(world, pod) for pod in pods] == [True, False]

    over = Over()
    first.run(over)
    second.round()
    assert [board.answer("/slots?group=web")[0] for board in boards] == [503, 200]
    assert [labelled(world, pod) for pod in pods] == [False, True]


class Over:
    """An end that has come."""

    def is_set(self) -> bool:
        return True

    def wait(self, _seconds: float) -> bool:
        return True


def labelled(world: StandIn, pod: str) -> bool:
    found = world.get("pods", pod)
    assert found is not None
    return bool(found["metadata"]["labels"].get(LEADS) == "true")


def test_keda_is_answered_while_the_numbers_are_fresh(stage: Stage) -> None:
    moment = [0.0]
    board = Board(monotonic=lambda: moment[0])
    with ScalerServer(board, port=0, host="127.0.0.1") as server:
        assert asked(server, "/slots?group=web")[0] == 503
        look = stage.tick()
        board.show(look)
        board.alive()
        assert asked(server, "/slots?group=web") == (200, {"slots": look.orders["web"]})
        assert asked(server, "/slots?group=none")[0] == 404
        assert asked(server, "/look")[1]["groups"].keys() == {"web", "mail"}
        assert [asked(server, path)[0] for path in ("/live", "/ready", "/else")] == [200, 200, 404]
        moment[0] += STALE_SECONDS + 1
        assert asked(server, "/slots?group=web")[0] == 503
        moment[0] += 2 * STALE_SECONDS
        assert asked(server, "/live")[0] == 503


def asked(server: ScalerServer, path: str) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_outside_of_a_pod_the_process_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    assert main([str(tmp_path / "none.json")]) == 1
    assert "runs in no pod" in capsys.readouterr().err


def test_marks_of_before_are_taken_away_by_whoever_leads_next(stage: Stage) -> None:
    pod = stage.pods("web")[0]
    Cluster(Place("here", "shop")).merge(
        POD, pod, {"metadata": {"annotations": {DELETION_COST: "-1"}}}, manager="fleet-scaler"
    )
    stage.tick()
    assert stage.costs("web") == {}
    assert (pod, "off") in stage.asked
