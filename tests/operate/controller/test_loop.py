"""The controller on a fleet in memory: what it moves, what it leaves alone, and what a kill costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fleet import settings
from fleet.backends.memory import MemoryBackend
from fleet.core.autoscale.decide import EMPTY, Decision
from fleet.core.autoscale.sample import Backlog, QueueSample
from fleet.core.desired import CONTROLLER_GROUP
from fleet.core.manifest.tree import Source as Text
from fleet.core.observed import State
from fleet.core.plan import Plan
from fleet.errors import FleetError, LockHeld, Unreachable
from fleet.inputs import facts, machine
from fleet.inputs.manifest import from_sources
from fleet.operate.apply.events import STARTS_PER_CORE
from fleet.operate.change import carry_out, take_down
from fleet.operate.controller.look import Look, NextLook, next_look
from fleet.operate.controller.loop import Controller
from fleet.operate.controller.memory_file import last_look
from fleet.operate.local_fleet import LocalFleet
from fleet.state import decisions
from fleet.state.overrides import Override
from tests.conftest import PATIENCE

MANIFEST = """\
apiVersion: workerfleet.dev/v1alpha1
kind: Fleet
metadata: {{name: shop}}
spec:
  app: shop:app
  broker: {{url: "redis://localhost/0"}}
  concurrency: 12
  balance: {{tick: 2s, surplus: {surplus}}}
  groups:
    solos: {{pool: solo, autoscale: {{max: 10, targetWait: 5s, expectedRuntime: 1s}}, queues: [solos]}}
    many:
      pool: {{type: threads, concurrency: 20}}
      autoscale: {{targetWait: 5s, expectedRuntime: 1s, min: {least}}}
      queues: [many]
      {more}
    clock: {{command: [sleep, '1000'], capacity: {{slots: 0}}, replicas: 1}}
"""


@dataclass
class Queues:
    """A broker that says what the test says."""

    waiting: dict[str, int | None] = field(default_factory=lambda: {"solos": 0, "many": 0})
    problem: str = ""
    closed: bool = False

    def sample(self, queues: list[str]) -> Backlog:
        if self.problem:
            return Backlog({}, None, self.problem)
        return Backlog({name: QueueSample(self.waiting[name]) for name in queues}, None)

    def close(self) -> None:
        self.closed = True


@dataclass
class Stage:
    """A fleet, its broker, its clock and its controller."""

    fleet: LocalFleet
    world: MemoryBackend
    queues: Queues
    clock: list[float]
    controller: Controller

    def tick(self, *, seconds: float = 2.0) -> Look:
        self.clock[0] += seconds
        look = self.controller.tick()
        self.world.settle()
        return look

    def ticks(self, count: int) -> Look:
        looks = [self.tick() for _ in range(count)]
        return looks[-1]

    def killed(self) -> None:
        """kill -9, and its supervisor starts it again."""
        self.controller = Controller(self.fleet, source=lambda _url, _options: self.queues)

    def slots(self, group: str) -> int:
        seen = self.world.observe().replicas.values()
        return sum(one.slots for one in seen if one.group == group and one.running and not one.held)

    def pids(self, group: str) -> set[int | None]:
        return {one.pid for one in self.world.observe().replicas.values() if one.group == group}

    def shape(self, group: str) -> tuple[int, ...]:
        applied = self.fleet.applied()
        assert applied is not None
        return applied.desired.groups[group].shape

    def plan(self) -> Plan:
        """What an apply of the same manifest would do now."""
        loaded = self.fleet.applied_manifest()
        return self.fleet.planned(*self.fleet.desired_of(loaded)).plan

    def apply(self, text: str) -> None:
        found = from_sources([Text("fleet.yaml", text.encode())], environ={})
        change = self.fleet.planned(*self.fleet.desired_of(found), manifest=found)
        carry_out(self.fleet, change, verb="apply")
        self.world.settle()

    def moves(self) -> list[Mapping[str, Any]]:
        return [entry for entry in self.fleet.audit.read() if entry["event"] == "balance.moved"]


def manifest(*, surplus: str = "release", least: int = 1, more: str = "") -> str:
    return MANIFEST.format(surplus=surplus, least=least, more=more)


@pytest.fixture
def plain_app(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app of the manifest is not there to be asked: it lays out its queues as everybody does."""
    monkeypatch.setattr(facts, "probe", lambda _app, **_where: {"transportOptions": {}})


@pytest.fixture
def stage(tmp_path: Path, plain_app: None) -> Stage:
    world, queues, clock = MemoryBackend("shop"), Queues(), [1_000_000.0]
    fleet = LocalFleet("shop", settings=settings.Settings(home=tmp_path), backend=world, now=lambda: clock[0])
    made = Stage(fleet, world, queues, clock, Controller(fleet, source=lambda _url, _options: queues))
    made.apply(manifest())
    return made


def test_an_apply_starts_the_controller_of_a_fleet_that_autoscales(stage: Stage) -> None:
    assert f"{CONTROLLER_GROUP}.0" in stage.world.observe().replicas
    assert stage.plan().is_empty


def test_a_backlog_brings_slots_and_the_others_give_them(stage: Stage) -> None:
    before = stage.slots("many")
    stage.queues.waiting["many"] = 400
    look = stage.ticks(3)

    assert before == 6
    assert stage.slots("many") == 11
    assert stage.slots("solos") == 1
    assert look.decision is not None
    assert "backlog" in look.decision.verdicts["many"].reason


@pytest.mark.parametrize("text", ["", "{half", "[]", '{"format": 1, "slots": 7}'])
def test_damaged_decisions_are_decided_again_and_nobody_is_needed(stage: Stage, text: str) -> None:
    stage.queues.waiting["many"] = 400
    stage.ticks(3)
    pids = stage.pids("many")
    stage.fleet.places.decisions.write_text(text)
    stage.ticks(3)

    assert decisions.read(stage.fleet.places.decisions).slots["many"] == 11
    assert (stage.slots("many"), stage.pids("many")) == (11, pids)
    [told] = [entry for entry in stage.fleet.audit.read() if entry["event"] == "state.forgotten"]
    assert "decisions.json is damaged" in told["reason"]


def test_slots_come_by_a_live_resize_and_no_thread_worker_is_restarted(stage: Stage) -> None:
    (pid,) = stage.pids("many")
    stage.queues.waiting["many"] = 400
    stage.ticks(4)

    assert stage.pids("many") == {pid}


def test_less_comes_before_more_so_that_the_budget_holds_at_every_look(stage: Stage) -> None:
    stage.queues.waiting["solos"] = 300
    for _ in range(8):
        stage.tick()
        seen = stage.world.observe().replicas.values()
        assert sum(max(one.slots, one.busy) for one in seen if one.group in ("solos", "many")) <= 12
    assert stage.slots("solos") == 10


def test_a_busy_replica_takes_nothing_new_and_goes_only_when_it_is_done(stage: Stage) -> None:
    for number in range(6):
        stage.world.work(f"solos.{number}", 1)
    stage.queues.waiting["many"] = 400
    stage.ticks(3)
    held = [name for name, one in stage.world.observe().replicas.items() if one.held]

    assert len(held) == 5
    assert stage.slots("many") == 6, "their slots are not free before they are gone"

    for name in held:
        stage.world.finish(name)
    stage.ticks(3)

    assert not [name for name in held if name in stage.world.observe().replicas]
    assert stage.slots("many") == 11
    assert not [call for call in stage.world.calls if call[0] == "stop" and set(call[1]) - set(held)]


def test_a_replica_that_was_to_go_is_taken_back_when_work_comes(stage: Stage) -> None:
    for number in range(6):
        stage.world.work(f"solos.{number}", 1)
    pids = stage.pids("solos")
    stage.queues.waiting["many"] = 400
    stage.ticks(2)
    stage.queues.waiting.update(many=0, solos=300)
    stage.world.finish("many.0")
    stage.ticks(40)

    assert stage.slots("solos") >= 6
    assert pids <= stage.pids("solos")


def test_an_apply_does_not_reset_what_the_controller_moved(stage: Stage) -> None:
    stage.queues.waiting["many"] = 400
    stage.ticks(4)

    assert stage.plan().is_empty
    stage.apply(manifest(more="env: {A: b}"))
    assert stage.slots("many") == 11


def test_a_controller_that_is_killed_goes_on_where_it_was(stage: Stage) -> None:
    stage.queues.waiting["many"] = 400
    stage.ticks(2)
    stage.killed()
    look = stage.tick()

    assert stage.slots("many") == 11
    assert look.decision is not None
    assert len(look.decision.memory.groups["many"].track.recent) == 3


def test_one_that_forgot_everything_lets_no_slot_go_for_a_minute(stage: Stage) -> None:
    stage.queues.waiting["many"] = 400
    stage.ticks(4)
    stage.queues.waiting["many"] = 0
    stage.fleet.places.controller.unlink()
    stage.killed()

    stage.ticks(25)
    assert stage.slots("many") == 11
    stage.ticks(25)
    assert stage.slots("many") < 11


def test_a_quiet_fleet_comes_to_rest(stage: Stage) -> None:
    stage.ticks(90)
    quiet = len(stage.moves())
    calls = len(stage.world.calls)
    stage.ticks(30)

    assert len(stage.moves()) == quiet
    assert len(stage.world.calls) == calls


def test_every_move_is_in_the_audit_with_its_reason_and_what_it_was_decided_on(stage: Stage) -> None:
    stage.queues.waiting["many"] = 400
    stage.ticks(3)
    last = stage.moves()[-1]

    assert last["moves"]["many"]["to"] == 11
    assert last["moves"]["many"]["why"].startswith("backlog: ")
    assert last["inputs"]["many"]["queue"] == 400
    assert last["budget"] == 12


def test_a_broker_that_is_away_leaves_the_fleet_as_it_is(stage: Stage) -> None:
    before = {name: stage.slots(name) for name in ("solos", "many")}
    stage.queues.problem = "the broker redis://localhost/0 does not answer"
    look = stage.ticks(20)

    assert {name: stage.slots(name) for name in before} == before
    assert "does not answer" in look.note
    assert look.decision is not None
    assert "no metrics (queue)" in look.decision.verdicts["many"].reason


def test_an_app_that_cannot_be_asked_where_its_queues_lie_leaves_the_fleet_as_it_is(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_app: str, **_where: object) -> dict[str, object]:
        raise FleetError("cannot ask app shop:app")

    monkeypatch.setattr(facts, "probe", gone)
    stage.queues.waiting["many"] = 400
    look = stage.ticks(3)

    assert look.note == "cannot ask app shop:app"
    assert stage.slots("many") == 6


def test_while_an_apply_holds_the_lock_nothing_is_moved(stage: Stage) -> None:
    stage.queues.waiting["many"] = 400
    with stage.fleet.lock("fleet apply"):
        look = stage.ticks(3)
        assert "nothing is moved meanwhile" in look.note
        assert stage.slots("many") == 6
    stage.ticks(3)
    assert stage.slots("many") == 11


def test_a_fleet_that_is_down_is_let_be_and_starts_from_its_shares_again(stage: Stage) -> None:
    stage.queues.waiting["many"] = 400
    stage.ticks(3)
    take_down(stage.fleet)

    assert stage.tick().note == "the fleet is down"
    assert not stage.world.up
    assert decisions.read(stage.fleet.places.decisions) == decisions.Decisions()
    stage.apply(manifest())
    assert stage.slots("many") == 6


def test_a_group_that_a_person_paused_is_left_alone_and_keeps_its_part(stage: Stage) -> None:
    stage.fleet.keep_overrides((Override("paused", "solos", 0.0, "me"),))
    change = stage.fleet.planned(*stage.fleet.desired_of(stage.fleet.applied_manifest()))
    carry_out(stage.fleet, change, verb="pause")
    stage.queues.waiting.update(many=400, solos=300)
    look = stage.ticks(4)

    assert stage.slots("solos") == 0
    assert stage.slots("many") == 6
    assert list(look.asked) == ["many"]


def test_a_parked_replica_keeps_its_slot_until_a_person_has_looked(stage: Stage) -> None:
    stage.world.park("solos.0")
    stage.queues.waiting["solos"] = 300
    stage.ticks(6)

    assert stage.world.observe().replicas["solos.0"].state is State.FAILED
    assert stage.slots("solos") == 9, "the group may have ten, and nobody works in one of them"
    assert stage.slots("many") == 1


def test_a_group_in_the_middle_of_a_rollout_is_not_moved(stage: Stage) -> None:
    found = from_sources([Text("fleet.yaml", manifest(more="env: {A: b}").encode())], environ={})
    change = stage.fleet.planned(*stage.fleet.desired_of(found), manifest=found)
    with pytest.raises(FleetError):
        carry_out(stage.fleet, change, verb="apply", on_event=_fail_at_first)
    stage.queues.waiting["many"] = 400
    look = stage.ticks(3)

    assert "many: not moved, because `fleet apply` has still something to do there" in look.note
    assert stage.slots("many") == 6


def test_what_a_failed_apply_did_not_begin_is_not_begun_by_the_controller(tmp_path: Path, plain_app: None) -> None:
    world, clock = MemoryBackend("shop"), [1_000_000.0]
    fleet = LocalFleet("shop", settings=settings.Settings(home=tmp_path), backend=world, now=lambda: clock[0])
    stage = Stage(fleet, world, Queues(), clock, Controller(fleet, source=lambda _url, _options: Queues()))
    found = from_sources([Text("fleet.yaml", manifest().encode())], environ={})
    change = fleet.planned(*fleet.desired_of(found), manifest=found)
    with pytest.raises(FleetError):
        carry_out(fleet, change, verb="apply", on_event=_fail_at_first)
    world.prepare(change.desired)
    look = stage.ticks(3)

    assert "many, solos: not moved" in look.note
    assert not world.observe().replicas


def _fail_at_first(_events: object) -> None:
    raise FleetError("the terminal is gone")


@pytest.mark.parametrize("surplus", ["keep", "release"])
def test_an_idle_group_goes_to_zero_and_comes_back_at_the_first_task(stage: Stage, surplus: str) -> None:
    stage.apply(manifest(least=0, surplus=surplus))
    stage.ticks(250)
    assert stage.slots("many") == 0

    stage.queues.waiting["many"] = 1
    stage.ticks(2)
    assert stage.slots("many") >= 1


def test_what_was_seen_and_decided_last_is_there_for_who_asks(stage: Stage) -> None:
    stage.queues.waiting["many"] = 400
    stage.ticks(2)
    document = last_look(stage.fleet.places.controller)

    assert document is not None
    assert json.dumps(document)
    assert document["groups"]["many"]["queue"] == 400
    assert document["groups"]["many"]["why"].startswith("backlog")
    assert set(document["groups"]) == {"many", "solos"}


def test_the_age_of_the_oldest_task_is_estimated_where_nobody_knows_it(stage: Stage) -> None:
    for waiting in (0, 10, 20, 30):
        stage.queues.waiting["many"] = waiting
        look = stage.tick()

    assert look.oldest("many") == (pytest.approx(6.0), True)


def test_there_is_one_controller_at_a_time(stage: Stage) -> None:
    with stage.fleet.controller_lock(), pytest.raises(LockHeld, match="has a controller already"):
        stage.fleet.controller_lock().acquire()


def test_a_command_waits_for_the_controller_instead_of_giving_up(stage: Stage) -> None:
    import threading

    taken = threading.Event()

    def hold() -> None:
        with stage.fleet.lock("fleet controller", brief=True):
            taken.set()
            released.wait(PATIENCE)

    released = threading.Event()
    other = threading.Thread(target=hold)
    other.start()
    assert taken.wait(PATIENCE)
    threading.Timer(0.3, released.set).start()
    with stage.fleet.lock("fleet apply"):
        assert released.is_set()
    other.join()


def test_a_failed_look_is_told_and_the_loop_goes_on(stage: Stage) -> None:
    told: list[Look | FleetError] = []
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        stage.clock[0] += seconds
        stage.world.reachable = len(pauses) >= 3

    stage.world.reachable = False
    stage.controller.run(is_over=lambda: len(told) == 4, wait=wait, on_look=told.append)

    assert [type(one) for one in told] == [Unreachable, Unreachable, Unreachable, Look]
    assert pauses == [5.0, 10.0, 20.0, 2.0]


def decided(at: float) -> Decision:
    return Decision(at, {}, (), EMPTY)


@pytest.mark.parametrize(
    ("look", "hurried", "due"),
    [
        pytest.param(Look(100.0, 5.0), 0, 105.0, id="nothing to move"),
        pytest.param(Look(100.0, 2.0, decision=decided(100.0)), 3, 102.0, id="no group waits"),
        pytest.param(Look(100.0, 2.0, decision=decided(100.0), paced=1), 0, 100.5, id="a group waits"),
        pytest.param(Look(100.0, 2.0, decision=decided(98.5), paced=1), 1, 100.5, id="the tick ends just then"),
        pytest.param(Look(100.0, 2.0, decision=decided(98.2), paced=1), 1, 100.2, id="the tick ends before"),
        pytest.param(Look(100.0, 2.0, decision=decided(100.0), paced=1), 11, 100.5, id="the last of the hurried looks"),
        pytest.param(Look(100.0, 2.0, decision=decided(100.0), paced=1), 12, 102.0, id="a group has waited for long"),
    ],
)
def test_the_next_look_is_due_when_the_tick_ends_or_sooner_while_a_group_waits(
    look: Look, hurried: int, due: float
) -> None:
    after = next_look(NextLook(hurried=hurried), look, began=100.0)

    assert after.due == due
    assert after.hurried == (hurried + 1 if look.is_waiting else 0)
    ends = (look.decision.at if look.decision else look.at) + look.tick_seconds
    assert after.follow == (look.decision if due < ends else None)


def test_pauses_after_failed_looks_double_up_to_a_bound_and_a_look_that_succeeds_ends_them() -> None:
    lost, after, dues = FleetError("gone"), NextLook(), []
    for _ in range(5):
        after = next_look(after, lost, began=100.0)
        dues.append(after.due)

    assert dues == [105.0, 110.0, 120.0, 130.0, 130.0]
    assert next_look(after, Look(100.0, 2.0), began=100.0).pause_seconds == 0.0


SECRET = (
    manifest()
    .replace("  concurrency: 12", "  secrets: {key: {env: SHOP_KEY}}\n  concurrency: 12")
    .replace("clock:", "extra: {pool: solo, replicas: 0, secretEnv: {KEY: key}}\n    clock:")
)


def test_secrets_are_what_the_apply_read_and_not_what_the_controller_could_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SECRET.replace("queues: [solos]}", "queues: [solos], secretEnv: {KEY: key}}")
    monkeypatch.setenv("SHOP_KEY", "one")
    stage.apply(text)
    monkeypatch.delenv("SHOP_KEY")
    applied = stage.fleet.applied()
    assert applied is not None
    given = {variable: "one" for variable, _, _ in applied.desired.groups[CONTROLLER_GROUP].spec.secret_env}
    source = stage.controller._source
    stage.controller = Controller(stage.fleet, source=source, environ=given)
    stage.queues.waiting["solos"] = 300
    stage.ticks(6)

    assert list(given) == ["FLEET_SECRET_KEY"]
    assert stage.slots("solos") == 10


def test_where_nothing_can_come_nothing_goes_to_make_room_for_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SECRET.replace("queues: [solos]}", "queues: [solos], secretEnv: {KEY: key}}")
    monkeypatch.setenv("SHOP_KEY", "one")
    stage.apply(text)
    monkeypatch.setenv("SHOP_KEY", "two")
    stage.killed()
    stage.queues.waiting["solos"] = 300
    look = stage.ticks(6)

    assert "no replica is started: key changed, `fleet apply` rolls that out" in look.note
    assert stage.slots("solos") == 6


def test_slots_that_are_being_given_up_are_looked_for_sooner_than_a_tick(stage: Stage) -> None:
    """A burst had to wait for three more ticks until the idle replicas of another group were held, drained and gone."""
    stage.queues.waiting["many"] = 400
    pauses = run_until(stage, lambda: stage.slots("many") == 11)

    assert pauses[0] == 0.5
    assert sum(pauses) < 4.0
    assert run_for(stage, 3) == [2.0, 2.0, 2.0]


def test_who_waits_for_slots_in_which_tasks_run_is_not_looked_for_in_a_hurry_for_long(stage: Stage) -> None:
    for number in range(6):
        stage.world.work(f"solos.{number}", 1)
    stage.queues.waiting["many"] = 400
    pauses = run_for(stage, 30)

    assert 0.5 in pauses
    assert pauses[-10:] == [2.0] * 10


def run_for(stage: Stage, looks: int) -> list[float]:
    """The controller's own loop; the pauses between its looks, in seconds."""
    count = iter(range(looks))
    return run_until(stage, lambda: next(count, None) is None)


def run_until(stage: Stage, is_over: Callable[[], bool]) -> list[float]:
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        stage.clock[0] += seconds
        stage.world.settle()

    stage.controller.run(is_over=is_over, wait=wait, on_look=lambda _look: None)
    return pauses


def test_looks_between_two_ticks_follow_what_was_decided_and_decide_nothing(stage: Stage) -> None:
    stage.queues.waiting["many"] = 400
    decided: list[float] = []

    def on_look(look: Look | FleetError) -> None:
        assert isinstance(look, Look)
        assert look.decision is not None
        decided.append(look.decision.at)

    def wait(seconds: float) -> None:
        stage.clock[0] += seconds
        stage.queues.waiting["many"] = 0 if stage.queues.waiting["many"] else 400

    stage.controller.run(is_over=lambda: len(decided) == 6, wait=wait, on_look=on_look)

    moments = sorted(set(decided))
    assert decided.count(moments[0]) > 1
    assert [later - earlier for earlier, later in pairwise(moments)] == [2.0] * (len(moments) - 1)


def test_starts_that_were_put_off_are_begun_between_two_ticks(tmp_path: Path, plain_app: None) -> None:
    """Twenty-five replicas came eight at a tick, however soon the first eight were there."""
    world, queues, clock = MemoryBackend("shop"), Queues(), [1_000_000.0]
    fleet = LocalFleet("shop", settings=settings.Settings(home=tmp_path), backend=world, now=lambda: clock[0])
    stage = Stage(fleet, world, queues, clock, Controller(fleet, source=lambda _url, _options: queues))
    most = STARTS_PER_CORE * machine.cpus()
    text = manifest().replace("concurrency: 12", f"concurrency: {8 * most}")
    stage.apply(text.replace("max: 10", f"max: {7 * most}"))
    for index in range(stage.slots("solos")):
        world.work(f"solos.{index}", 1)
    queues.waiting["solos"] = 5000
    pauses = run_until(stage, lambda: stage.slots("solos") == 7 * most)

    assert set(pauses) == {0.5}
