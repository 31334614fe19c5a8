"""One group on its way: within its slots at every step, and serving all the time where both sides fit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.migration.positions import Position, Size, least_room, next_position, path, slots
from fleet.core.migration.state import CLUSTER, HOST, Side

MAIL = Size(pods=2, unit=4, concurrency=4, here=8, full=4, part_here=8, part_there=8)
ONCE = replace(MAIL, stops_first="rollout.strategy is recreate")
PROGRAM = Size(pods=1, unit=0, concurrency=1, here=1, full=1, counts=False)


def pairs(size: Size, *, to: Side, room: int | None, start: tuple[int, int]) -> list[tuple[int, int]]:
    return [(one.pods, one.here) for one in path(Position(*start), size, to=to, room=room)]


@pytest.mark.parametrize(
    ("size", "to", "room", "expected"),
    [
        (MAIL, CLUSTER, None, [(0, 8), (2, 8), (2, 0)]),
        (MAIL, CLUSTER, 16, [(0, 8), (2, 8), (2, 0)]),
        (MAIL, CLUSTER, 12, [(0, 8), (1, 8), (1, 4), (2, 4), (2, 0)]),
        (MAIL, CLUSTER, 8, [(0, 8), (0, 4), (1, 4), (1, 0), (2, 0)]),
        (replace(MAIL, pods=1, unit=8), CLUSTER, 8, [(0, 8), (0, 0), (1, 0)]),
        (ONCE, CLUSTER, None, [(0, 8), (0, 0), (2, 0)]),
        (PROGRAM, CLUSTER, 0, [(0, 1), (1, 1), (1, 0)]),
        (MAIL, HOST, None, [(2, 0), (2, 8), (0, 8)]),
        (MAIL, HOST, 8, [(2, 0), (1, 0), (1, 4), (0, 4), (0, 8)]),
        (ONCE, HOST, None, [(2, 0), (0, 0), (0, 8)]),
        (replace(MAIL, here=6), HOST, 8, [(2, 0), (1, 0), (1, 4), (0, 4), (0, 6)]),
        (replace(MAIL, pods=0), CLUSTER, 8, [(0, 8), (0, 0)]),
        (replace(MAIL, pods=1, here=6), CLUSTER, 6, [(0, 6), (0, 0), (1, 0)]),
        (replace(MAIL, pods=1, here=6, grain=1), CLUSTER, 6, [(0, 6), (0, 2), (1, 2), (1, 0)]),
        (replace(MAIL, pods=1, here=6, grain=1), HOST, 6, [(1, 0), (1, 2), (0, 2), (0, 6)]),
    ],
)
def test_what_a_group_starts_and_stops(size: Size, to: Side, room: int | None, expected: list[tuple[int, int]]) -> None:
    assert pairs(size, to=to, room=room, start=expected[0]) == expected


def test_a_large_group_makes_room_in_a_few_parts() -> None:
    size = Size(pods=40, unit=1, concurrency=1, here=40, full=1, part_here=40, part_there=40)
    found = pairs(size, to=CLUSTER, room=40, start=(0, 40))
    assert found == [(0, 40), (0, 30), (10, 30), (10, 20), (20, 20), (20, 10), (30, 10), (30, 0), (40, 0)]


def test_without_the_room_it_needs_there_is_no_way() -> None:
    with pytest.raises(ValueError, match="no room"):
        list(path(Position(0, 8), MAIL, to=CLUSTER, room=7))
    with pytest.raises(ValueError, match="no room"):
        list(path(Position(2, 0), MAIL, to=HOST, room=3))


@st.composite
def sizes(draw: st.DrawFn) -> Size:
    unit, pods = draw(st.integers(1, 6)), draw(st.integers(0, 9))
    full, here = draw(st.integers(1, 6)), draw(st.integers(0, 30))
    spare = draw(st.integers(0, 5))
    stops = draw(st.sampled_from(["", "a job runs once"]))
    grain = draw(st.sampled_from([None, 1]))
    part = pods * unit + spare
    return Size(pods, unit, unit, here, full, part_here=here, part_there=part, stops_first=stops, grain=grain)


@given(size=sizes(), to=st.sampled_from([CLUSTER, HOST]), more=st.integers(0, 40), data=st.data())
def test_every_way_ends_in_the_right_place_within_its_slots_one_side_at_a_time(
    size: Size, to: Side, more: int, data: st.DataObject
) -> None:
    room = max(least_room(size, to=CLUSTER), least_room(size, to=HOST)) + more
    way = list(path(Position(0, size.here), size, to=CLUSTER, room=room))
    turns = data.draw(st.integers(0, len(way) - 1), label="turns")
    way = [*way[: turns + 1], *list(path(way[turns], size, to=to, room=room))[1:]]
    assert way[-1] == (Position(size.pods, 0) if to == CLUSTER else Position(0, size.here))
    for before, after in pairwise(way):
        assert (before.pods == after.pods) != (before.here == after.here), "one side changes"
        assert slots(after, size) <= room
        if size.stops_first:
            assert not (after.pods and after.here)
    roomy = room >= size.here + size.pods * size.unit
    if roomy and size.pods and size.here and not size.stops_first:
        assert all(one.pods or one.here for one in way), "it serves all the time"


@given(size=sizes(), more=st.integers(0, 40))
def test_it_stops_serving_only_where_the_smallest_part_of_both_does_not_fit(size: Size, more: int) -> None:
    if not size.pods or not size.here or size.stops_first:
        return
    room = max(least_room(size, to=CLUSTER), size.here) + more
    way = list(path(Position(0, size.here), size, to=CLUSTER, room=room))
    smallest = min(size.step, size.here) + size.unit
    if room >= smallest:
        assert all(one.pods or one.here for one in way)


@given(size=sizes(), to=st.sampled_from([CLUSTER, HOST]), more=st.integers(0, 9))
def test_the_way_from_its_end_is_over(size: Size, to: Side, more: int) -> None:
    end = Position(size.pods, 0) if to == CLUSTER else Position(0, size.here)
    assert next_position(end, size, to=to, room=least_room(size, to=to) + more) is None
