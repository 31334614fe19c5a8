"""The controller heals a fleet that nothing autoscales in: over the backend in memory, with a clock in hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fleet import settings
from fleet.backends.memory import MemoryBackend
from fleet.core.desired import CONTROLLER_GROUP
from fleet.core.manifest.tree import Source as Text
from fleet.core.observed import State, Trouble
from fleet.core.spec import digest
from fleet.errors import FleetError
from fleet.inputs.manifest import from_sources
from fleet.operate.apply.events import WalkOptions
from fleet.operate.change import carry_out
from fleet.operate.controller.loop import Controller
from fleet.operate.local_fleet import LocalFleet
from fleet.operate.notify.spool_file import read_spool
from fleet.state import controller_heartbeat
from fleet.state.overrides import Kind, Override
from tests.conftest import PATIENCE

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  app: shop:app
  broker: {{url: "redis://localhost/0"}}
  heal: {heal}
  notify: {notify}
  groups:
    thumbs: {{pool: solo, replicas: {thumbs}, queues: [thumbs], env: {{A: "{env}"}}, health: {{readyTimeout: 1s}}}}
    clock: {{command: [sleep, '1000'], replicas: 1}}
"""


@dataclass
class Stage:
    """A fleet, its clock and its controller."""

    fleet: LocalFleet
    world: MemoryBackend
    clock: list[float]
    controller: Controller

    def looks(self, count: int = 1, *, seconds: float = 5.0) -> None:
        for _ in range(count):
            self.clock[0] += seconds
            self.controller.tick()
            self.world.settle()

    def killed(self) -> None:
        self.controller = Controller(self.fleet)

    def apply(self, *, heal: str = "{}", thumbs: int = 3, env: str = "a", notify: str = "[]") -> None:
        text = MANIFEST.format(heal=heal, thumbs=thumbs, env=env, notify=notify)
        found = from_sources([Text("fleet.yaml", text.encode())], environ={})
        change = self.fleet.planned(*self.fleet.desired_of(found), manifest=found)
        carry_out(self.fleet, change, verb="apply")
        self.world.settle()

    def digest(self, *, env: str) -> str:
        text = MANIFEST.format(heal="{}", thumbs=3, env=env, notify="[]")
        desired, _ = self.fleet.desired_of(from_sources([Text("fleet.yaml", text.encode())], environ={}))
        return digest(desired.groups["thumbs"].spec)

    def override(self, kind: Kind, target: str, *, seconds: float, replicas: int | None = None) -> None:
        now = self.clock[0]
        new = Override(kind, target, now, "somebody", until=now + seconds, replicas=replicas)
        self.fleet.keep_overrides((*self.fleet.kept_overrides(), new))
        loaded = self.fleet.applied_manifest()
        carry_out(self.fleet, self.fleet.planned(*self.fleet.desired_of(loaded)), verb="scale")
        self.world.settle()

    def events(self, event: str) -> list[Mapping[str, Any]]:
        return [entry for entry in self.fleet.audit.read() if entry["event"] == event]

    def seen(self, name: str) -> tuple[State, bool]:
        one = self.world.observe().replicas[name]
        return one.state, one.is_ready

    @property
    def thumbs(self) -> list[str]:
        return sorted(name for name, one in self.world.observe().replicas.items() if one.group == "thumbs" and one.pid)

    def is_as_applied(self) -> bool:
        loaded = self.fleet.applied_manifest()
        ready = all(one.is_ready for one in self.world.observe().replicas.values())
        return ready and self.fleet.planned(*self.fleet.desired_of(loaded)).plan.is_empty


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    world, clock = MemoryBackend("shop", stepwise=True), [1_000_000.0]
    fleet = LocalFleet("shop", settings=settings.Settings(home=tmp_path), backend=world, now=lambda: clock[0])
    made = Stage(fleet, world, clock, Controller(fleet))
    world.stepwise = False
    made.apply()
    world.stepwise = True
    return made


def test_an_apply_starts_a_controller_for_every_fleet_that_heals(stage: Stage) -> None:
    assert f"{CONTROLLER_GROUP}.0" in stage.world.observe().replicas
    stage.world.stepwise = False
    stage.apply(heal="{mode: 'off'}")
    assert f"{CONTROLLER_GROUP}.0" not in stage.world.observe().replicas
    before = {name: one.digest for name, one in stage.world.observe().replicas.items()}
    stage.apply(heal="{mode: 'off', stuck: enabled}")
    after = {name: one.digest for name, one in stage.world.observe().replicas.items()}
    assert before.items() < after.items(), "the fleet gains its controller, and nothing else changes"


@pytest.mark.parametrize("ailment", ["stopped", "stuck", "missing", "parked", "drift", "stray"])
def test_what_goes_wrong_is_put_right_without_anybody(stage: Stage, ailment: str) -> None:
    world, others = stage.world, {name: one.pid for name, one in stage.world.observe().replicas.items()}
    match ailment:
        case "stopped":
            world.stop_by_hand("thumbs.1")
        case "stuck":
            world.trouble("thumbs.1")
        case "missing":
            world.stop_by_hand("thumbs.1")
            world.forget(["thumbs.1"])
        case "parked":
            world.park("thumbs.1")
        case "drift":
            world.hold(["thumbs.1"], on=True)
        case "stray":
            world.add_stray("thumbs.9")
    assert not stage.is_as_applied()
    stage.looks(10)

    assert stage.is_as_applied()
    after = {name: one.pid for name, one in world.observe().replicas.items()}
    assert {name for name in others if after[name] != others[name]} <= {"thumbs.1"}
    (entry,) = stage.events("heal.started")
    assert entry["class"] == ("drift" if ailment == "stray" else ailment)
    assert entry["reason"]


def test_every_class_can_be_said_or_left_alone(stage: Stage) -> None:
    stage.world.stepwise = False
    stage.apply(heal="{mode: warn, parked: 'off'}")
    stage.world.stop_by_hand("thumbs.0")
    stage.world.park("thumbs.1")
    stage.looks(20)

    assert stage.thumbs == ["thumbs.2"]
    assert [(entry["replica"], entry["class"]) for entry in stage.events("heal.warned")] == [("thumbs.0", "stopped")]
    assert not stage.events("heal.started")


def test_one_that_is_sick_again_and_again_is_given_up_and_told(stage: Stage) -> None:
    for _ in range(60):
        stage.world.stop_by_hand("thumbs.1")
        stage.looks()
    assert len(stage.events("heal.started")) == 3
    assert [entry["replica"] for entry in stage.events("heal.parked")] == ["thumbs.1"]


def test_what_was_healed_is_remembered_by_the_next_controller(stage: Stage) -> None:
    for _ in range(60):
        stage.world.stop_by_hand("thumbs.1")
        stage.killed()
        stage.looks()
    assert len(stage.events("heal.started")) == 3


@pytest.mark.parametrize("kind", ["replicas", "paused", "drained"])
def test_an_override_ends_when_its_time_is_over(stage: Stage, kind: Kind) -> None:
    stage.world.stepwise = False
    stage.override(kind, "thumbs", seconds=60.0, replicas=5 if kind == "replicas" else None)
    during = [one.is_ready and not one.held for name, one in stage.world.observe().replicas.items() if "thumbs" in name]
    assert during == {"replicas": [True] * 5, "paused": [], "drained": [False] * 3}[kind]
    stage.looks(11)
    assert not stage.events("override.ended")
    stage.looks(4)

    assert stage.thumbs == ["thumbs.0", "thumbs.1", "thumbs.2"]
    assert stage.is_as_applied()
    assert [entry["reason"] for entry in stage.events("override.ended")] == ["its time is over"]
    assert stage.fleet.kept_overrides() == ()


def test_nothing_is_done_while_somebody_changes_the_fleet(stage: Stage) -> None:
    stage.world.stop_by_hand("thumbs.1")
    with stage.fleet.lock("fleet apply"):
        stage.looks(3)
        assert stage.thumbs == ["thumbs.0", "thumbs.2"]
    stage.looks(2)
    assert len(stage.thumbs) == 3


def test_a_failed_rollout_is_left_as_it_is_and_what_runs_is_healed(stage: Stage) -> None:
    loaded = from_sources(
        [Text("f.yaml", MANIFEST.format(heal="{}", thumbs=3, env="b", notify="[]").encode())], environ={}
    )
    desired, _ = stage.fleet.desired_of(loaded)
    fresh = stage.fleet.planned(desired, manifest=loaded)
    target = next(step.target for step in fresh.plan.changes if step.replica.startswith("thumbs") and step.target)
    stage.world.break_starts(target.digest)
    ticks = iter(range(100_000))
    hurried = WalkOptions(now=lambda: float(next(ticks)), sleep=lambda _seconds: None)
    with pytest.raises(FleetError):
        carry_out(stage.fleet, fresh, verb="apply", options=hurried)
    before = {name: one.digest for name, one in stage.world.observe().replicas.items()}
    stage.looks(30)
    assert {name: one.digest for name, one in stage.world.observe().replicas.items()} == before
    stage.world.stop_by_hand("clock.0")
    stage.looks(3)
    assert stage.seen("clock.0") == (State.READY, True)


def test_a_fleet_that_is_down_stays_down(stage: Stage) -> None:
    applied = stage.fleet.applied()
    assert applied is not None
    stage.fleet.keep_applied(replace(applied, down=True))
    stage.world.stop_by_hand("thumbs.1")
    stage.looks(5)
    assert len(stage.thumbs) == 2


def test_a_dry_look_says_what_it_would_do_and_does_nothing(stage: Stage) -> None:
    stage.world.trouble("thumbs.1", Trouble.STUCK)
    calls = len(stage.world.calls)
    (row,) = stage.controller.heal(dry=True).to_json()

    assert (row["replica"], row["class"], row["step"], row["verdict"]) == ("thumbs.1", "stuck", "restart", "heal")
    assert len(stage.world.calls) == calls
    assert not stage.events("heal.started")
    assert not stage.fleet.places.healing.exists()


def test_the_controller_leaves_a_heartbeat_at_every_look_failed_ones_too(stage: Stage) -> None:
    beats: list[controller_heartbeat.Heartbeat] = []

    def wait(seconds: float) -> None:
        beats.append(controller_heartbeat.read(stage.fleet.places.controller_heartbeat))
        stage.clock[0] += seconds
        stage.world.reachable = len(beats) != 2

    stage.controller.run(is_over=lambda: len(beats) >= 4, wait=wait, on_look=lambda _result: None)

    assert [bool(beat.error) for beat in beats] == [False, False, True, False]
    assert all(before.next_at <= after.at + 0.001 for before, after in pairwise(beats))
    assert not beats[-1].problem(1000.0, now=stage.clock[0])
    assert "looked last" in beats[-1].problem(1000.0, now=stage.clock[0] + 120.0)


def waits_for_notifications(stage: Stage) -> list[tuple[str, str]]:
    return [(one.news.kind, one.news.replica) for one in read_spool(stage.fleet.places).messages]


def test_what_the_controller_heals_is_told(stage: Stage) -> None:
    row = "{webhook: {url: 'http://127.0.0.1:1/'}, on: [heal, rollout.done]}"
    stage.world.stepwise = False
    stage.apply(notify=f"[{row}]")
    stage.world.stepwise = True
    stage.controller.tick()
    stage.world.stop_by_hand("thumbs.1")
    stage.clock[0] += 5
    over = iter([False, True])
    stage.controller.run(is_over=lambda: next(over), wait=lambda _: None, on_look=lambda _: None)

    stage.controller.notifications.wait(PATIENCE)
    assert ("heal", "thumbs.1") in waits_for_notifications(stage)
    assert "cannot be reached" in read_spool(stage.fleet.places).error


def test_a_rollout_that_fails_is_told_by_whoever_made_it(stage: Stage) -> None:
    stage.world.stepwise = False
    stage.world.break_starts(stage.digest(env="b"))
    with pytest.raises(FleetError):
        stage.apply(env="b", notify="[{webhook: {url: 'http://127.0.0.1:1/'}}]")

    assert ("rollout.failed", "") in waits_for_notifications(stage)


def test_a_controller_that_stood_still_says_so(stage: Stage) -> None:
    over = iter([False, False, True])

    def wait(_seconds: float) -> None:
        stage.clock[0] += 300

    stage.controller.run(is_over=lambda: next(over), wait=wait, on_look=lambda _: None)

    (entry,) = stage.events("controller.stuck")
    assert entry["replica"] == f"{CONTROLLER_GROUP}.0"
    assert "did not look for 4m55s" in entry["reason"]


def test_a_change_that_finds_the_controller_stuck_says_so(stage: Stage) -> None:
    stage.world.trouble(f"{CONTROLLER_GROUP}.0")
    stage.world.stepwise = False
    stage.apply(env="b")

    assert [entry["replica"] for entry in stage.events("controller.stuck")] == [f"{CONTROLLER_GROUP}.0"]
