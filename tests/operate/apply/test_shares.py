"""Walks whose new revision takes growing shares, or comes up whole beside the old one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from fleet.backends.memory import MemoryBackend
from fleet.core.desired import CanaryPolicy, Desired, RolloutPolicy
from fleet.operate.apply.events import Event, StepsFailed
from fleet.operate.apply.walk import apply
from fleet.state.rollout_orders import RolloutOrders
from tests.operate.apply.test_walk import Clock
from tests.worlds import FLEET, fleet, group, planned

STEPS = tuple(
    CanaryPolicy(replicas, seconds=seconds, min_tasks=10, number=number, of=3)
    for number, (replicas, seconds) in enumerate([(1, 60.0), (2, 300.0), (4, 30.0)], 1)
)
GROWING = RolloutPolicy("rolling", 0, 1, canary=STEPS[0], later_canaries=STEPS[1:])
WHOLE = RolloutPolicy("rolling", 1, 0, blue_green=CanaryPolicy(seconds=60.0, min_tasks=10, title="blue-green"))


def version(rollout: RolloutPolicy, value: str, *shape: int) -> Desired:
    return fleet(group("a", *shape, env={"A": value}, rollout=rollout))


class Rollout:
    """Version 1 runs; version 2 is applied. Each look, every replica has done ten more tasks."""

    def __init__(self, rollout: RolloutPolicy, *shape: int, fails: Callable[[float], float] = lambda _: 0.0) -> None:
        """``fails``: the part of new tasks that fail, by seconds."""
        self.world = MemoryBackend(FLEET, stepwise=True)
        self.clock = Clock(self.world)
        apply(
            planned(version(rollout, "1", *shape), self.world.observe()),
            self.world,
            desired=version(rollout, "1"),
            secrets={},
            options=self.clock.options(),
        )
        self.old = {one.digest for one in self.world.observe().replicas.values()}
        self.desired = version(rollout, "2", *shape)
        self.clock.seconds = 0.0
        self.clock.each = self._work
        self._fails = fails
        self.story: list[str] = []
        self.new_at: list[int] = []

    def _work(self) -> None:
        for name, one in self.world.observe().replicas.items():
            rate = 0.0 if one.digest in self.old else self._fails(self.clock.seconds)
            failed = one.failed + round(10 * rate)
            self.world.count(name, processed=one.processed + 10, failed=failed, busy_seconds=one.busy_seconds + 1)

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.phase == "judged":
                self.new_at.append(self.new())
            if event.phase != "planned":
                said = event.reason.partition(", new")[0] if event.phase in ("compared", "judged") else event.step.id
                self.story.append(f"{event.phase} {said}")

    def walk(self, **more: Any) -> None:
        apply(
            planned(self.desired, self.world.observe()),
            self.world,
            desired=self.desired,
            secrets={},
            on_event=self._tell,
            options=self.clock.options(**more),
        )

    def new(self) -> int:
        """How many replicas run the new version."""
        return sum(one.running and one.digest not in self.old for one in self.world.observe().replicas.values())

    def names(self) -> dict[str, bool]:
        """Whether each replica runs the new version."""
        return {name: one.digest not in self.old for name, one in sorted(self.world.observe().replicas.items())}

    def judgements(self) -> list[str]:
        return [line for line in self.story if line.startswith(("compared", "judged"))]


def test_shares_grow_and_are_judged_one_after_another() -> None:
    rollout = Rollout(GROWING, *[1] * 8)

    rollout.walk()

    assert rollout.judgements() == [
        "compared canary step 1 of 3: compared with the old for 1m",
        "judged canary step 1 of 3",
        "compared canary step 2 of 3: compared with the old for 5m",
        "judged canary step 2 of 3",
        "compared canary step 3 of 3: compared with the old for 30s",
        "judged canary step 3 of 3",
    ]
    assert rollout.new_at == [1, 2, 4]
    assert rollout.new() == 8
    assert rollout.clock.seconds >= 60 + 300 + 30


def test_a_later_share_that_is_worse_ends_the_rollout_there() -> None:
    rollout = Rollout(GROWING, *[1] * 8, fails=lambda seconds: 0.5 if seconds > 100 else 0.0)

    with pytest.raises(StepsFailed, match=r"canary step 2 of 3, new 2 replicas: .* worse: failure rate"):
        rollout.walk()

    assert rollout.new() == 2


def test_shares_of_as_many_replicas_judge_the_same_ones_again() -> None:
    rollout = Rollout(GROWING, 1, 1)

    rollout.walk()

    assert rollout.judgements()[1::2] == [f"judged canary step {number} of 3" for number in (1, 2, 3)]
    assert rollout.new_at == [1, 1, 1]
    assert rollout.story.index("judged canary step 3 of 3") < rollout.story.index("started replace a.1")


def test_one_replica_is_judged_by_its_spare_in_every_step() -> None:
    rollout = Rollout(replace(GROWING, max_surge=1, max_unavailable=0), 1)

    rollout.walk()

    assert rollout.new_at == [1, 1, 1]
    assert rollout.names() == {"a.0": True}


def test_promote_skips_to_the_end() -> None:
    rollout = Rollout(GROWING, *[1] * 8)

    rollout.walk(orders=lambda: RolloutOrders(promoted=bool(rollout.judgements()), by="ann"))

    assert rollout.clock.seconds < 60
    assert rollout.new() == 8
    assert rollout.judgements()[1:] == [f"judged canary step {n} of 3, not judged: promoted by ann" for n in (1, 2, 3)]


def test_what_was_cut_short_counts_towards_the_next_shares() -> None:
    rollout = Rollout(GROWING, *[1] * 8, fails=lambda seconds: 0.5 if 100 < seconds < 500 else 0.0)
    with pytest.raises(StepsFailed):
        rollout.walk()
    rollout.new_at.clear()
    rollout.clock.seconds = 1000.0

    rollout.walk()

    assert rollout.new_at == [3, 3, 4], "two were new; one more is judged, then four of eight are"


def test_a_whole_new_set_comes_beside_the_old_one_which_leaves_at_once() -> None:
    rollout = Rollout(WHOLE, 1, 1, 1)

    rollout.walk()

    assert rollout.story == [
        "started start a.3",
        "started start a.4",
        "done start a.3",
        "done start a.4",
        "started start a.5",
        "compared blue-green: compared with the old for 1m",
        "judged blue-green",
        "done start a.5",
        *(f"started drain a.{number}" for number in range(3)),
        *(f"done drain a.{number}" for number in range(3)),
    ]
    assert rollout.names() == {"a.3": True, "a.4": True, "a.5": True}
    assert rollout.clock.seconds >= 60


def test_a_new_set_that_is_worse_goes_and_the_old_one_was_never_touched() -> None:
    rollout = Rollout(WHOLE, 1, 1, fails=lambda _: 0.5)
    before = {name: one.pid for name, one in rollout.world.observe().replicas.items()}

    with pytest.raises(StepsFailed, match=r"blue-green, new 2 replicas: .* worse: failure rate"):
        rollout.walk()
    assert rollout.names() == {"a.0": False, "a.1": False, "a.2": True, "a.3": True}
    back = version(WHOLE, "1", 1, 1)
    apply(
        planned(back, rollout.world.observe()), rollout.world, desired=back, secrets={}, options=rollout.clock.options()
    )

    assert {name: one.pid for name, one in rollout.world.observe().replicas.items()} == before


def test_a_new_set_that_was_cut_short_is_judged_before_the_old_one_leaves() -> None:
    rollout = Rollout(WHOLE, 1, 1, fails=lambda seconds: 0.5 if seconds < 500 else 0.0)
    with pytest.raises(StepsFailed):
        rollout.walk()
    rollout.story.clear()
    rollout.clock.seconds = 1000.0

    rollout.walk()

    assert rollout.judgements() == ["compared blue-green: compared with the old for 1m", "judged blue-green"]
    assert rollout.names() == {"a.2": True, "a.3": True}


def test_the_next_set_takes_the_free_places() -> None:
    rollout = Rollout(WHOLE, 1, 1)
    rollout.walk()
    third = version(WHOLE, "3", 1, 1)

    apply(
        planned(third, rollout.world.observe()),
        rollout.world,
        desired=third,
        secrets={},
        options=rollout.clock.options(),
    )

    assert list(rollout.names()) == ["a.0", "a.1"]


def test_scaling_a_group_of_two_sets_is_scaling() -> None:
    rollout = Rollout(WHOLE, 1, 1)
    more = version(WHOLE, "1", 1, 1, 1)

    assert [step.id for step in planned(more, rollout.world.observe()).changes] == ["start a.2"]
