"""What must hold for every plan, whatever is wanted and whatever was seen."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.backends.memory import MemoryBackend
from fleet.core.desired import Budgets, Desired, DesiredGroup, RolloutPolicy
from fleet.core.observed import Observed, ObservedReplica, State
from fleet.core.plan import Action, Plan
from fleet.core.planning import budget, plan_text
from fleet.core.planning.assignment import assign
from fleet.core.planning.planner import fingerprint, plan
from fleet.core.spec import PoolSpec, WorkerSpec, digest, live_digest
from fleet.errors import Refused
from tests.properties.strategies import (
    ORPHAN,
    blue_green,
    fleets,
    groups,
    resized,
    rollouts,
    settings,
    worlds,
    worlds_within_budget,
)
from tests.worlds import apply, carry_out, fleet, planned, running

World = tuple[Desired, Observed]
HOLDS = {Action.HOLD, Action.RELEASE}
REMOVALS = {Action.DRAIN, Action.STOP, Action.FORGET}


def backend_of(observed: Observed) -> MemoryBackend:
    backend = MemoryBackend(observed.fleet, stepwise=True)
    backend.load(observed.replicas.values())
    for stray in observed.strays:
        backend.add_stray(stray.replica, kind=stray.kind)
    return backend


def settled_world(world: World) -> tuple[Desired, MemoryBackend]:
    return world[0], backend_of(world[1])


@given(worlds(), st.booleans())
def test_it_converges(world: World, prune: bool) -> None:
    desired, backend = settled_world(world)

    apply(planned(desired, backend.observe(), prune=prune), backend)

    assert plan_text.text(planned(desired, backend.observe(), prune=prune)).startswith(("Nothing to do", "note:"))
    assert planned(desired, backend.observe(), prune=prune).is_empty


@given(fleets())
def test_a_converged_fleet_plans_nothing(desired: Desired) -> None:
    seen = running(*desired.groups.values())

    assert planned(replace(desired, drained=frozenset()), seen).is_empty


@given(worlds(), st.booleans(), st.integers(0, 1 << 30))
def test_the_text_is_stable_under_shuffling(world: World, prune: bool, seed: int) -> None:
    desired, observed = world
    chance = random.Random(seed)
    wanted, seen, strays = [*desired.groups.items()], [*observed.replicas.items()], [*observed.strays]
    for sequence in (wanted, seen, strays):
        chance.shuffle(sequence)

    first = planned(desired, observed, prune=prune)
    second = planned(
        replace(desired, groups=dict(wanted)),
        replace(observed, replicas=dict(seen), strays=tuple(strays)),
        prune=prune,
    )

    assert plan_text.text(first, verbose=True) == plan_text.text(second, verbose=True)
    assert plan_text.document(first) == plan_text.document(second)


@given(groups("a"), st.integers(0, 8), st.integers(0, 8))
def test_survivors_are_untouched_when_only_counts_differ(one: DesiredGroup, before: int, after: int) -> None:
    slots = max(one.shape, default=1)
    old, new = resized(one, *(slots,) * before), resized(one, *(slots,) * after)

    steps = planned(fleet(new), running(old)).steps

    assert sum(step.action is Action.KEEP for step in steps) == min(before, after)
    assert {step.action for step in steps} <= {Action.KEEP, Action.START, Action.DRAIN}


@given(st.integers(0, 40), st.integers(1, 6))
def test_one_more_slot_changes_one_replica(slots: int, size: int) -> None:
    def shape(total: int) -> tuple[int, ...]:
        return (size,) * (total // size) + ((total % size,) if total % size else ())

    one = group_of(size)

    steps = plan(fleet(resized(one, *shape(slots + 1))), running(resized(one, *shape(slots)))).changes

    assert len(steps) == 1


def group_of(size: int) -> DesiredGroup:
    from tests.worlds import group

    return group("a", size, pool="prefork")


@given(groups("a"), settings(), st.lists(st.integers(1, 6), min_size=1, max_size=5))
def test_what_can_change_in_place_keeps_its_process(one: DesiredGroup, other: dict[str, Any], sizes: list[int]) -> None:
    old = replace(resized(one, *sorted(sizes, reverse=True)), spec=replace(one.spec, pool=PoolSpec("threads", 6)))
    new = replace(old, shape=(6,) * len(sizes), spec=replace(old.spec, **other))
    backend = backend_of(running(old))
    before = pids(backend.observe())

    todo = planned(fleet(new), backend.observe())
    apply(todo, backend)

    assert {step.action for step in todo.changes} <= {Action.RESIZE}
    assert pids(backend.observe()) == before
    assert all(seen.follows(new.spec) for seen in backend.observe().replicas.values())


def pids(observed: Observed) -> dict[str, int | None]:
    return {name: one.pid for name, one in observed.replicas.items()}


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=6))
def test_slots_that_move_are_given_up_before_they_are_taken(sizes: list[tuple[int, int]]) -> None:
    names = [f"g{number}" for number in range(len(sizes))]
    old = [sized_group(name, before) for name, (before, _) in zip(names, sizes, strict=True)]
    new = [sized_group(name, after) for name, (_, after) in zip(names, sizes, strict=True)]
    backend = backend_of(running(*old))
    most = max(slots(backend.observe()), sum(after for _, after in sizes))

    todo = planned(fleet(*new), backend.observe())

    for effect in carry_out(todo, backend):
        assert slots(backend.observe()) <= most, f"after {effect}"
    assert {used.name: used.at_peak for used in todo.usage}["slots"] <= most


def slots(observed: Observed) -> int:
    return sum(one.slots for one in observed.replicas.values())


def sized_group(name: str, size: int) -> DesiredGroup:
    from tests.worlds import group

    return group(name, size, pool="prefork")


@given(worlds_within_budget(), st.booleans())
def test_slots_in_use_stay_within_the_budget_where_groups_keep_to_it(world: World, prune: bool) -> None:
    desired, backend = settled_world(world)
    began = backend.observe()
    todo = planned(desired, began, prune=prune)
    limit = desired.budgets.slots
    assert limit is not None
    most = max(limit, slots_in_use(began))
    try:
        budget.check(desired, todo, began)
    except Refused:
        assert not prune or any(one.depends_on for one in desired.groups.values()), "there is always an order"
        return

    for effect in carry_out(todo, backend):
        assert slots_in_use(backend.observe()) <= most, f"after {effect}"
    assert planned(desired, backend.observe(), prune=prune).is_empty


def slots_in_use(observed: Observed) -> int:
    return sum(one.slots for one in observed.replicas.values() if one.running)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), rollouts()), min_size=1, max_size=3), st.integers(0, 6))
def test_a_group_that_keeps_to_the_budget_misses_no_more_than_it_must(
    made: list[tuple[int, int, RolloutPolicy]], room: int
) -> None:
    def groups_of(version: str) -> list[DesiredGroup]:
        return [
            group_with(f"g{number}", size=size, replicas=count, env={"A": version}, rollout=replace(one, peak="budget"))
            for number, (count, size, one) in enumerate(made)
        ]

    desired = fleet(*groups_of("2"), budgets=Budgets(slots=sum(count * size for count, size, _ in made) + room))
    backend = backend_of(running(*groups_of("1")))
    todo = planned(desired, backend.observe())
    assert todo.usage[0].above_at_peak == 0

    spares = {step.replica.rpartition(".")[0] for step in todo.changes if step.reason.startswith("spare while")}
    for effect in carry_out(todo, backend):
        for one in desired.groups.values():
            missing = max(one.rollout.max_unavailable, int(one.name not in spares))
            if one.rollout.strategy == "rolling":
                assert at_work(backend.observe(), one.name) >= one.replicas - missing, f"after {effect}"


@given(blue_green(), st.booleans())
def test_a_whole_new_set_converges_and_the_old_one_works_until_it_is_there(world: World, prune: bool) -> None:
    desired, backend = settled_world(world)
    began = backend.observe()
    todo = planned(desired, began, prune=prune)
    whole = [one for one in desired.groups.values() if one.rollout.blue_green is not None and replaced_whole(one, todo)]

    for effect in carry_out(todo, backend):
        for one in whole:
            least = min(at_work(began, one.name), one.replicas)
            assert at_work(backend.observe(), one.name) >= least, f"after {effect}"
    assert planned(desired, backend.observe(), prune=prune).changes == ()
    judged = {step.replica.rpartition(".")[0] for step in todo.steps if step.canary and step.canary.seconds}
    twice = [one for one in desired.groups.values() if one.rollout.blue_green is not None and one.replicas]
    old = {one.name for one in twice if works_in_old_code(one, began)}
    assert old <= judged, "no old set leaves before the new one was judged"


def replaced_whole(group: DesiredGroup, todo: Plan) -> bool:
    """Else only shapes change, which is an ordinary rollout."""
    return any(step.canary is not None and step.replica.startswith(f"{group.name}.") for step in todo.steps)


def works_in_old_code(group: DesiredGroup, observed: Observed) -> bool:
    digests = {one.digest for one in assign(group, ()).wanted.values()}
    seen = [one for one in observed.replicas.values() if one.group == group.name and one.running]
    return any(one.state is State.READY and one.digest not in digests for one in seen)


@given(blue_green(), st.booleans())
def test_two_sets_stay_within_the_budget_or_are_refused(world: World, prune: bool) -> None:
    desired, backend = settled_world(world)
    groups = {name: replace(one, rollout=replace(one.rollout, peak="budget")) for name, one in desired.groups.items()}
    desired, began = replace(desired, groups=groups), backend.observe()
    todo = planned(desired, began, prune=prune)
    try:
        budget.check(desired, todo, began)
    except Refused:
        return

    most = max(desired.budgets.slots or 0, slots_in_use(began))
    for effect in carry_out(todo, backend):
        assert slots_in_use(backend.observe()) <= most, f"after {effect}"


@given(st.integers(2, 8), rollouts(), st.integers(0, 3))
def test_shares_of_a_canary_grow_and_each_step_judges_once(count: int, rollout: RolloutPolicy, room: int) -> None:
    old, new = (group_with("a", size=1, replicas=count, env={"A": value}, rollout=rollout) for value in "12")
    todo = planned(fleet(new, budgets=Budgets(slots=count + room)), running(old))
    spares = sum(step.action is Action.START for step in todo.changes)
    done, judged = 0, []
    for step in todo.changes:
        done += step.action in {Action.REPLACE, Action.START}
        for policy in (step.canary, *step.later_canaries):
            if policy is not None:
                judged.append((policy.number, done, min(max(policy.replicas, spares), count - 1 + spares)))
                assert sum(other.wave == step.wave for other in todo.changes) == 1, "all of its share are ready"

    assert [number for number, _, _ in judged] == [policy.number for policy in rollout.canaries]
    assert all(done == share for _, done, share in judged)


def group_with(name: str, *, size: int, replicas: int, **more: Any) -> DesiredGroup:
    from tests.worlds import group

    return group(name, *[size] * replicas, pool="prefork", **more)


@given(groups("a"), settings())
def test_every_field_is_in_one_digest_or_the_other(one: DesiredGroup, other: dict[str, Any]) -> None:
    changed = replace(one.spec, **other)

    assert digest(changed) == digest(one.spec)
    assert (live_digest(changed) == live_digest(one.spec)) == (changed == one.spec)


@given(worlds(), st.booleans())
def test_bounds_hold_at_every_prefix_of_an_apply(world: World, prune: bool) -> None:
    desired, backend = settled_world(world)
    began = backend.observe()
    todo = planned(desired, began, prune=prune)

    for effect in carry_out(todo, backend):
        now = backend.observe()
        for group in desired.groups.values():
            most = max(processes(began, group.name), group.replicas + group.rollout.max_surge)
            assert processes(now, group.name) <= most, f"after {effect}"
            if group.rollout.strategy == "rolling":
                least = min(at_work(began, group.name), group.replicas - group.rollout.max_unavailable)
                assert at_work(now, group.name) >= least, f"after {effect}"


def processes(observed: Observed, group: str) -> int:
    return sum(one.running for one in observed.replicas.values() if one.group == group)


def at_work(observed: Observed, group: str) -> int:
    """Replicas that work, or take nothing because a person said so."""
    seen = [one for one in observed.replicas.values() if one.group == group and one.running]
    return sum(one.state is State.READY or (one.held and one.state is State.DRAINING) for one in seen)


@given(worlds(), st.booleans(), st.integers(0, 60))
def test_an_apply_cut_short_anywhere_is_finished_by_the_next(world: World, prune: bool, effects: int) -> None:
    desired, backend = settled_world(world)
    for count, _ in enumerate(carry_out(planned(desired, backend.observe(), prune=prune), backend)):
        if count == effects:
            break
    backend.settle()
    cut = backend.observe()

    todo = planned(desired, cut, prune=prune)
    wrongly = [step.id for step in todo.changes if step.action in CUTS and is_right(desired, cut, step.replica)]
    apply(todo, backend)

    assert wrongly == []
    assert planned(desired, backend.observe(), prune=prune).is_empty


CUTS = {Action.REPLACE, Action.RESTART}


def is_right(desired: Desired, observed: Observed, name: str) -> bool:
    """It is ready with a digest that its group wants as often as it is there."""
    seen = observed.replicas[name]
    same = [one for one in observed.replicas.values() if (one.group, one.digest) == (seen.group, seen.digest)]
    wanted = [one for one in assign(desired.groups[seen.group], ()).wanted.values() if one.digest == seen.digest]
    return seen.state is State.READY and len(wanted) >= len(same)


@given(worlds(), st.booleans())
def test_what_is_foreign_is_in_no_plan(world: World, prune: bool) -> None:
    desired, observed = world

    assert not {step.replica for step in planned(desired, observed, prune=prune).steps} & set(observed.foreign)


@given(worlds())
def test_no_orphan_goes_unless_prune_asks_for_it(world: World) -> None:
    desired, observed = world
    unknown = {name for name, one in observed.replicas.items() if one.group not in desired.groups}

    todo = planned(desired, observed)

    gone = {step.replica for step in todo.changes if step.action is not Action.REAP}
    assert not gone & unknown
    assert bool(unknown) == any("--prune" in note for note in todo.notes)


@given(worlds())
def test_prune_removes_every_orphan(world: World) -> None:
    desired, observed = world
    unknown = {name for name, one in observed.replicas.items() if one.group not in desired.groups}

    todo = planned(desired, observed, prune=True)

    assert {step.replica for step in todo.changes if step.action in REMOVALS} >= unknown


@given(worlds(), st.booleans())
def test_everything_waited_for_comes_in_an_earlier_wave(world: World, prune: bool) -> None:
    desired, observed = world
    todo = planned(desired, observed, prune=prune)
    waves = {step.id: step.wave for step in todo.steps}

    assert [step.wave for step in todo.steps] == sorted(step.wave for step in todo.steps)
    assert all(waves[mark] < step.wave for step in todo.steps for mark in step.after)
    assert {step.wave for step in todo.changes} == set(range(len({step.wave for step in todo.changes})))


@given(worlds())
def test_what_a_group_depends_on_is_up_before_it_starts(world: World) -> None:
    desired, observed = world
    comes = {Action.START, Action.REPLACE, Action.RESTART}
    todo = planned(desired, observed)
    spares = {step.replica for step in todo.changes if step.reason.startswith("spare while")}
    waves: dict[str, list[int]] = {}
    for step in todo.changes:
        if step.action in comes and step.replica not in spares:
            waves.setdefault(step.replica.rpartition(".")[0], []).append(step.wave)

    for name, group in desired.groups.items():
        for other in group.depends_on:
            if name in waves and other in waves:
                assert max(waves[other]) < min(waves[name])


@given(worlds(), st.booleans(), st.sets(st.sampled_from(["a", "b.1", "c.0"])))
def test_every_wanted_and_every_seen_replica_is_in_exactly_one_bucket(
    world: World, prune: bool, restart: set[str]
) -> None:
    desired, observed = world
    todo = plan(desired, observed, prune=prune, restart=frozenset(restart))
    changed = {step.replica for step in todo.steps if step.action not in {*HOLDS, Action.REAP}}
    main = [step for step in todo.steps if step.action is not Action.REAP and not step.after]
    decided = [step.replica for step in main if step.action not in HOLDS or step.replica not in changed]
    seen_of = {name: [one for one in observed.replicas.values() if one.group == name] for name in desired.groups}
    wanted = {
        replica.name
        for name, group in desired.groups.items()
        for replica in assign(group, seen_of[name]).wanted.values()
    }

    assert sorted(decided) == sorted(wanted | observed.replicas.keys())
    counts = plan_text.summary(planned(desired, observed, prune=prune, restart=frozenset(restart)))
    assert sum(count for key, count in counts.items() if key != "reap") == len(decided)


@given(worlds())
def test_strays_are_reaped_before_their_replica_runs(world: World) -> None:
    desired, observed = world
    todo = planned(desired, observed)
    waves = {step.replica: step.wave for step in todo.changes if step.action is Action.REAP}

    assert {step.pid for step in todo.changes if step.action is Action.REAP} == {one.pid for one in observed.strays}
    for step in todo.changes:
        if step.action in {Action.START, Action.REPLACE, Action.RESTART} and step.replica in waves:
            assert waves[step.replica] < step.wave


@given(worlds())
def test_down_leaves_nothing(world: World) -> None:
    _, observed = world
    backend = backend_of(observed)
    nothing = Desired(observed.fleet)

    apply(planned(nothing, backend.observe(), prune=True), backend)
    backend.shutdown()

    assert backend.observe() == Observed(observed.fleet)


@given(worlds(), st.data())
def test_the_fingerprint_sees_identity_and_not_counters(world: World, data: st.DataObject) -> None:
    desired, observed = world
    later = {name: busier(one) for name, one in observed.replicas.items()}
    mark = fingerprint(desired, observed)

    assert fingerprint(desired, replace(observed, replicas=later)) == mark
    if observed.replicas:
        name = data.draw(st.sampled_from(sorted(observed.replicas)))
        other = replace(observed.replicas[name], digest="00000000")
        assert fingerprint(desired, replace(observed, replicas={**observed.replicas, name: other})) != mark
        fewer = {key: one for key, one in observed.replicas.items() if key != name}
        assert fingerprint(desired, replace(observed, replicas=fewer)) != mark


def busier(one: ObservedReplica) -> ObservedReplica:
    return replace(one, busy=one.busy + 1, processed=77, memory_bytes=5, pid=one.pid and one.pid + 1)


@given(fleets())
def test_a_spec_survives_json(desired: Desired) -> None:
    for group in desired.groups.values():
        again = WorkerSpec.from_json(group.spec.to_json())
        assert again == group.spec
        assert digest(again) == digest(group.spec)


def test_orphans_have_a_name_of_their_own() -> None:
    assert ORPHAN not in {"a", "b", "c"}
