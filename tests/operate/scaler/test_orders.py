"""Orders, their effect that comes later, and the pods that go first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.autoscale.sample import Sample
from fleet.operate.scaler.orders import (
    LAG_SECONDS,
    Order,
    PodLoad,
    as_ordered,
    changed,
    costs,
    is_noticed,
    ordered,
    reachable,
    victims,
)


@pytest.mark.parametrize(
    ("present", "wanted", "least", "elsewhere", "asked"),
    [
        (5, 6, 1, False, 6),
        (10, 11, 1, False, 10),  # a tenth more is not noticed
        (11, 10, 1, True, 9),
        (10, 12, 1, False, 12),
        (20, 19, 1, False, 20),
        (20, 19, 1, True, 17),  # somebody waits: as many as are noticed
        (20, 19, 18, True, 20),  # but never below the least
        (9, 8, 1, False, 8),
        (0, 3, 0, False, 3),
        (30, 0, 0, False, 0),
    ],
)
def test_what_the_cluster_takes_notice_of(present: int, wanted: int, least: int, elsewhere: bool, asked: int) -> None:
    assert reachable(present, wanted, least=least, is_wanted_elsewhere=elsewhere) == asked


@given(st.integers(0, 80), st.integers(0, 80), st.integers(0, 80), st.booleans())
def test_an_order_is_noticed_or_changes_nothing_and_never_takes_more_than_it_should(
    present: int, wanted: int, least: int, elsewhere: bool
) -> None:
    wanted = max(wanted, least)
    asked = reachable(present, wanted, least=least, is_wanted_elsewhere=elsewhere)
    assert asked == present or is_noticed(present, asked)
    assert asked <= max(present, wanted)
    assert asked >= min(present, least)


def test_slots_between_an_order_and_its_effect() -> None:
    there = Sample(queue=0, ready=4, starting=1)
    assert as_ordered(there, None, now=0.0) == there
    more = as_ordered(there, Order(8, 5), now=0.0)
    assert (more.ready, more.starting, more.draining) == (4, 4, 0)
    less = as_ordered(there, Order(2, 5), now=0.0)
    assert (less.ready, less.starting, less.draining) == (2, 0, 3), "those that do not work yet go first"
    assert as_ordered(there, Order(3, 3), now=0.0) == there, "nobody ordered them: they are not on their way out"


def test_a_larger_order_that_was_not_carried_out_may_still_come_for_a_while() -> None:
    first = ordered(8, there=2, before=None, now=0.0)
    second = ordered(3, there=2, before=first, now=2.0)
    there = Sample(queue=0, ready=2)
    for now in (2.0, 2.0 + LAG_SECONDS - 1):
        seen = as_ordered(there, second, now=now)
        assert (seen.has, seen.draining) == (3, 5)
    assert as_ordered(there, second, now=2.0 + LAG_SECONDS).draining == 0
    kept = ordered(3, there=2, before=second, now=5.0)
    assert (kept.unseen, kept.until) == (8, 2.0 + LAG_SECONDS), "the time is not put off"
    came = as_ordered(Sample(queue=0, ready=8), kept, now=6.0)
    assert (came.has, came.draining) == (3, 5), "they came after all, and go again"
    assert ordered(3, there=8, before=kept, now=6.0).unseen == 0
    assert ordered(9, there=2, before=kept, now=6.0).unseen == 0


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
    st.lists(st.integers(0, 12), min_size=12, max_size=12),
)
def test_slots_that_are_counted_are_never_fewer_than_may_be_there(orders: list[int], there: list[int]) -> None:
    """Whatever the cluster does about which order: what is there now, and what was ordered last, is counted."""
    before: Order | None = None
    for number, (slots, present) in enumerate(zip(orders, there, strict=False)):
        seen = as_ordered(Sample(queue=0, ready=present), before, now=float(number))
        assert min(seen.ready, seen.starting, seen.draining) >= 0
        assert seen.has + seen.draining >= max(present, 0 if before is None else before.slots)
        before = ordered(slots, there=present, before=before, now=float(number))


def test_the_idle_go_first_the_youngest_of_them_and_before_them_what_does_not_work() -> None:
    pods = [
        PodLoad("busy", True, 3, "2026-01-04"),
        PodLoad("old", True, 0, "2026-01-01"),
        PodLoad("young", True, 0, "2026-01-03"),
        PodLoad("broken", False, 0, "2026-01-01"),
    ]
    assert [victims(pods, keep) for keep in (4, 3, 2, 1, 0, 9)] == [
        [],
        ["broken"],
        ["broken", "young"],
        ["broken", "young", "old"],
        ["broken", "young", "old", "busy"],
        [],
    ]
    assert costs(pods, []) == {}
    assert costs(pods, ["young"]) == {"busy": 3, "old": 0, "young": -1, "broken": 0}


def test_a_cost_is_written_where_it_matters_and_not_with_every_task() -> None:
    wanted = {"a": 2, "b": 0, "c": -1, "d": 4, "e": -1}
    written = {"a": 7, "b": 1, "c": 0, "d": 4}
    assert changed(wanted, written) == {"b": 0, "c": -1, "e": -1}
