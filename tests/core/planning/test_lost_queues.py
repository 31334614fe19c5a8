"""Queues that a plan leaves without anybody who takes from them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet.core.desired import Desired, DesiredGroup
from fleet.core.planning.lost_queues import lost_queues, warning
from fleet.core.spec import QueueSpec
from tests.worlds import fleet, group, planned, running


def taking(name: str, *queues: str, replicas: int = 1, **more: Any) -> DesiredGroup:
    made = group(name, *[1] * replicas, **more)
    return replace(made, spec=replace(made.spec, queues=tuple(map(QueueSpec, queues))))


BEFORE = (taking("a", "mail", "news"), taking("b", "mail"))
CASES: dict[str, tuple[Desired, bool, dict[str, tuple[str, ...]]]] = {
    "nothing changes": (fleet(*BEFORE), False, {}),
    "the last one leaves": (fleet(BEFORE[1]), True, {"news": ("a",)}),
    "it is not pruned": (fleet(BEFORE[1]), False, {}),
    "both are gone": (fleet(), True, {"mail": ("a", "b"), "news": ("a",)}),
    "another queue, in place": (fleet(taking("a", "mail"), BEFORE[1]), False, {"news": ("a",)}),
    "another queue, replaced": (fleet(taking("a", "mail", env={"A": "2"}), BEFORE[1]), False, {"news": ("a",)}),
    "taken over by another": (fleet(BEFORE[1], taking("c", "news")), True, {}),
    "to zero": (fleet(taking("a", "mail", "news", replicas=0), BEFORE[1]), False, {"news": ("a",)}),
    "the controller wakes it": (
        fleet(replace(taking("a", "mail", "news", replicas=0), scaling="autoscale"), BEFORE[1]),
        False,
        {},
    ),
    "paused, it does not": (
        fleet(replace(taking("a", "mail", "news", replicas=0), scaling="autoscale", paused=True), BEFORE[1]),
        False,
        {"news": ("a",)},
    ),
    "held by a person, who lets it go again": (fleet(*BEFORE, drained=frozenset({"a.0"})), False, {}),
    "its place is taken by what an app says": (fleet(BEFORE[1], taking("c")), True, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_queues_that_lose_their_last_consumer(case: str) -> None:
    desired, prune, lost = CASES[case]
    seen = running(*BEFORE)

    found = lost_queues(desired, planned(desired, seen, prune=prune), seen)

    assert {one.name: one.groups for one in found} == lost


def test_what_is_said_of_them() -> None:
    seen = running(*BEFORE)
    (news,) = lost_queues(fleet(BEFORE[1]), planned(fleet(BEFORE[1]), seen, prune=True), seen)

    assert warning(news, 0) == ""
    assert warning(news, 1) == "queue 'news' loses its last consumer (a) while 1 task waits in it"
    assert warning(news, 12) == "queue 'news' loses its last consumer (a) while 12 tasks wait in it"
    assert warning(news, None, "no answer") == (
        "queue 'news' loses its last consumer (a); the tasks that wait in it could not be counted: no answer"
    )
