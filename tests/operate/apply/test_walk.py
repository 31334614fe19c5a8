"""Walking plans: batches, order, failures, interruption, and a crash at every single call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleet.backends.memory import MemoryBackend
from fleet.core.desired import BROKER_GROUP, CanaryPolicy, Desired, Replica, RolloutPolicy, nothing
from fleet.core.observed import Observed
from fleet.core.plan import Plan
from fleet.errors import FleetError, Interrupted, NotReady, Unreachable
from fleet.operate.apply.events import Event, StepsFailed, WalkOptions
from fleet.operate.apply.walk import apply
from fleet.state.rollout_orders import RolloutOrders
from tests.worlds import FLEET, fleet, group, planned


@dataclass
class Clock:
    """Time passes only while somebody sleeps; each sleep lets the world take a step."""

    world: MemoryBackend
    seconds: float = 0.0
    each: Callable[[], Any] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.each()
        self.world.tick()

    def options(self, **more: Any) -> WalkOptions:
        return WalkOptions(now=lambda: self.seconds, sleep=self.sleep, **more)


def walk(desired: Desired, world: MemoryBackend, *, prune: bool = False, **more: Any) -> list[str]:
    """Plan and apply; what happened, as ``phase step``."""
    story: list[str] = []
    clock = more.pop("clock", Clock(world))
    options = {key: more.pop(key) for key in ("restart",) if key in more}

    def tell(events: Sequence[Event]) -> None:
        story.extend(f"{event.phase} {event.step.id}" for event in events)

    todo = planned(desired, world.observe(), prune=prune, **options)
    apply(todo, world, desired=desired, secrets={}, on_event=tell, options=clock.options(**more))
    return story


def ready(world: MemoryBackend) -> list[str]:
    return ready_in(world.observe())


def test_every_start_of_a_wave_is_one_call() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", 1, 1, 1), group("b", 1, 1)), world)
    assert world.calls == [("prepare", (FLEET,)), ("start", ("a.0", "a.1", "a.2", "b.0", "b.1"))]
    assert ready(world) == ["a.0", "a.1", "a.2", "b.0", "b.1"]


def test_the_story_of_a_replaced_replica() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    recreate = {"rollout": RolloutPolicy("recreate", 0, 1)}
    walk(fleet(group("a", 1, **recreate)), world)
    world.calls.clear()
    story = walk(fleet(group("a", 1, env={"NEW": "1"}, **recreate)), world)
    assert story == ["planned replace a.0", "started replace a.0", "done replace a.0"]
    assert [name for name, _ in world.calls] == ["prepare", "stop", "forget", "start"]


def test_a_restart_runs_the_same_files_again() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = fleet(group("a", 1, rollout=RolloutPolicy("recreate", 0, 1)))
    walk(desired, world)
    before = world.observe().replicas["a.0"].pid
    world.calls.clear()
    walk(desired, world, restart=frozenset({"a"}))
    assert [name for name, _ in world.calls] == ["prepare", "stop", "run_again"]
    assert world.observe().replicas["a.0"].pid != before


def test_a_resize_is_one_call_and_keeps_the_process() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", 2, pool="prefork"), group("b", 4, pool="prefork")), world)
    before = {name: one.pid for name, one in world.observe().replicas.items()}
    world.calls.clear()

    story = walk(fleet(group("a", 5, pool="prefork"), group("b", 1, pool="prefork")), world)

    assert story == [
        "planned resize b.0",
        "planned resize a.0",
        "started resize b.0",
        "done resize b.0",
        "started resize a.0",
        "done resize a.0",
    ]
    assert world.calls == [("resize", ("b.0",)), ("resize", ("a.0",))]
    assert {name: one.slots for name, one in world.observe().replicas.items()} == {"a.0": 5, "b.0": 1}
    assert {name: one.pid for name, one in world.observe().replicas.items()} == before


def test_tasks_in_slots_that_go_may_finish_and_are_not_waited_for_for_ever() -> None:
    def shrink(finished_after: float) -> float:
        world = MemoryBackend(FLEET, stepwise=True)
        walk(fleet(group("a", 4, pool="prefork")), world)
        world.work("a.0", 3)
        clock = Clock(world)
        clock.each = lambda: world.finish("a.0") if clock.seconds > finished_after else None
        walk(fleet(group("a", 1, pool="prefork")), world, clock=clock)
        assert world.observe().replicas["a.0"].slots == 1
        return clock.seconds

    assert 10 < shrink(finished_after=10) < 12
    assert 60 < shrink(finished_after=1000) < 62, "the grace is over: what follows need not wait"


def test_a_worker_that_takes_nothing_up_fails_its_step_and_says_what() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", 2, pool="prefork", ready_timeout_seconds=30.0)), world)
    world.ignore_settings("a.0")

    with pytest.raises(StepsFailed, match=r"not applied within 30 s: pool\.concurrency 2 -> 5 \(it has 2 slots"):
        walk(fleet(group("a", 5, pool="prefork", ready_timeout_seconds=30.0)), world)


def test_without_waiting_a_resize_is_only_told() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", 2, pool="prefork")), world)

    walk(fleet(group("a", 5, pool="prefork")), world, wait=False)

    assert world.observe().replicas["a.0"].slots == 2
    world.tick()
    assert world.observe().replicas["a.0"].slots == 5


def test_a_worker_that_dies_while_it_is_resized_comes_back_resized() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", 2, pool="prefork")), world)
    world.ignore_settings("a.0")
    clock = Clock(world)
    clock.each = lambda: world.crash("a.0") if clock.seconds < 0.1 else None

    walk(fleet(group("a", 5, pool="prefork")), world, clock=clock)

    assert world.observe().replicas["a.0"].slots == 5


def test_a_parked_replica_is_run_again_with_its_new_size() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", 2, pool="prefork")), world)
    world.park("a.0")
    world.calls.clear()

    walk(fleet(group("a", 5, pool="prefork")), world)

    assert [name for name, _ in world.calls] == ["prepare", "stop", "resize", "run_again"]
    assert world.observe().replicas["a.0"].slots == 5


def test_what_was_resized_by_hand_is_as_wanted_after_the_next_apply() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = fleet(group("a", 2, pool="prefork"))
    walk(desired, world)
    world.resize_by_hand("a.0", 7)

    walk(desired, world)

    assert world.observe().replicas["a.0"].slots == 2


def test_a_busy_replica_is_waited_for_and_others_leave_meanwhile() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", 1, 1, 1)), world)
    world.work("a.0", 1)
    world.work("a.1", 1)
    world.work("a.2", 1)
    clock = Clock(world)

    def finish_late() -> None:
        if clock.seconds > 10:
            for name in list(world.observe().replicas):
                world.finish(name)

    clock.each = finish_late
    walk(fleet(group("a")), world, clock=clock)
    assert world.observe().replicas == {}
    assert 10 < clock.seconds < 60


def test_the_broker_goes_last_and_everything_else_at_once() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    groups = [group("a", *[1] * 100), group(BROKER_GROUP, 1, system=True)]
    walk(fleet(*groups), world)
    world.calls.clear()
    walk(nothing(FLEET), world, prune=True)
    stops = [names for call, names in world.calls if call == "stop"]
    assert len(stops[0]) == 100
    assert stops[1] == (f"{BROKER_GROUP}.0",)


def test_the_first_failure_stops_the_rollout_and_says_why() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", *[1] * 8)), world)
    new = group("a", *[1] * 8, env={"BAD": "1"}, ready_timeout_seconds=30.0)
    todo = planned(fleet(new), world.observe())
    world.break_starts(todo.changes[0].target.digest)  # type: ignore[union-attr]
    with pytest.raises(StepsFailed) as failure:
        walk(fleet(new), world)
    assert failure.value.exit_code == 6
    assert "start a.8: not ready within 30 s: starting" in failure.value.message
    assert len(ready(world)) == 8, "what ran before still runs"


def test_a_parked_replica_fails_its_step_at_once() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    clock = Clock(world)
    clock.each = lambda: world.park("a.0", "exit 1, 8 times in 10m")
    with pytest.raises(StepsFailed, match="parked after too many crashes \\(exit 1, 8 times in 10m\\)"):
        walk(fleet(group("a", 1, ready_timeout_seconds=300.0)), world, clock=clock)
    assert clock.seconds < 1


def test_a_parked_replica_is_run_again() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", 1)), world)
    world.park("a.0")
    walk(fleet(group("a", 1)), world)
    assert ready(world) == ["a.0"]


def _begun(replicas: int) -> tuple[MemoryBackend, Desired, str]:
    """A rollout that failed because a module is missing; the next try of its first replica is under way without it."""
    world = MemoryBackend(FLEET, stepwise=True)
    recreate = {"rollout": RolloutPolicy("recreate", 0, 1)}
    walk(fleet(group("a", *[1] * replicas, **recreate)), world)
    new = fleet(group("a", *[1] * replicas, env={"NEW": "1"}, **recreate))
    (digest,) = {step.target.digest for step in planned(new, world.observe()).changes if step.target is not None}
    world.lacking[digest] = "no module named shop"
    with pytest.raises(StepsFailed, match=r"a\.0: cannot start"):
        walk(new, world)
    world.crash("a.0")
    return world, new, digest


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_start_that_was_under_way_and_fails_is_tried_again_with_what_is_there_now(replicas: int) -> None:
    world, new, digest = _begun(replicas)
    del world.lacking[digest]

    walk(new, world)

    assert ready(world) == [f"a.{index}" for index in range(replicas)]


def test_a_start_that_goes_on_failing_is_tried_again_once() -> None:
    world, new, _digest = _begun(1)

    for _ in range(3):  # however often it is applied: one and the same end
        world.calls.clear()
        with pytest.raises(StepsFailed, match=r"a\.0: cannot start .*no module named shop") as failed:
            walk(new, world)
        assert failed.value.exit_code == 6
        assert sum(name == "run_again" and "a.0" in names for name, names in world.calls) == 1


def test_what_is_kept_must_be_ready_too() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = fleet(group("a", 1, ready_timeout_seconds=5.0))
    walk(desired, world, wait=False)
    assert ready(world) == []
    story = walk(desired, world)
    assert story == [], "there was nothing to do but to wait"
    assert ready(world) == ["a.0"]


def test_a_kept_replica_that_never_gets_ready_is_not_ready() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = fleet(group("a", 1, ready_timeout_seconds=5.0))
    world.break_starts(planned(desired, world.observe()).changes[0].target.digest)  # type: ignore[union-attr]
    walk(desired, world, wait=False)
    with pytest.raises(NotReady, match=r"a\.0: starting"):
        walk(desired, world)


def test_what_comes_next_does_not_wait_for_a_start_that_it_does_not_need() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    slow = group("slow", 1, ready_timeout_seconds=5.0)
    desired = fleet(slow, group("base", 1), group("shop", 1, depends_on=("base",)))
    (first,) = (step for step in planned(desired, world.observe()).changes if step.replica == "slow.0")
    world.break_starts(first.target.digest)  # type: ignore[union-attr]
    with pytest.raises(StepsFailed, match=r"slow\.0: not ready"):
        walk(desired, world)
    assert ready(world) == ["base.0", "shop.0"]


def test_what_needs_a_start_waits_for_it_and_so_do_all_other_kinds_of_steps() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    careful = RolloutPolicy(max_surge=0, max_unavailable=1)
    walk(fleet(group("a", 1, 1, rollout=careful)), world)
    desired = fleet(group("a", 1, 1, rollout=careful, env={"NEW": "1"}), group("b", 1, depends_on=("a",)))
    story = walk(desired, world)
    assert [one for one in story if not one.startswith("planned")] == [
        "started replace a.0",
        "done replace a.0",
        "started replace a.1",
        "done replace a.1",
        "started start b.0",
        "done start b.0",
    ]


def test_a_timeout_leaves_what_was_asked_for_going() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = fleet(group("a", 1, ready_timeout_seconds=100.0))
    world.break_starts(planned(desired, world.observe()).changes[0].target.digest)  # type: ignore[union-attr]
    with pytest.raises(NotReady, match="not ready within 3 s") as late:
        walk(desired, world, timeout_seconds=3.0)
    assert late.value.exit_code == 4
    assert world.observe().replicas["a.0"].running


def test_a_signal_stops_between_two_steps_and_the_next_walk_finishes() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    old, new = fleet(group("a", 1, 1, 1)), fleet(group("a", 1, 1, 1, env={"NEW": "1"}))
    walk(old, world)
    clock = Clock(world)
    with pytest.raises(Interrupted) as error:
        walk(new, world, clock=clock, interrupted=lambda: 15 if clock.seconds > 0.01 else 0)
    assert error.value.exit_code == 143
    walk(new, world)
    assert planned(new, world.observe()).is_empty


def test_a_supervisor_that_goes_away_is_no_failed_step() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    clock = Clock(world)
    clock.each = world.kill_daemon
    with pytest.raises(Unreachable, match=r"went away while a\.0 was starting"):
        walk(fleet(group("a", 1)), world, clock=clock)


def test_a_refused_start_pauses_the_rollout() -> None:
    class Refusing(MemoryBackend):
        def start(self, replicas: Sequence[Replica], *, secrets: Mapping[str, str]) -> None:
            raise FleetError("supervisord sees other changes than this step made: z.0")

    with pytest.raises(StepsFailed, match="sees other changes"):
        walk(fleet(group("a", 1)), Refusing(FLEET))


def test_nothing_to_do_asks_for_nothing() -> None:
    world = MemoryBackend(FLEET)
    desired = fleet(group("a", 1, 1))
    walk(desired, world)
    world.calls.clear()
    assert walk(desired, world) == []
    assert world.calls == []


def test_a_stray_is_reaped_before_its_replica_starts() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(fleet(group("a", 1)), world)
    world.kill_daemon()
    walk(fleet(group("a", 1)), world)
    assert [name for name, _ in world.calls][-2:] == ["reap", "start"]
    assert world.observe().strays == ()


class Killed(BaseException):
    """The process is gone: no handler of ours sees this."""


@dataclass
class Mortal:
    """A backend behind a client that dies at its k-th call, before or after the call took effect."""

    world: MemoryBackend
    at: int
    after: bool
    made: int = field(default=0)

    def __getattr__(self, name: str) -> Any:
        real = getattr(self.world, name)
        if name not in {"prepare", "start", "stop", "run_again", "forget", "hold", "reap", "observe", "resize"}:
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            self.made += 1
            if self.made == self.at and not self.after:
                raise Killed
            result = real(*args, **kwargs)
            if self.made == self.at:
                raise Killed
            return result

        return call


OLD = (
    group("a", 1, 1, 1),
    group("b", 4),
    group("c", 3, 3, pool="prefork"),
    group("gone", 1),
    group(BROKER_GROUP, 1, system=True),
)
NEW = (
    group("a", 1, 1, 1, 1, env={"NEW": "1"}),
    group("b", 4, depends_on=("a",)),
    group("c", 6, 1, pool="prefork"),
    group("late", 1, 1, depends_on=("a", BROKER_GROUP)),
    group(BROKER_GROUP, 1, system=True),
)


@pytest.mark.parametrize("after", [False, True])
def test_a_client_killed_at_any_call_is_finished_by_the_next_one(after: bool) -> None:
    at = 0
    while True:
        at += 1
        world = MemoryBackend(FLEET, stepwise=True)
        walk(fleet(*OLD), world)
        names = ("b.0", "c.0", "c.1", f"{BROKER_GROUP}.0")
        untouched = {name: world.observe().replicas[name].pid for name in names}
        if not _dies(world, at, after):
            assert at > 10, "the plan is long enough to be worth killing"
            return
        world.settle()
        walk(fleet(*NEW), world, prune=True)
        seen = world.observe()
        assert planned(fleet(*NEW), seen, prune=True).is_empty, f"killed at call {at}"
        assert {name: seen.replicas[name].pid for name in untouched} == untouched, f"killed at call {at}"
        assert _as_wanted(seen)


def _dies(world: MemoryBackend, at: int, after: bool) -> bool:
    todo: Plan = planned(fleet(*NEW), world.observe(), prune=True)
    mortal: Any = Mortal(world, at, after)
    try:
        apply(todo, mortal, desired=fleet(*NEW), secrets={}, options=Clock(world).options())
    except Killed:
        return True
    return False


def _as_wanted(seen: Observed) -> bool:
    """A spare that was not taken away may have become one of the four: names are free, counts are not."""
    counts = Counter(one.group for one in seen.replicas.values())
    return counts == {"a": 4, "b": 1, "c": 2, "late": 2, BROKER_GROUP: 1} and len(ready_in(seen)) == 10


def ready_in(seen: Observed) -> list[str]:
    return sorted(name for name, one in seen.replicas.items() if one.state == "ready")


# --- what happens after a replica is ready


def judged(*shape: int, env: dict[str, str] | None = None, **policy: Any) -> Desired:
    return fleet(group("a", *shape, env=env, rollout=RolloutPolicy(**policy)))


def at(clock: Clock, seconds: float, act: Callable[[], Any]) -> Callable[[], None]:
    """Act once, when the clock has come this far."""
    acted: list[float] = []

    def look() -> None:
        if clock.seconds >= seconds and not acted:
            acted.append(clock.seconds)
            act()

    return look


def test_a_replica_must_be_ready_for_as_long_as_min_ready_says() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    clock = Clock(world)
    walk(judged(1, 1, min_ready_seconds=10), world, clock=clock)
    assert clock.seconds >= 10
    clock.seconds = 0
    walk(judged(1, 1, env={"A": "2"}, min_ready_seconds=10, max_surge=0, max_unavailable=1), world, clock=clock)
    assert clock.seconds >= 20, "one after the other"


def test_a_crash_within_min_ready_fails_the_rollout() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    clock = Clock(world)
    clock.each = at(clock, 6, lambda: world.crash("a.0"))
    with pytest.raises(StepsFailed) as caught:
        walk(judged(1, min_ready_seconds=10), world, clock=clock)
    ((step, reason),) = caught.value.failures
    assert step.id == "start a.0"
    assert "after it was ready" in reason


@pytest.mark.parametrize("how", ["crash", "park", "stop_by_hand"])
def test_what_was_replaced_is_looked_at_until_the_end(how: str) -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    policy = {"min_ready_seconds": 5.0, "max_surge": 0, "max_unavailable": 1}
    walk(judged(1, 1, 1, **policy), world)
    clock = Clock(world)
    clock.each = at(clock, 8, lambda: getattr(world, how)("a.0"))  # by then a.1 is being replaced
    with pytest.raises(StepsFailed) as caught:
        walk(judged(1, 1, 1, env={"A": "2"}, **policy), world, clock=clock)
    assert [step.id for step, _ in caught.value.failures] == ["replace a.0"]
    assert "8 s after it was ready" in caught.value.failures[0][1], "minReady is part of it"
    digests = {name: one.digest for name, one in world.observe().replicas.items()}
    assert digests["a.2"] != digests["a.1"], "the third one was not touched"


def test_a_worker_that_ends_cleanly_and_comes_back_has_not_failed() -> None:
    """As a solo worker does when a task runs into its hard limit."""
    world = MemoryBackend(FLEET, stepwise=True)
    clock = Clock(world)

    def replace_itself() -> None:
        world.stop_by_hand("a.0")
        world.run_again(["a.0"])

    clock.each = at(clock, 4, replace_itself)
    walk(judged(1, min_ready_seconds=10), world, clock=clock)


def test_a_spare_that_leaves_has_not_crashed() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(judged(1, 1), world)
    story = walk(judged(1, 1, env={"A": "2"}, min_ready_seconds=3), world)
    assert story[-1] == "done drain a.2"


def test_a_rollout_that_is_not_done_by_its_deadline_fails() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = judged(1, 1, deadline_seconds=30, max_surge=0, max_unavailable=1)
    walk(desired, world)
    world.work("a.1", 1)  # and it never ends
    with pytest.raises(StepsFailed, match="the rollout of a was not done within 30s"):
        walk(judged(1, 1, env={"A": "2"}, deadline_seconds=30, max_surge=0, max_unavailable=1), world)


# --- canary


CANARY = CanaryPolicy(seconds=60, min_tasks=10)


def canary(*shape: int, env: dict[str, str] | None = None, **policy: Any) -> Desired:
    return judged(*shape, env=env, canary=CANARY, max_surge=0, max_unavailable=1, **policy)


def work_goes_on(world: MemoryBackend, *, rate: Mapping[str, float]) -> Callable[[], None]:
    """At every look each replica has done ten more tasks; ``rate``: of them failed, by digest."""

    def look() -> None:
        for name, one in world.observe().replicas.items():
            failed = one.failed + round(10 * rate.get(one.digest, 0.0))
            world.count(name, processed=one.processed + 10, failed=failed, busy_seconds=one.busy_seconds + 1.0)

    return look


def digests(world: MemoryBackend) -> dict[str, str]:
    return {name: one.digest for name, one in sorted(world.observe().replicas.items())}


def test_a_canary_that_does_no_worse_is_promoted() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(canary(1, 1, 1), world)
    before = digests(world)
    clock = Clock(world)
    clock.each = work_goes_on(world, rate={before["a.0"]: 0.1})
    story = walk(canary(1, 1, 1, env={"A": "2"}), world, clock=clock)
    assert [line for line in story if "judged" in line] == ["judged replace a.0"]
    assert story.index("judged replace a.0") < story.index("started replace a.1")
    assert clock.seconds >= 60
    assert not set(before.values()) & set(digests(world).values())


def test_a_canary_that_fails_more_tasks_ends_the_rollout() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(canary(1, 1, 1), world)
    before = digests(world)
    desired = canary(1, 1, 1, env={"A": "2"})
    new = next(iter(planned(desired, world.observe()).changes)).target
    assert new is not None
    clock = Clock(world)
    clock.each = work_goes_on(world, rate={before["a.0"]: 0.1, new.digest: 0.5})
    with pytest.raises(StepsFailed, match=r"worse: failure rate 50.0%, allowed 15.0%"):
        walk(desired, world, clock=clock)
    assert digests(world) == {**before, "a.0": new.digest}, "one replica had the new revision, the others never"


def test_a_canary_that_crashes_is_not_waited_for() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(canary(1, 1), world)
    clock = Clock(world)
    clock.each = at(clock, 5, lambda: world.crash("a.0"))
    with pytest.raises(StepsFailed, match="after it was ready"):
        walk(canary(1, 1, env={"A": "2"}), world, clock=clock)
    assert clock.seconds < 60


def test_a_single_replica_is_judged_by_its_spare() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(judged(1, canary=CANARY), world)
    story = walk(judged(1, env={"A": "2"}, canary=CANARY), world)
    assert [line for line in story if "judged" in line] == ["judged start a.1"]


def test_scaling_and_restarts_are_not_judged() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    walk(canary(1, 1), world)
    story = walk(canary(1, 1, 1), world)
    story += walk(canary(1, 1, 1), world, restart=frozenset({"a"}))
    assert not [line for line in story if "judged" in line]


# --- orders of people


def rolling(world: MemoryBackend, **more: Any) -> Desired:
    """Two replicas run; the next version replaces them one after the other."""
    rollout = RolloutPolicy("rolling", 0, 1, **more)
    walk(fleet(group("a", 1, 1, rollout=rollout)), world)
    return fleet(group("a", 1, 1, env={"NEW": "1"}, rollout=rollout))


def test_a_paused_walk_finishes_what_is_under_way_and_begins_nothing_until_it_is_resumed() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = rolling(world, deadline_seconds=30.0)
    clock, asked = Clock(world), []

    def orders() -> RolloutOrders:
        asked.append(ready(world))
        paused = any(step.startswith("started") for step in story) and clock.seconds < 1000
        return RolloutOrders(paused=paused)

    story: list[str] = []
    apply(
        planned(desired, world.observe()),
        world,
        desired=desired,
        secrets={},
        on_event=lambda events: story.extend(f"{one.phase} {one.step.id} {clock.seconds > 999}" for one in events),
        options=clock.options(orders=orders, timeout_seconds=60.0),
    )

    changes = [line for line in story if not line.startswith("planned")]
    assert changes == [
        "started replace a.0 False",
        "done replace a.0 False",
        "started replace a.1 True",
        "done replace a.1 True",
    ], "neither the deadline nor the timeout counts a pause"


def test_what_crashes_while_a_walk_is_paused_fails_it() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = rolling(world)
    clock = Clock(world)
    clock.each = lambda: world.crash("a.0") if 100 < clock.seconds < 101 else None
    with pytest.raises(StepsFailed, match=r"replace a\.0: crashed"):
        walk(desired, world, clock=clock, orders=lambda: RolloutOrders(paused=clock.seconds > 0))
    assert world.observe().replicas["a.1"].digest != world.observe().replicas["a.0"].digest


def test_a_canary_that_is_promoted_is_not_waited_for() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = rolling(world, canary=CanaryPolicy(seconds=10_000.0))
    clock, story = Clock(world), []

    def tell(events: Sequence[Event]) -> None:
        story.extend(f"{one.phase}: {one.reason}" for one in events if one.phase in ("compared", "judged"))

    def orders() -> RolloutOrders:
        return RolloutOrders(promoted=bool(story), by="ann", reason="seen enough")

    options = clock.options(orders=orders)
    apply(planned(desired, world.observe()), world, desired=desired, secrets={}, on_event=tell, options=options)

    assert clock.seconds < 10_000
    assert story == [
        "compared: canary: compared with the old for 2h46m40s",
        "judged: canary, not judged: promoted by ann: seen enough",
    ]


def test_an_aborted_walk_ends_and_says_by_whom() -> None:
    world = MemoryBackend(FLEET, stepwise=True)
    desired = rolling(world)
    with pytest.raises(StepsFailed) as caught:
        walk(desired, world, orders=lambda: RolloutOrders(aborted=True, by="ann", reason="too slow"))
    assert caught.value.aborted == "by ann: too slow"
    assert caught.value.failures == ()
    assert caught.value.exit_code == 6
