"""A budget of slots divided by weight: what the words, refusals and bounds say."""

from __future__ import annotations

import pytest

from fleet.core.balance.costs import Prices
from fleet.core.balance.divide import balance, exact_budgets, shape
from fleet.core.balance.shares import Share
from fleet.errors import Refused


def test_the_budget_is_divided_by_weight_between_bounds() -> None:
    shares = [
        Share("etl", weight=3, min=2, max=7),
        Share("export", min=6, max=32),
        Share("mail", weight=3, min=2),
        Share("reports", weight=2, min=4, max=4),
        Share("thumbs", weight=2, max=5),
    ]

    found = balance(40, shares)

    assert found.slots == {"etl": 7, "export": 6, "mail": 18, "reports": 4, "thumbs": 5}
    assert found.left == 0
    assert found.reasons == {
        "etl": "capped at max 7; its share went to the others",
        "export": "weight 1 of 4 in the 24 slots shared by weight",
        "mail": "weight 3 of 4 in the 24 slots shared by weight; next slot goes here;"
        " gives first if the budget shrinks",
        "reports": "min = max = 4",
        "thumbs": "capped at max 5; its share went to the others",
    }


def test_a_floor_above_the_share_is_named() -> None:
    found = balance(12, [Share("a", weight=9), Share("b", min=4)])

    assert found.slots == {"a": 8, "b": 4}
    assert found.reasons["b"] == "raised to min 4; its share alone is 1.2"


def test_largest_remainder_would_take_a_slot_away_here() -> None:
    shares = [Share("a", weight=6, min=0), Share("b", weight=6, min=0), Share("c", weight=2, min=0)]

    assert balance(10, shares).slots["c"] <= balance(11, shares).slots["c"]


def test_lower_tiers_are_filled_first() -> None:
    shares = [Share("a", weight=9, tier=1), Share("b", max=5, tier=0)]

    assert balance(8, shares).slots == {"a": 3, "b": 5}


def test_a_rigid_unit_is_held_back_or_filled_up_with_others() -> None:
    shares = [Share("pods", weight=9, min=0, unit=4), Share("solo", min=0)]

    hold, fill = balance(7, shares), balance(7, shares, tail="fill")

    assert (hold.slots, hold.left, hold.next_in_line) == ({"pods": 4, "solo": 1}, 2, "pods")
    assert (fill.slots, fill.left) == ({"pods": 4, "solo": 3}, 0)
    assert exact_budgets(7, shares) == (5, 9)


@pytest.mark.parametrize(
    ("shares", "budget", "text"),
    [
        ([Share("a", min=5), Share("b", min=6)], 10, "minimums need 11 slots and 10 are there: 1 short (b 6, a 5)"),
        ([Share("a", min=5, max=3)], 10, "min 5 is above max 3"),
        ([Share("a", min=5, max=7, unit=8)], 10, "no multiple of its unit 8 lies between min 5 and max 7"),
        ([Share("a", weight=0)], 10, "weight and unit must be above 0"),
        ([Share("a"), Share("a")], 10, "appears twice"),
    ],
)
def test_refusals_say_what_is_wrong_and_by_how_much(shares: list[Share], budget: int, text: str) -> None:
    with pytest.raises(Refused, match="group") as refused:
        balance(budget, shares)

    assert text in refused.value.message


def test_fractional_weights_are_exact() -> None:
    assert balance(10, [Share("a", weight=0.1), Share("b", weight=0.3)]).slots == {"a": 3, "b": 7}


def test_a_shape_is_full_replicas_and_at_most_one_smaller() -> None:
    assert shape(0, 8) == ()
    assert shape(16, 8) == (8, 8)
    assert shape(19, 8) == (8, 8, 3)


def test_a_hundred_thousand_slots_over_a_thousand_groups() -> None:
    found = balance(100_000, [Share(f"g{number}", weight=number % 9 + 1) for number in range(1000)])

    assert sum(found.slots.values()) == 100_000


def test_a_group_stops_where_a_resource_is_used_up_and_the_others_have_its_share() -> None:
    memory = Prices(replica={"memory": 100}, slot={"memory": 50})
    shares = [Share("etl", weight=3, slots_per_replica=4, prices=memory), Share("mail")]

    found = balance(40, shares, capacity={"memory": 650})

    assert found.slots == {"etl": 8, "mail": 32}
    assert found.stopped == {"etl": "memory"}
    assert found.reasons["etl"] == "no memory left; its share went to the others"
    assert found.next_in_line == "mail"


def test_a_replica_never_uses_more_than_its_most() -> None:
    """Slots under the GIL share one core: the third and the thirtieth cost nothing more."""
    threads = Prices(slot={"cores": 1}, most={"cores": 1})

    found = balance(30, [Share("mail", slots_per_replica=10, prices=threads)], capacity={"cores": 2})

    assert found.slots == {"mail": 20}


def test_every_sum_that_does_not_add_up_is_told_at_once() -> None:
    dear = Prices(replica={"memory": 300}, slot={"postgres": 2})
    shares = [Share("a", min=4, slots_per_replica=2, prices=dear), Share("b")]

    with pytest.raises(Refused) as refused:
        balance(3, shares, capacity={"memory": 500, "postgres": 100})

    assert refused.value.message == (
        "the groups' minimums need 5 slots and 3 are there: 2 short (a 4, b 1);"
        " the groups' minimums need 600 memory and 500 are there: 100 short (a 600)"
    )
    assert refused.value.hint.startswith("raise the budget by 2 and memory by 100, lower a min")
