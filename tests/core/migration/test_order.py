"""Which group moves next, what stands in its way, and how a plan is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fleet.core.migration.order import GroupFacts, arrived, begun, document, planned, text
from fleet.core.migration.positions import Size
from fleet.core.migration.state import CLUSTER, HOST, GroupState, Migration, Side, from_json, to_json

NEW = Migration("shop", "prod", "workers", "box", 1.0, "ann")


def size(pods: int, unit: int, *, here: int | None = None, **more: object) -> Size:
    slots = pods * unit
    own = slots if here is None else here
    return replace(Size(pods, unit, unit, own, unit or 1, bool(unit), own, slots), **more)  # type: ignore[arg-type]


MAIL, THUMBS = GroupFacts("mail", size(2, 4)), GroupFacts("thumbs", size(3, 1))
SETUP = GroupFacts("setup", replace(size(1, 0), here=1, part_here=0, stops_first="a job runs once"))
WEB = GroupFacts("web", size(1, 1), after=("setup",))
ALL = [MAIL, THUMBS, SETUP, WEB]


def names(facts: list[GroupFacts], migration: Migration, to: Side, budget: int | None = None) -> list[str]:
    return [move.group for move in planned(facts, migration, to=to, budget=budget).moves]


def test_the_smallest_go_first_each_after_what_it_waits_for_and_back_the_other_way() -> None:
    assert names(ALL, NEW, CLUSTER) == ["setup", "web", "thumbs", "mail"]
    there = replace(NEW, groups={one.name: arrived(one.size) for one in ALL})
    assert names(ALL, there, CLUSTER) == []
    assert names(ALL, there, HOST) == ["mail", "thumbs", "web", "setup"]


def test_what_is_on_its_way_comes_first_in_either_direction() -> None:
    on_its_way = NEW.with_group("mail", replace(begun(MAIL.size), pods=1))
    assert names(ALL, on_its_way, CLUSTER)[0] == "mail"
    both = on_its_way.with_group("thumbs", arrived(THUMBS.size))
    assert names(ALL, both, HOST) == ["mail", "thumbs"]


@pytest.mark.parametrize(
    ("facts", "migration", "to", "budget", "refused"),
    [
        ([MAIL, THUMBS], NEW, CLUSTER, 11, ""),
        ([WEB, SETUP], NEW, CLUSTER, None, "its pods wait for setup, which is on the host: move that one first"),
        (
            [replace(MAIL, size=replace(MAIL.size, pods=3)), THUMBS],
            NEW,
            CLUSTER,
            11,
            "it takes 12 slots in the cluster, and the other groups leave 8 of 11",
        ),
        (
            [replace(MAIL, size=replace(MAIL.size, here=12, part_here=12)), THUMBS],
            NEW.with_group("mail", arrived(MAIL.size)),
            HOST,
            11,
            "it takes 12 slots on the host, and the other groups leave 8 of 11",
        ),
        ([replace(MAIL, refused="the queues differ")], NEW, CLUSTER, None, "the queues differ"),
    ],
)
def test_what_cannot_move_says_why(
    facts: list[GroupFacts], migration: Migration, to: Side, budget: int | None, refused: str
) -> None:
    name = facts[0].name
    moves = planned(facts, migration, to=to, budget=budget, named={name}).moves
    assert [(move.group, move.refused) for move in moves] == [(name, refused)]


def test_slots_that_a_forgotten_group_has_in_the_cluster_are_not_given_twice() -> None:
    gone = NEW.with_group("old", GroupState(1, 4, 4, 0, 4))
    [move] = planned([MAIL], gone, to=CLUSTER, budget=11).moves
    assert move.refused == "it takes 8 slots in the cluster, and the other groups leave 7 of 11"
    assert not planned([MAIL], gone, to=CLUSTER, budget=12).moves[0].refused


def test_the_host_leaves_its_other_groups_what_they_had_at_every_moment() -> None:
    state = begun(MAIL.size)
    for pods, here in [(0, 8), (0, 4), (1, 4), (1, 0), (2, 0)]:
        now = replace(state, pods=pods, here=here)
        assert now.there + now.taken_here == 8
    assert replace(state, pods=2, here=8).there == 8, "room for both is taken off the budget"


def test_a_plan_reads_well() -> None:
    shown = text(planned([MAIL, THUMBS], NEW, to=CLUSTER, budget=14))
    assert shown.splitlines()[:5] == [
        "fleet shop moves to namespace workers of context prod, within 14 slots",
        "",
        "1. thumbs",
        "   start 3 pods in the cluster                 slots: 3 there + 3 here = 6 of 6",
        "   drain 3 replicas on the host                slots: 3 there + 0 here = 3 of 6",
    ]
    assert text(planned([], NEW, to=HOST, budget=None)) == (
        "fleet shop: no group is left to move from namespace workers of context prod back to this host\n"
    )
    made = document(planned([MAIL], NEW, to=CLUSTER, budget=None))
    assert made["moves"][0]["steps"][-1] == {"pods": 2, "slotsThere": 8, "slotsHere": 0}


def test_a_group_with_one_replica_and_no_room_says_that_it_stops_first() -> None:
    one = GroupFacts("mail", size(1, 8))
    assert "both do not fit into 8 slots" in text(planned([one], NEW, to=CLUSTER, budget=8))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"format": 2},
        {**to_json(NEW), "groups": 7},
        {**to_json(NEW), "groups": {"mail": {"pods": -1, "unit": 1, "concurrency": 1, "here": 0, "part": 0}}},
        {**to_json(NEW), "groups": {"mail": {"pods": "2", "unit": 1, "concurrency": 1, "here": 0, "part": 0}}},
    ],
)
def test_a_document_of_another_shape_is_refused(document: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        from_json(document)
