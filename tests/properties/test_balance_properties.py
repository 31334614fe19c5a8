"""The invariants of the static balance."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fleet.core.balance.costs import Prices
from fleet.core.balance.divide import balance, shape
from fleet.core.balance.shares import Share
from fleet.errors import Refused

Problem = tuple[int, list[Share]]


@st.composite
def problems(
    draw: st.DrawFn, units: tuple[int, ...] = (1,), tiers: tuple[int, ...] = (0,), most: int = 7, extra: int = 200
) -> Problem:
    shares = []
    for number in range(draw(st.integers(1, most))):
        unit = draw(st.sampled_from(units))
        low = draw(st.integers(0, 4)) * unit
        high = draw(st.none() | st.integers(0, 12).map(lambda steps, low=low, unit=unit: low + steps * unit))
        shares.append(Share(f"g{number}", draw(st.integers(1, 9)), low, high, draw(st.sampled_from(tiers)), unit))
    return floors(shares) + draw(st.integers(0, extra)), shares


def floors(shares: list[Share]) -> int:
    return sum(share.min for share in shares)


def one_by_one(
    budget: int, shares: list[Share], tail: str, capacity: dict[str, int] | None = None
) -> tuple[dict[str, int], set[str]]:
    """The definition, unit by unit, in its slowest and plainest form: the slots, and who was stopped by a resource."""
    slots = {share.name: share.min for share in shares}
    left = budget - sum(slots.values())
    skipped: set[str] = set()
    stopped: set[str] = set()
    while left > 0:
        open_ones = [
            share
            for share in shares
            if share.name not in skipped | stopped
            and (share.max is None or slots[share.name] + share.unit <= share.max)
        ]
        if not open_ones:
            break
        share = min(open_ones, key=lambda one: (one.tier, -priority(one, slots[one.name]), one.name))
        more = {**slots, share.name: slots[share.name] + share.unit}
        if any(used(shares, more, resource) > there for resource, there in (capacity or {}).items()):
            stopped.add(share.name)
        elif share.unit > left:
            if tail == "hold":
                break
            skipped.add(share.name)
        else:
            slots, left = more, left - share.unit
    return slots, stopped


def used(shares: list[Share], slots: Mapping[str, int], resource: str) -> int:
    return sum(share.used(resource, slots[share.name]) for share in shares)


def priority(share: Share, slots: int) -> Fraction:
    return Fraction(2 * int(share.weight), 2 * slots + share.unit)


@given(problems(units=(1, 2, 3, 5), tiers=(0, 1)), st.sampled_from(["hold", "fill"]))
def test_it_is_the_definition(problem: Problem, tail: str) -> None:
    budget, shares = problem

    assert balance(budget, shares, tail=tail).slots == one_by_one(budget, shares, tail)[0]  # type: ignore[arg-type]


@given(problems())
def test_everything_is_given_out_unless_all_are_full(problem: Problem) -> None:
    budget, shares = problem
    found = balance(budget, shares)
    ceiling = sum(budget if share.max is None else share.max for share in shares)

    assert sum(found.slots.values()) == min(budget, ceiling)
    assert sum(found.slots.values()) + found.left == budget


@given(problems(units=(1, 2, 3, 5)))
def test_bounds_and_units_are_kept(problem: Problem) -> None:
    budget, shares = problem
    found = balance(budget, shares)
    by_name = {share.name: share for share in shares}

    assert sum(found.slots.values()) <= budget
    for name, slots in found.slots.items():
        share = by_name[name]
        assert share.min <= slots <= (budget if share.max is None else share.max)
        assert slots % share.unit == 0
    if found.next_in_line is not None:
        assert found.left < by_name[found.next_in_line].unit


@given(problems(units=(1, 2, 3, 5), tiers=(0, 1)), st.integers(0, 1 << 30))
def test_the_order_of_groups_does_not_matter(problem: Problem, seed: int) -> None:
    budget, shares = problem
    mixed = list(shares)
    random.Random(seed).shuffle(mixed)

    assert balance(budget, shares) == balance(budget, mixed)


@given(problems(units=(1, 2, 3, 5), tiers=(0, 1)), st.integers(1, 10))
def test_a_larger_budget_takes_from_no_one(problem: Problem, more: int) -> None:
    budget, shares = problem
    before, after = balance(budget, shares).slots, balance(budget + more, shares).slots

    assert all(after[name] >= before[name] for name in before)


@given(problems())
def test_next_in_line_and_gives_first_are_true(problem: Problem) -> None:
    budget, shares = problem
    here, above = balance(budget, shares), balance(budget + 1, shares)
    if here.next_in_line:
        assert moved(here.slots, above.slots) == {here.next_in_line}
    if here.gives_first and here.left == 0:
        assert moved(here.slots, balance(budget - 1, shares).slots) == {here.gives_first}


def moved(before: object, after: object) -> set[str]:
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    return {name for name in before if before[name] != after[name]}


@given(problems(units=(1, 2, 3)), st.data())
def test_an_edit_moves_slots_only_to_the_edited_group(problem: Problem, data: st.DataObject) -> None:
    budget, shares = problem
    place = data.draw(st.integers(0, len(shares) - 1))
    old = shares[place]
    edits = [replace(old, weight=old.weight + 3), replace(old, min=old.min + old.unit)]
    edits += [replace(old, max=old.max + old.unit)] if old.max is not None else []
    new = data.draw(st.sampled_from(edits))
    assume(new.max is None or new.min <= new.max)
    edited = [*shares[:place], new, *shares[place + 1 :]]
    assume(floors(edited) <= budget)

    before, after = balance(budget, shares).slots, balance(budget, edited).slots

    assert after[old.name] >= before[old.name]
    assert all(after[name] <= before[name] for name in before if name != old.name)


@given(problems(units=(1, 2, 3)), st.integers(1, 9), st.integers(0, 3))
def test_a_new_group_only_takes(problem: Problem, weight: int, low: int) -> None:
    budget, shares = problem[0] + low, problem[1]
    before = balance(budget, shares).slots
    after = balance(budget, [*shares, Share("new", weight, low)]).slots

    assert all(after[name] <= before[name] for name in before)


@given(problems(), st.data())
def test_any_part_of_the_fleet_is_itself_in_balance(problem: Problem, data: st.DataObject) -> None:
    budget, shares = problem
    part = data.draw(st.lists(st.sampled_from(shares), unique_by=lambda share: share.name, min_size=1))
    slots = balance(budget, shares).slots
    own = {share.name: slots[share.name] for share in part}

    assert balance(sum(own.values()), part).slots == own


@given(problems(), st.integers(1, 50))
def test_only_ratios_of_weights_matter(problem: Problem, factor: int) -> None:
    budget, shares = problem
    slots = balance(budget, shares).slots

    assert slots == balance(budget, [replace(one, weight=one.weight * factor) for one in shares]).slots
    assert slots == balance(budget, [replace(one, weight=Fraction(one.weight, factor)) for one in shares]).slots  # type: ignore[arg-type]


@given(problems(units=(1, 2, 3)))
def test_no_transfer_would_help(problem: Problem) -> None:
    """The certificate that a checker can verify without running the algorithm."""
    budget, shares = problem
    slots = balance(budget, shares).slots
    for taker, giver in itertools.permutations(shares, 2):
        more, less = slots[taker.name] + taker.unit, slots[giver.name] - giver.unit
        if less >= giver.min and (taker.max is None or more <= taker.max) and taker.unit <= giver.unit:
            assert priority(taker, slots[taker.name]) <= priority(giver, less)


@settings(max_examples=30)
@given(problems(most=3, extra=8))
def test_it_is_the_least_squares_optimum(problem: Problem) -> None:
    budget, shares = problem
    slots = balance(budget, shares).slots
    total = sum(slots.values())

    def cost(counts: tuple[int, ...]) -> Fraction:
        return sum((Fraction(n * n, int(one.weight)) for n, one in zip(counts, shares, strict=True)), Fraction(0))

    spans = [range(one.min, min(budget, budget if one.max is None else one.max) + 1) for one in shares]
    best = min(cost(counts) for counts in itertools.product(*spans) if sum(counts) == total)
    assert cost(tuple(slots[one.name] for one in shares)) == best


@given(st.integers(0, 300), st.integers(1, 20))
def test_a_shape_is_exact_and_one_more_slot_changes_one_replica(slots: int, size: int) -> None:
    before, after = shape(slots, size), shape(slots + 1, size)

    assert sum(before) == slots
    assert all(1 <= count <= size for count in before)
    assert sum(one != other for one, other in itertools.zip_longest(before, after)) == 1


RESOURCES = ("cores", "memory")
Priced = tuple[int, list[Share], dict[str, int]]


@st.composite
def priced(draw: st.DrawFn, units: tuple[int, ...] = (1, 2, 3)) -> Priced:
    """A problem where slots cost other things too, of which there is enough for the floors at least."""
    budget, shares = draw(problems(units=units, tiers=(0, 1)))
    amounts = st.fixed_dictionaries({name: st.integers(0, 6) for name in RESOURCES})
    shares = [
        replace(
            share,
            slots_per_replica=draw(st.sampled_from([1, 3, 8])),
            prices=Prices(draw(amounts), draw(amounts), {"cores": draw(st.integers(0, 9))}),
        )
        for share in shares
    ]
    low = {share.name: share.min for share in shares}
    return budget, shares, {name: used(shares, low, name) + draw(st.integers(0, 300)) for name in RESOURCES}


@given(priced(), st.sampled_from(["hold", "fill"]))
def test_it_is_the_definition_with_other_resources_too(problem: Priced, tail: str) -> None:
    budget, shares, capacity = problem

    found = balance(budget, shares, tail=tail, capacity=capacity)  # type: ignore[arg-type]

    assert (found.slots, set(found.stopped)) == one_by_one(budget, shares, tail, capacity)


@given(priced(units=(1,)))
def test_no_resource_is_overdrawn_and_nothing_that_fits_is_left(problem: Priced) -> None:
    budget, shares, capacity = problem
    found = balance(budget, shares, capacity=capacity)

    assert all(used(shares, found.slots, name) <= there for name, there in capacity.items())
    for share in shares if found.left else ():
        more = {**found.slots, share.name: found.slots[share.name] + 1}
        full = share.max is not None and more[share.name] > share.max
        assert full or any(used(shares, more, name) > there for name, there in capacity.items())


@given(priced(), st.integers(1, 10))
def test_more_slots_take_from_no_one_whatever_the_other_resources(problem: Priced, more: int) -> None:
    budget, shares, capacity = problem
    before = balance(budget, shares, capacity=capacity).slots
    after = balance(budget + more, shares, capacity=capacity).slots

    assert all(after[name] >= before[name] for name in before)


@given(priced(), st.data())
def test_a_refusal_says_what_is_missing_and_what_helps(problem: Priced, data: st.DataObject) -> None:
    _, shares, capacity = problem
    need, floor = floors(shares), used(shares, {share.name: share.min for share in shares}, "cores")
    assume(need and floor)
    slots, cores = data.draw(st.integers(1, need)), data.draw(st.integers(1, floor))

    with pytest.raises(Refused) as refused:
        balance(need - slots, shares, capacity={**capacity, "cores": floor - cores})

    assert f"{need - slots} are there: {slots} short" in refused.value.message
    assert f"need {floor} cores and {floor - cores} are there: {cores} short" in refused.value.message
    assert refused.value.hint.startswith(f"raise the budget by {slots} and cores by {cores}, lower a min")
    balance(need, shares, capacity={**capacity, "cores": floor})


@given(priced(), st.data())
def test_a_removed_group_only_gives(problem: Priced, data: st.DataObject) -> None:
    budget, shares, _ = problem
    gone = data.draw(st.sampled_from(shares))
    before = balance(budget, shares).slots
    after = balance(budget, [share for share in shares if share is not gone]).slots

    assert all(after[name] >= before[name] for name in after)
