"""The invariants of the dynamic balance, over arbitrary fleets in a simulated world."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fleet.core.autoscale.decide import EMPTY, Decision, Memory, affordable, decide
from fleet.core.autoscale.parameters import Parameters, ScaledGroup
from fleet.core.autoscale.sample import Sample
from fleet.core.balance.divide import balance
from fleet.core.balance.shares import Share
from fleet.core.decode import decoded
from fleet.core.simulation.engine import Arrival, Orders, Outcome, Setting, Station, simulate
from fleet.operate.controller.look import Look

TICK = 2.0
Samples = Mapping[str, Sample]


@dataclass(frozen=True)
class World:
    """Some groups on a budget, and the tasks that come."""

    stations: list[Station]
    budget: int
    arrivals: dict[str, list[Arrival]]
    seconds: float
    parameters: Parameters

    @property
    def groups(self) -> list[ScaledGroup]:
        return [station.group for station in self.stations]

    @property
    def floors(self) -> int:
        return sum(group.floor for group in self.groups)


@dataclass
class Watched:
    """The decision as a policy, with everything it saw and said written down."""

    world: World
    through: Callable[[Memory], Memory] = lambda memory: memory
    memory: Memory = EMPTY
    tick_seconds: float = TICK
    log: list[tuple[float, Samples, Decision]] = field(default_factory=list)

    def start(self) -> Mapping[str, int]:
        return balance(self.world.budget, [group.share for group in self.world.groups], tail="fill").slots

    def decide(self, now: float, samples: Samples) -> Orders:
        decision = decided(self.world, self.memory, samples, now)
        self.memory = self.through(decision.memory)
        self.log.append((now, dict(samples), decision))
        return Orders(decision.slots, decision.order)


def decided(world: World, memory: Memory, samples: Samples, now: float) -> Decision:
    return decide(memory, samples, world.groups, budget=world.budget, now=now, parameters=world.parameters)


def play(
    world: World,
    *,
    seen: Callable[[float, str, Sample], Sample] | None = None,
    through: Callable[[Memory], Memory] = lambda memory: memory,
) -> tuple[Watched, Outcome]:
    watched = Watched(world, through)
    setting = Setting(world.stations, world.budget, world.seconds, watch_seconds=1.0, seen=seen)
    outcome = simulate(setting, {name: iter(coming) for name, coming in world.arrivals.items()}, watched)
    return watched, outcome


@st.composite
def stations(draw: st.DrawFn, name: str, units: Sequence[int], tiers: Sequence[int]) -> Station:
    is_live = draw(st.booleans())
    unit = draw(st.sampled_from(list(units)))
    low = draw(st.integers(0, 3)) * unit
    high = draw(st.none() | st.integers(1, 10).map(lambda steps: low + steps * unit))
    share = Share(name, draw(st.integers(1, 5)), low, high, draw(st.sampled_from(list(tiers))), unit)
    group = ScaledGroup(
        share,
        target_wait_seconds=draw(st.sampled_from([1.0, 5.0, 20.0])),
        expected_runtime_seconds=draw(st.sampled_from([0.3, 1.0, 5.0])),
        start_seconds=draw(st.sampled_from([0.0, 0.2, 3.0])),
        idle_after_seconds=20.0,
        loans=draw(st.integers(0, 4)) > 0,
    )
    return Station(group, is_live)


@st.composite
def worlds(draw: st.DrawFn, units: Sequence[int] = (1, 1, 4), tiers: Sequence[int] = (0, 0, 1)) -> World:
    made = [draw(stations(name, units, tiers)) for name in "abcd"[: draw(st.integers(2, 4))]]
    seconds = draw(st.sampled_from([40.0, 120.0, 240.0]))
    chance = Random(draw(st.integers(0, 1 << 30)))
    return World(
        made,
        sum(station.group.floor for station in made) + draw(st.integers(1, 24)),
        {station.name: coming(draw, station, seconds, chance) for station in made},
        seconds,
        replace(Parameters(), tick_seconds=TICK, **draw(all_parameters)),
    )


all_parameters = st.fixed_dictionaries(
    {
        "surplus": st.sampled_from(["keep", "release"]),
        "squeeze_seconds": st.sampled_from([0.0, 30.0, 120.0]),
        "loan_within_seconds": st.sampled_from([None, None, 10.0]),
    }
)


def coming(draw: st.DrawFn, station: Station, seconds: float, chance: Random) -> list[Arrival]:
    """A few stretches of quiet, ordinary load and floods."""
    rates = draw(st.lists(st.sampled_from([0.0, 0.2, 1.0, 5.0, 20.0]), min_size=1, max_size=4))
    mean = station.group.expected_runtime_seconds * draw(st.sampled_from([0.5, 1.0, 3.0]))
    found, length = [], seconds / len(rates)
    for number, rate in enumerate(rates):
        now = number * length
        while rate and (now := now + chance.expovariate(rate)) < (number + 1) * length:
            found.append((now, chance.expovariate(1 / mean)))
    return found


@settings(max_examples=25)
@given(worlds())
def test_the_budget_and_all_bounds_hold_at_every_tick(world: World) -> None:
    watched, outcome = play(world)
    names = sorted(group.name for group in world.groups)

    assert outcome.slots_most <= world.budget
    for _, _, decision in watched.log:
        assert sum(decision.slots.values()) <= world.budget
        assert sorted(decision.order) == names
        for group in world.groups:
            gets = decision.slots[group.name]
            assert group.floor <= gets <= (world.budget if group.share.max is None else group.share.max)
            assert gets % group.share.unit == 0


@settings(max_examples=25)
@given(worlds())
def test_what_is_asked_for_at_once_never_passes_the_budget(world: World) -> None:
    """The promise a controller needs that does not know when a slot will really be gone."""
    watched, _ = play(world)
    for _, samples, decision in watched.log:
        asked = affordable(decision, samples, world.groups, budget=world.budget)
        gone = {name: max(0, samples[name].has - slots) for name, slots in asked.items()}
        held = sum(slots + gone[name] + samples[name].draining for name, slots in asked.items())
        assert held <= world.budget
        assert all(slots <= max(decision.slots[name], samples[name].has) for name, slots in asked.items())
        for group in world.groups:
            more = asked[group.name] - samples[group.name].has
            assert more <= 0 or more % group.share.unit == 0


@settings(max_examples=40)
@given(worlds(units=(1,), tiers=(0,)))
def test_everybody_gets_what_they_need_or_their_share_whatever_others_ask_for(world: World) -> None:
    """Isolation. In the first time of a shortage only the bare need is promised, so that bursts are met."""
    assume(world.parameters.loan_within_seconds is None)
    watched, _ = play(world)
    for _, _, decision in watched.log:
        shares = shares_beside_the_awake(world, decision)
        for name, one in decision.verdicts.items():
            owed = min(one.need if decision.is_squeezed else one.wants, one.keeps, shares[name])
            assert one.gets >= owed, (name, one)


def shares_beside_the_awake(world: World, decision: Decision) -> Mapping[str, int]:
    """Static shares; a group that may go to zero and has work has one slot before anybody has a share."""
    awake = [
        replace(group.share, min=1) if group.floor == 0 and decision.verdicts[group.name].keeps else group.share
        for group in world.groups
    ]
    if sum(share.min for share in awake) > world.budget:
        return {group.name: group.floor for group in world.groups}
    return balance(world.budget, awake, tail="fill").slots


@settings(max_examples=15)
@given(worlds())
def test_the_same_samples_give_the_same_decisions_and_memory_survives_json(world: World) -> None:
    def written(memory: Memory) -> Memory:
        return decoded(Memory, json.loads(json.dumps(memory.to_json())))

    plain, _ = play(world)
    kept, _ = play(world, through=written)

    assert [decision for _, _, decision in plain.log] == [decision for _, _, decision in kept.log]


@settings(max_examples=40)
@given(worlds(units=(1,)), st.data())
def test_a_longer_queue_never_costs_a_group_slots(world: World, data: st.DataObject) -> None:
    watched, _ = play(world)
    place = data.draw(st.integers(0, len(watched.log) - 1))
    memory = watched.log[place - 1][2].memory if place else EMPTY
    now, samples, _ = watched.log[place]
    name = data.draw(st.sampled_from(sorted(samples)))
    queue = max(1, samples[name].queue or 0)
    fewer = {**samples, name: replace(samples[name], queue=queue)}
    more = {**samples, name: replace(samples[name], queue=queue + data.draw(st.integers(1, 300)))}

    before, after = decided(world, memory, fewer, now), decided(world, memory, more, now)

    assert after.slots[name] >= before.slots[name]


BLIND = Sample()


def blinded(sample: Sample) -> Sample:
    slots = {name: getattr(sample, name) for name in ("busy", "ready", "starting", "draining")}
    return replace(BLIND, **slots)


@settings(max_examples=25)
@given(worlds(units=(1,)), st.sampled_from(["hold", "static"]))
def test_a_group_without_metrics_stands_or_goes_to_its_static_share(world: World, said: str) -> None:
    blind = world.stations[0]
    group = replace(blind.group, on_missing_metrics=said)
    world = replace(world, stations=[replace(blind, group=group), *world.stations[1:]])
    release = replace(world, parameters=replace(world.parameters, surplus="release", loan_within_seconds=None))
    watched, _ = play(
        release, seen=lambda now, name, sample: blinded(sample) if name == blind.name and now > TICK else sample
    )
    for _, samples, decision in watched.log[1:]:
        one = decision.verdicts[blind.name]
        asked = samples[blind.name].has if said == "hold" else one.share
        overcommitted = max(asked, group.floor) + world.floors - group.floor > world.budget
        assert one.gets == max(asked, group.floor) or overcommitted
        assert one.reason.startswith("no metrics (queue, completions, busySeconds)")


@settings(max_examples=25)
@given(worlds(), st.integers(0, 1 << 30))
def test_lost_and_restarted_metrics_break_no_promise(world: World, seed: int) -> None:
    chance = Random(seed)

    def spoiled(_now: float, _name: str, sample: Sample) -> Sample:
        match chance.randrange(12):
            case 0:
                return blinded(sample)
            case 1:
                return replace(sample, completions=0, busy_seconds=0.0)
            case 2:
                return replace(sample, oldest_age_seconds=None)
        return sample

    watched, outcome = play(world, seen=spoiled)

    assert outcome.slots_most <= world.budget
    for _, _, decision in watched.log:
        assert sum(decision.slots.values()) <= world.budget
        assert all(decision.slots[group.name] >= group.floor for group in world.groups)


@settings(max_examples=25)
@given(worlds(units=(1,)))
def test_counters_that_start_anew_do_not_make_a_group_let_go(world: World) -> None:
    watched, _ = play(world)
    now, samples, decision = watched.log[-1]
    anew = {name: replace(one, completions=0, busy_seconds=0.0) for name, one in samples.items()}

    after = decided(world, decision.memory, anew, now + TICK)

    for name, one in after.verdicts.items():
        top = world.budget if not decision.verdicts[name].share else one.keeps
        assert one.keeps >= min(one.has, decision.verdicts[name].wants, top)


@settings(max_examples=25)
@given(worlds())
def test_no_task_is_lost_or_cut_and_none_runs_without_a_slot(world: World) -> None:
    watched, outcome = play(world)
    for now, samples, _ in watched.log:
        for name, sample in samples.items():
            came = sum(1 for at, _ in world.arrivals[name] if at <= now)
            assert (sample.completions or 0) + sample.busy + (sample.queue or 0) == came
    for _, looks in outcome.timeline:
        assert all(look.busy <= look.ready + look.draining for look in looks.values())
        assert held(looks) <= world.budget


def held(looks: Mapping[str, Look]) -> int:
    return sum(look.ready + look.starting + look.draining for look in looks.values())


@settings(max_examples=25)
@given(worlds())
def test_a_burst_is_never_answered_with_fewer_slots_wished(world: World) -> None:
    watched, _ = play(world)
    for _, _, decision in watched.log:
        for group in world.groups:
            one = decision.verdicts[group.name]
            top = world.budget if group.share.max is None else min(group.share.max, world.budget)
            top = top if group.loans else min(top, max(one.share, group.floor))
            if one.is_burst:
                assert one.keeps >= min(one.has, top // group.share.unit * group.share.unit)


@settings(max_examples=15)
@given(worlds())
def test_every_number_has_a_reason(world: World) -> None:
    watched, _ = play(world)
    for _, _, decision in watched.log:
        assert all(" tasks/s x " in one.reason for one in decision.verdicts.values())
        for name, reason in decision.moves.items():
            assert decision.verdicts[name].gets != decision.verdicts[name].has
            assert reason


@settings(max_examples=15)
@given(worlds(), st.data())
def test_a_constant_load_comes_to_rest(world: World, data: st.DataObject) -> None:
    """Tasks at even times and of one length, more than the budget can do or less: after a while nothing moves."""
    rates = {station.name: data.draw(st.sampled_from([0.0, 0.2, 1.0, 2.5])) for station in world.stations}

    assert moves_at_the_end(world, rates) == 0


def moves_at_the_end(world: World, rates: Mapping[str, float]) -> int:
    even = {
        group.name: [
            ((number + 0.37) / rates[group.name], group.expected_runtime_seconds)
            for number in range(int(900 * rates[group.name]))
        ]
        for group in world.groups
    }

    watched, _ = play(replace(world, arrivals=even, seconds=900.0))
    return sum(len(decision.moves) for now, _, decision in watched.log if now > 750)


def test_a_shortage_that_is_met_every_other_look_is_still_one() -> None:
    """Seen with a unit of four in a full budget: each look began a new squeeze, which the next look undid."""
    world = World(
        [
            Station(ScaledGroup(Share("a", 5), 5.0, 0.3, 3.0)),
            Station(ScaledGroup(Share("b", 2, 0), 5.0, 1.0, 3.0, 20.0), is_live=True),
            Station(ScaledGroup(Share("c", 2, 0, 4, tier=1), 5.0, 1.0, 0.2, 20.0, loans=False)),
            Station(ScaledGroup(Share("d", 2, 4, 40, unit=4), 20.0, 5.0, 0.0), is_live=True),
        ],
        budget=15,
        arrivals={},
        seconds=900.0,
        parameters=Parameters(tick_seconds=TICK, surplus="keep"),
    )
    rates = {"a": 2.5, "b": 1.0, "c": 1.0, "d": 2.5}

    assert moves_at_the_end(world, rates) == 0
    assert moves_at_the_end(replace(world, parameters=replace(world.parameters, burst_seconds=0.0)), rates) > 0
