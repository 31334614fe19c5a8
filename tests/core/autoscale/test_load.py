"""What counters tell: how long the oldest task has waited, and which steps back are none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.autoscale.load import CounterHistory, Reading, estimated_age_seconds
from fleet.core.decode import decoded

TICK_SECONDS = 2.0
WINDOW_SECONDS = 60.0


def history(*arrivals: int, done: int = 0, blur: int = 0) -> CounterHistory:
    """One reading every two seconds. ``done``: completions at each of them."""
    found = CounterHistory()
    for number, count in enumerate(arrivals):
        found = then(found, TICK_SECONDS * number, count, done, blur=blur)
    return found


def then(before: CounterHistory, at: float, arrivals: int, done: int = 0, *, blur: int = 0) -> CounterHistory:
    return before.then(Reading(at, arrivals, done, done / 2), window_seconds=WINDOW_SECONDS, blur=blur)


# the age of the oldest task


def test_the_oldest_of_all_that_ever_came_came_first() -> None:
    assert estimated_age_seconds(history(0, 10, 20, 30), 30) == 6.0


def test_between_two_looks_tasks_are_taken_to_have_come_evenly() -> None:
    assert estimated_age_seconds(history(0, 10, 20, 30), 20) == 4.0
    assert estimated_age_seconds(history(0, 10, 20, 30), 15) == 3.0


def test_while_nothing_came_the_oldest_grew_older() -> None:
    assert estimated_age_seconds(history(0, 10, 10, 10, 10), 5) == pytest.approx(7.0)


def test_nothing_that_waits_has_no_age() -> None:
    assert estimated_age_seconds(history(0, 10), 0) is None


def test_nobody_knows_how_old_a_task_is_that_came_before_the_first_look() -> None:
    assert estimated_age_seconds(history(50, 60), 20) is None
    assert estimated_age_seconds(CounterHistory(), 20) is None


def test_a_wait_of_many_minutes_is_known_to_ten_seconds() -> None:
    found = CounterHistory()
    for number in range(250):
        found = then(found, TICK_SECONDS * number, number)
    age = estimated_age_seconds(found, 200)

    assert age == pytest.approx(400.0, abs=10.0)


@given(st.lists(st.floats(0.5, 50.0), min_size=1, max_size=60), st.integers(1, 60), st.integers(1, 25))
def test_of_tasks_taken_in_order_it_is_right_to_one_look(came: list[float], queue: int, looks: int) -> None:
    """``came``: when each task came. At the last look the newest ``queue`` of them wait."""
    now = TICK_SECONDS * looks
    there = sorted(moment for moment in came if moment <= now)
    queue = min(queue, len(there))
    counts = [sum(moment <= TICK_SECONDS * number for moment in there) for number in range(looks + 1)]
    age = estimated_age_seconds(history(*counts), queue)

    if not queue:
        assert age is None
    else:
        assert age == pytest.approx(now - there[-queue], abs=TICK_SECONDS + 1e-6)


# steps back


def test_a_task_seen_in_the_queue_and_then_in_a_slot_came_once() -> None:
    """Queue and slots are looked at one after the other: twelve came, and two of them were counted twice."""
    found = history(10, 14, 12, blur=4)

    assert [reading.arrivals for reading in found.recent] == [10, 14, 14]
    assert not found.just_came


def test_what_was_done_meanwhile_may_have_been_seen_twice_as_well() -> None:
    found = then(history(10, 30, done=5, blur=4), 4.0, 20, 11, blur=4)

    assert [reading.arrivals for reading in found.recent] == [10, 30, 30]


@pytest.mark.parametrize(("arrivals", "done"), [(5, 0), (14, 0)])
def test_counters_that_went_back_further_belong_to_another_source(arrivals: int, done: int) -> None:
    before = history(10, 14, done=3, blur=4)
    found = then(before, 4.0, arrivals, done, blur=4)

    assert [reading.arrivals for reading in found.recent] == [arrivals]
    assert found.sparse == found.recent


def test_without_slots_nothing_is_seen_twice() -> None:
    assert len(history(10, 14, 13).recent) == 1


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20), st.integers(0, 8)), min_size=1, max_size=40),
    st.integers(0, 8),
)
def test_tasks_seen_twice_neither_end_a_track_nor_grow_into_many(looks: list[tuple[int, int, int]], slots: int) -> None:
    """Each look: how many came, how many of those that were there were done, how many were seen twice."""
    found, came, done = CounterHistory(), 0, 0
    for number, (more, ended, twice) in enumerate(looks):
        came += more
        done = min(came, done + ended)
        found = then(found, TICK_SECONDS * number, came + min(twice, slots), done, blur=slots)

    assert found.recent[0].at == max(0.0, TICK_SECONDS * (len(looks) - 1) - WINDOW_SECONDS)
    assert came <= found.recent[-1].arrivals <= came + slots


def test_a_track_survives_a_controller_that_was_killed() -> None:
    found = history(0, 10, 20)

    assert decoded(CounterHistory, found.to_json()) == found
