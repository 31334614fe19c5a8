"""What the dynamic decision does and says: stories of a few groups on one budget."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fleet.core.autoscale.claim import GroupMemory
from fleet.core.autoscale.decide import EMPTY, Decision, Memory, decide
from fleet.core.autoscale.erlang_formula import slots_needed
from fleet.core.autoscale.parameters import Parameters, ScaledGroup, tick_seconds
from fleet.core.autoscale.sample import Count, Meter, Sample
from fleet.core.balance.costs import Prices
from fleet.core.balance.shares import Share
from fleet.core.decode import decoded
from fleet.errors import Refused
from tests.core.autoscale.erlang_reference import late_probability, waiting_probability

THUMBS = ScaledGroup(
    Share("thumbs", 2, 1, 40), target_wait_seconds=5.0, expected_runtime_seconds=1.0, start_seconds=3.0
)
ETL = ScaledGroup(Share("etl", 3, 2, 40), target_wait_seconds=20.0, expected_runtime_seconds=4.0, start_seconds=0.2)
MAIL = ScaledGroup(
    Share("mail", 1, 0, 40), target_wait_seconds=2.0, expected_runtime_seconds=0.5, idle_after_seconds=60.0
)
GROUPS = (THUMBS, ETL, MAIL)
FAIR = {"etl": 16, "mail": 5, "thumbs": 11}
BUDGET = sum(FAIR.values())


class Story:
    """Looks two seconds apart, at groups that have what was decided at the look before."""

    def __init__(self, *groups: ScaledGroup, budget: int = BUDGET, parameters: Parameters | None = None) -> None:
        self.groups, self.budget, self.parameters = groups or GROUPS, budget, parameters
        self.memory: Memory = EMPTY
        self.now = 1000.0
        self.slots = {group.name: FAIR[group.name] for group in self.groups}
        self.done = dict.fromkeys(self.slots, 0)
        self.busy_seconds = dict.fromkeys(self.slots, 0.0)

    def look(self, times: int = 1, *, age: float = 0.0, lost: tuple[str, ...] = (), **queues: int) -> Decision:
        """A group with a queue has all slots busy, one without none."""
        for _ in range(times):
            self.now += 2.0
            samples = {group.name: self._sample(group, queues.get(group.name, 0), age, lost) for group in self.groups}
            decision = decide(
                self.memory, samples, self.groups, budget=self.budget, now=self.now, parameters=self.parameters
            )
            self.memory, self.slots = decision.memory, decision.slots
        return decision

    def _sample(self, group: ScaledGroup, queue: int, age: float, lost: tuple[str, ...]) -> Sample:
        name, slots = group.name, self.slots[group.name]
        busy = slots if queue else 0
        if name in lost:
            return Sample(busy=busy, ready=slots)
        self.busy_seconds[name] += 2.0 * busy
        self.done[name] += int(2.0 * busy / group.expected_runtime_seconds)
        return Sample(queue, age if queue else 0.0, self.done[name], self.busy_seconds[name], busy, ready=slots)


def test_a_fleet_at_rest_keeps_its_slots_for_the_first_minute_then_lets_them_go() -> None:
    story = Story()

    assert story.look(29).slots == FAIR
    assert story.look(200).slots == {"etl": 2, "mail": 0, "thumbs": 1}


def test_a_surplus_may_stay_where_it_is() -> None:
    story = Story(parameters=Parameters(surplus="keep"))

    assert sum(story.look(200).slots.values()) == BUDGET
    assert story.look(10).moves == {}


def test_a_backlog_is_answered_at_the_next_look() -> None:
    story = Story()
    story.look(200)

    found = story.look(thumbs=30).verdicts["thumbs"]

    assert found.has == 1
    assert found.gets >= 10
    assert found.reason.startswith("backlog: ")


def test_a_group_at_zero_comes_back_with_its_first_task() -> None:
    story = Story()
    assert story.look(200).slots["mail"] == 0

    assert story.look(mail=1).slots["mail"] >= 1


def test_a_group_does_not_go_to_zero_before_its_idle_time() -> None:
    story = Story(replace(MAIL, idle_after_seconds=300.0))

    assert story.look(140).slots["mail"] == 1
    assert story.look(20).slots["mail"] == 0


def test_a_flood_never_takes_what_another_group_needs_within_its_share() -> None:
    story = Story()
    assert story.look(100, etl=5000).slots["etl"] >= BUDGET - 2

    story.look(2, etl=5000, thumbs=100)

    assert story.slots["thumbs"] >= FAIR["thumbs"]


def test_a_shortage_squeezes_everybody_to_their_need_until_it_has_lasted() -> None:
    story = Story()
    assert story.look(etl=5000, thumbs=500, mail=500).is_squeezed
    assert not story.look(70, etl=5000, thumbs=500, mail=500).is_squeezed

    assert story.slots == FAIR


def test_who_goes_short_is_told_by_how_much() -> None:
    story = Story()

    found = story.look(etl=5000, thumbs=5000).verdicts["etl"]

    assert found.reason.endswith(f"; {min(found.wants, found.keeps) - found.gets} short: the budget is full")


def test_a_group_without_loans_stays_within_its_share() -> None:
    story = Story(THUMBS, replace(ETL, loans=False), MAIL)

    found = story.look(60, etl=5000)

    assert found.slots["etl"] == FAIR["etl"]


def test_loans_can_be_bounded_by_how_soon_they_come_back() -> None:
    """16 slots of 4 s tasks: a loan of 5 more frees 5.25 slots a second; within one second that is what was lent."""
    story = Story(parameters=Parameters(loan_within_seconds=1.0))

    assert story.look(60, etl=5000).slots["etl"] == 16 + 5


def test_without_metrics_it_is_held_and_later_goes_to_its_static_share() -> None:
    story = Story()
    story.look(40, thumbs=100)
    held = story.slots["thumbs"]
    assert held > FAIR["thumbs"]

    lost = story.look(lost=("thumbs",)).verdicts["thumbs"]
    assert (lost.gets, lost.reason) == (
        held,
        "no metrics (queue, completions, busySeconds): held for 5m, then its static share",
    )
    story.look(149, lost=("thumbs",))
    assert story.slots["thumbs"] == held
    assert story.look(lost=("thumbs",)).slots["thumbs"] == FAIR["thumbs"]


def test_the_manifest_may_ask_for_the_static_share_at_once() -> None:
    story = Story(replace(THUMBS, on_missing_metrics="static"), ETL, MAIL)
    story.look(40, thumbs=100)

    assert story.look(lost=("thumbs",)).slots["thumbs"] == FAIR["thumbs"]


def test_when_the_model_is_wrong_slots_are_added_step_by_step() -> None:
    """A task that is never counted: the queue is short, but what waits is old and gets older."""
    story = Story(THUMBS)
    story.look(200)
    story.now += 4.0
    story.look(thumbs=1, age=6.0)

    found = [story.look(thumbs=1, age=8.0 + number) for number in range(8)]

    assert found[-1].slots["thumbs"] > found[0].slots["thumbs"]
    assert any(one.verdicts["thumbs"].reason.startswith("late: ") for one in found)


@pytest.mark.parametrize("age", [1e3, 1e9, 1e18])
def test_a_forged_age_moves_no_slot_that_the_clock_does_not(age: float) -> None:
    """One message that waits, said to be from long ago, of a group whose queue was empty a moment before."""
    honest, forged = Story(THUMBS), Story(THUMBS)
    for story in (honest, forged):
        story.look(200)

    for number in range(1, 10):
        said = honest.look(thumbs=1, age=2.0 * number), forged.look(thumbs=1, age=age)
        assert said[0].slots == said[1].slots, f"look {number}"
    assert forged.look(10).slots == honest.look(10).slots


def test_an_age_is_bounded_by_when_nothing_waited_also_after_the_memory_was_kept() -> None:
    story = Story(THUMBS)
    story.look(3)
    kept = story.memory.groups["thumbs"]
    assert kept.empty_at == story.now
    assert decoded(GroupMemory, json.loads(json.dumps(kept.to_json()))).empty_at == story.now
    story.look(2, thumbs=1, age=1e9)
    lateness = story.memory.groups["thumbs"].lateness
    assert lateness.age_seconds == 4.0


def test_an_age_that_was_worked_out_is_not_trusted_that_far() -> None:
    aged = Sample(1, 100.0, 10, 10.0, busy=1, ready=1)

    assert aged.measured_age_seconds == 100.0
    assert replace(aged, age_is_estimated=True).measured_age_seconds is None


def test_counters_that_start_anew_cost_no_slots() -> None:
    story = Story()
    before = story.look(30, thumbs=20, etl=20, mail=20).slots
    story.done = dict.fromkeys(story.done, 0)
    story.busy_seconds = dict.fromkeys(story.busy_seconds, 0.0)

    after = story.look(thumbs=20, etl=20, mail=20).slots

    assert all(after[name] >= before[name] // 2 for name in after)


def test_a_clock_that_is_set_back_makes_it_careful_again() -> None:
    story = Story()
    story.look(100, thumbs=20)
    before = story.slots
    story.now = 10.0

    assert story.look().slots == before


def test_other_resources_bound_what_is_decided() -> None:
    """Six slots' worth of memory beside a budget of 32."""
    dear = replace(ETL, share=replace(ETL.share, prices=Prices(slot={"memory": 100})))
    sample = Sample(5000, 0.0, 0, 0.0, busy=2, ready=2)

    found = decide(EMPTY, {"etl": sample}, [dear], budget=BUDGET, now=0.0, capacity={"memory": 650})

    assert found.slots == {"etl": 6}


def test_floors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Refused, match="minimums need 2 slots and 1 are there"):
        decide(EMPTY, {"etl": Sample()}, [ETL], budget=1, now=0.0)


def test_the_most_deprived_group_is_served_first() -> None:
    story = Story()
    story.slots = {"thumbs": 20, "etl": 3, "mail": 9}

    assert story.look().order == ("etl", "mail", "thumbs")


def test_short_targets_need_quick_looks() -> None:
    assert tick_seconds([ETL, THUMBS]) == 2.0
    assert tick_seconds(GROUPS) == 1.0


def test_patience_is_priced_by_the_start_time() -> None:
    waits = [Parameters().patience_seconds(replace(ETL, start_seconds=seconds)) for seconds in (0.0, 3.0, 60.0)]

    assert waits == [15.0, 60.0, 300.0]


def test_a_meter_never_goes_back_when_replicas_come_restart_and_leave() -> None:
    meter = Meter().read({"a.0": Count(10, 5.0), "a.1": Count(4, 2.0)})
    meter = meter.read({"a.0": Count(12, 6.0)})
    meter = meter.read({"a.0": Count(1, 0.5), "a.2": Count(3, 1.0)})

    assert (meter.completions, meter.busy_seconds) == (20, 9.5)


@pytest.mark.parametrize("load", [0.1, 1.0, 6.4, 30.0, 150.0])
@pytest.mark.parametrize("within", [0.5, 2.0, 10.0])
def test_slots_needed_is_the_fewest_that_keep_the_promise(load: float, within: float) -> None:
    found = slots_needed(load, task_seconds=1.0, within_seconds=within)

    assert late_probability(found, load, task_seconds=1.0, within_seconds=within) <= 0.05
    assert late_probability(found - 1, load, task_seconds=1.0, within_seconds=within) > 0.05


def test_known_values_of_erlangs_formula() -> None:
    assert waiting_probability(1, 0.5) == pytest.approx(0.5)
    assert waiting_probability(2, 1.0) == pytest.approx(1 / 3)
    assert waiting_probability(3, 0.0) == 0.0
    assert waiting_probability(3, 3.0) == 1.0


def test_a_great_load_is_sized_by_the_square_root() -> None:
    assert slots_needed(10_000.0, task_seconds=1.0, within_seconds=10.0) == 10_001
    assert slots_needed(10_000.0, task_seconds=100.0, within_seconds=0.1) == 10_200
