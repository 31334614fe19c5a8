"""The simulated world: against queueing theory, its own laws, and the policies in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.core.autoscale.parameters import Parameters, ScaledGroup
from fleet.core.autoscale.sample import Sample
from fleet.core.balance.shares import Share
from fleet.core.simulation.engine import Arrival, Orders, Outcome, Setting, Station, simulate
from fleet.core.simulation.policies import POLICIES, PolicyInput, Split
from fleet.core.simulation.workloads import WORKLOADS, BaseLoad, arrivals, read_arrivals
from fleet.errors import UsageError
from tests.core.autoscale.erlang_reference import late_probability, waiting_probability


def station(name: str = "a", *, live: bool = True, unit: int = 1, start: float = 0.0, target: float = 1.0) -> Station:
    share = Share(name, min=unit, unit=unit)
    return Station(ScaledGroup(share, target_wait_seconds=target, start_seconds=start), is_live=live)


def tasks(*pairs: Arrival) -> Iterator[Arrival]:
    return iter(pairs)


class Scripted(Split):
    """Slots as they are written down for each tick; the last ones stay."""

    def __init__(self, *steps: Mapping[str, int], tick_seconds: float = 1.0) -> None:
        super().__init__(steps[0])
        self.tick_seconds = tick_seconds
        self._steps = list(steps[1:])

    def decide(self, _now: float, _samples: Mapping[str, Sample]) -> Orders:
        self._slots = self._steps.pop(0) if self._steps else self._slots
        return Orders(self._slots, sorted(self._slots))


def played(one: Station, policy: Split, *coming: Arrival, budget: int = 8, seconds: float = 60.0) -> Outcome:
    setting = Setting([one], budget, seconds, watch_seconds=0.5)
    return simulate(setting, {one.name: tasks(*coming)}, policy)


def test_one_slot_serves_one_task_after_the_other() -> None:
    found = played(station(), Split({"a": 1}), (0.0, 2.0), (0.0, 2.0), (0.0, 2.0)).groups["a"]

    assert (found.tasks, found.mean_seconds, found.p99_seconds, found.late) == (3, 2.0, 4.0, pytest.approx(2 / 3))
    assert found.busy_mean == pytest.approx(6 / 60)


def test_what_was_never_served_counts_with_the_time_it_waited() -> None:
    found = played(station(), Split({"a": 1}), (0.0, 100.0), (10.0, 1.0)).groups["a"]

    assert (found.unserved, found.p99_seconds) == (1, 50.0)


def test_new_slots_of_a_dear_pool_help_later() -> None:
    """Asked for at 1 s, there at 4 s: the second task of two waits as long."""
    grow = Scripted({"a": 1}, {"a": 2})

    found = played(station(live=False, start=3.0), grow, (0.0, 30.0), (0.0, 1.0)).groups["a"]

    assert (found.p99_seconds, found.started, found.start_seconds) == (4.0, 1, 3.0)


@pytest.mark.parametrize("live", [True, False])
def test_a_busy_slot_leaves_when_its_task_is_done_and_not_before(live: bool) -> None:
    found = played(station(live=live), Scripted({"a": 2}, {"a": 1}), (0.0, 10.0), (0.0, 20.0), seconds=30.0)
    draining = {now: look["a"].draining for now, look in found.timeline}

    assert (draining[0.5], draining[2.0], draining[9.5], draining[20.5]) == (0, 1, 1, 0)
    assert found.groups["a"].mean_seconds == 0.0


def test_a_live_pool_takes_draining_slots_back_and_a_replica_does_not_come_back() -> None:
    steps = ({"a": 2}, {"a": 1}, {"a": 2})

    live = played(station(), Scripted(*steps), (0.0, 10.0), (0.0, 20.0)).timeline[5][1]["a"]
    solo = played(station(live=False), Scripted(*steps), (0.0, 10.0), (0.0, 20.0)).timeline[5][1]["a"]

    assert (live.ready, live.draining) == (2, 0)
    assert (solo.ready, solo.draining) == (2, 1)


def test_idle_and_starting_slots_leave_first_and_at_once() -> None:
    steps = Scripted({"a": 3}, {"a": 5}, {"a": 1})

    found = played(station(live=False, start=3.0), steps, (0.0, 50.0)).timeline[5][1]["a"]

    assert (found.ready, found.starting, found.draining, found.busy) == (1, 0, 0, 1)


def test_nobody_gets_more_than_the_budget_whatever_is_asked() -> None:
    found = played(station(), Scripted({"a": 2}, {"a": 1000}))

    assert found.slots_most == 8


@pytest.mark.parametrize(("slots", "load"), [(1, 0.5), (4, 3.0), (20, 17.0)])
@pytest.mark.parametrize("live", [True, False])
def test_it_agrees_with_erlang(slots: int, load: float, live: bool) -> None:
    one, until = station(live=live), 150_000.0 / load
    chance = Random(f"erlang {slots} {live}")

    def coming() -> Iterator[Arrival]:
        now = 0.0
        while (now := now + chance.expovariate(load)) < until:
            yield now, chance.expovariate(1.0)

    setting = Setting([one], slots, until, warmup_seconds=until / 20)
    found = simulate(setting, {"a": coming()}, Split({"a": slots})).groups["a"]

    mean = waiting_probability(slots, load) / (slots - load)
    late = late_probability(slots, load, task_seconds=1.0, within_seconds=1.0)
    assert found.mean_seconds == pytest.approx(mean, rel=0.15, abs=0.01)
    assert found.late == pytest.approx(late, rel=0.15, abs=0.01)


STATIONS = (
    station("a", live=False, start=1.5),
    station("b", start=0.2),
    station("c"),
    station("d", live=False, unit=4, start=1.0),
)


@settings(max_examples=30)
@given(st.integers(0, 1 << 30))
def test_tasks_and_slots_are_conserved_under_any_policy(seed: int) -> None:
    chance = Random(seed)
    came = {one.name: [(chance.uniform(0, 30), chance.expovariate(1.0)) for _ in range(100)] for one in STATIONS}

    class Wild(Split):
        def decide(self, now: float, samples: Mapping[str, Sample]) -> Orders:
            for name, sample in samples.items():
                assert min(sample.ready, sample.starting, sample.draining, sample.busy) >= 0
                assert sample.busy <= sample.ready + sample.draining
                seen = sum(1 for at, _ in came[name] if at <= now)
                assert (sample.completions or 0) + sample.busy + (sample.queue or 0) == seen
            slots = {
                one.name: chance.randrange(0, 25) // one.group.share.unit * one.group.share.unit for one in STATIONS
            }
            return Orders(slots, chance.sample(sorted(slots), len(slots)))

    wild = Wild({"a": 1, "b": 1, "c": 1, "d": 4})
    wild.tick_seconds = 0.7
    found = simulate(Setting(STATIONS, 24, 30.0), {name: iter(sorted(one)) for name, one in came.items()}, wild)

    assert found.slots_most <= 24
    assert found.tasks == 400


USUALS = (
    BaseLoad("thumbs", 8.0, 0.8, 0.5, weight=2),
    BaseLoad("etl", 2.5, 4.0, weight=3),
    BaseLoad("mail", 20.0, 0.4, weight=3),
    BaseLoad("export", 0.3, 30.0, weight=2),
)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_never_passes_its_peak_and_is_the_same_for_the_same_seed(name: str) -> None:
    flows = WORKLOADS[name](USUALS, budget=64, duration=600.0)

    assert list(flows) == [base.name for base in USUALS]
    for base in USUALS:
        flow = flows[base.name]
        assert all(0 <= flow.rate(second / 4) <= flow.peak + 1e-9 for second in range(2400))
        first, again = (list(arrivals(flow, Random(7), until=600.0)) for _ in range(2))
        assert first == again
        assert all(0 <= at < 600 and seconds > 0 for at, seconds in first)


def test_a_steady_load_is_what_was_said() -> None:
    flow = WORKLOADS["steady"](USUALS, budget=64, duration=3600.0)["mail"]
    came = list(arrivals(flow, Random(1), until=3600.0))

    assert len(came) / 3600 == pytest.approx(20.0, rel=0.02)
    assert sum(seconds for _, seconds in came) / len(came) == pytest.approx(0.4, rel=0.03)


def test_starvation_asks_for_more_than_the_budget() -> None:
    flow = WORKLOADS["starvation"](USUALS, budget=64, duration=3600.0)["etl"]

    assert flow.rate(1800.0) * 4.0 == pytest.approx(80.0)
    assert flow.rate(10.0) * 4.0 == pytest.approx(8.0)


GROUPS = [
    ScaledGroup(Share("thumbs", 2, 1, 48), 5.0, 0.8, 3.0),
    ScaledGroup(Share("etl", 3, 2, 64), 20.0, 4.0, 0.2),
    ScaledGroup(Share("mail", 3, 2, 64), 2.0, 0.4, 0.0),
    ScaledGroup(Share("export", 2, 1, 48), 60.0, 30.0, 3.0),
]


BUDGET = 50


def outcome(policy: str, workload: str, *, seconds: float = 900.0) -> Outcome:
    flows = WORKLOADS[workload](USUALS, budget=BUDGET, duration=seconds)
    came = {name: list(arrivals(flow, Random(f"3/{name}"), until=seconds)) for name, flow in flows.items()}
    loads = {name: sum(runtime for _, runtime in one) / seconds for name, one in came.items()}
    made = POLICIES[policy](PolicyInput(GROUPS, BUDGET, Parameters(), loads))
    stations = [Station(group, group.start_seconds < 1) for group in GROUPS]
    return simulate(Setting(stations, BUDGET, seconds, 60.0), {name: iter(one) for name, one in came.items()}, made)


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_stays_within_the_budget_and_serves(policy: str) -> None:
    found = outcome(policy, "spike", seconds=300.0)

    assert found.slots_most <= BUDGET
    assert all(one.tasks for one in found.groups.values())
    assert found == outcome(policy, "spike", seconds=300.0)


def test_fleet_beats_the_static_split_when_the_load_moves() -> None:
    assert outcome("fleet", "diurnal").late < 0.02 < 0.2 < outcome("static", "diurnal").late


def test_a_flood_in_one_group_leaves_the_others_their_targets() -> None:
    found = outcome("fleet", "starvation")

    assert all(found.groups[name].late < 0.03 for name in ("thumbs", "mail", "export"))
    assert found.groups["etl"].unserved > 0


def test_arrivals_are_read_from_a_file_in_the_order_of_time() -> None:
    lines = read_arrivals("time,queue,runtime\n3,mail,0.5\n\n1.5,thumbs,\n", source="load.csv")

    assert [(line.at, line.queue, line.runtime_seconds) for line in lines] == [
        (1.5, "thumbs", None),
        (3.0, "mail", 0.5),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "load.csv:1: the first line must be time,queue"),
        ("when,what\n1,a\n", "load.csv:1: the first line must be time,queue"),
        ("time,queue\n", "load.csv: no arrivals after the first line"),
        ("time,queue\n1\n", "load.csv:2: 1 values, and the first line has 2"),
        ("time,queue\n1,a,3\n", "load.csv:2: 3 values, and the first line has 2"),
        ("time,queue\nsoon,a\n", "load.csv:2: time 'soon' is no number of seconds"),
        ("time,queue\n-1,a\n", "load.csv:2: time '-1' is no number of seconds"),
        ("time,queue\nnan,a\n", "load.csv:2: time 'nan' is no number of seconds"),
        ("time,queue,runtime\n1,a,inf\n", "load.csv:2: runtime 'inf' is no number of seconds"),
        ("time,queue\n1,\n", "load.csv:2: no queue"),
    ],
)
def test_a_file_of_arrivals_that_makes_no_sense_is_refused_with_the_line(text: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_arrivals(text, source="load.csv")

    assert refused.value.message.startswith(said)
    assert refused.value.hint
