"""Groups on their way, through the command line: replicas in memory on one side, a stand-in of a cluster on the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet.operate.migrate.effects import Effects
from tests.operate.migrate.conftest import CLUSTER, Desk

EFFECTS = ("keep", "forget", "tell", "forget_there", "there", "here")


def around(monkeypatch: pytest.MonkeyPatch, called: Callable[[str, bool], None]) -> None:
    """Have something called before and after every effect; told which, and whether it is over."""
    for name in EFFECTS:
        plain = getattr(Effects, name)

        def wrapped(self: Effects, *args: Any, _plain: Any = plain, _name: str = name, **more: Any) -> Any:
            called(_name, False)
            result = _plain(self, *args, **more)
            called(_name, True)
            return result

        monkeypatch.setattr(Effects, name, wrapped)


def test_every_group_moves_there_and_back_within_the_budget(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[dict[str, int]] = []

    def check(_effect: str, _is_over: bool) -> None:
        assert desk.slots_here() + desk.slots_there() <= 13
        here, there = desk.here(), desk.there()
        served.append({name: here.get(name, 0) + there.get(name, 0) for name in ("mail", "thumbs")})

    around(monkeypatch, check)
    for group in ("clock", "thumbs", "mail"):
        assert f"{group} lives in namespace shop" in desk.step().err
    assert (desk.here(), desk.there()) == ({}, {"clock": 1, "thumbs": 5, "mail": 2})
    assert desk.kept()["is_complete"]
    assert desk.kept_there() is None, "the whole manifest is the cluster's"
    assert "no group is left to move" in desk.step().err

    for group in ("mail", "thumbs", "clock"):
        assert f"{group} lives on this host" in desk.step("--back").err
    assert (desk.here(), desk.there()) == ({"clock": 1, "thumbs": 5, "mail": 2}, {})
    assert (desk.kept(), desk.kept_there()) == (None, None)
    assert desk.api.names("deployments") == desk.api.names("serviceaccounts") == []
    assert all(all(one.values()) for one in served), "both groups served all the time"


def test_the_plan_says_what_each_step_starts_and_stops_and_changes_nothing(desk: Desk) -> None:
    said = desk.migrate("plan").out
    assert "fleet shop moves to namespace shop of context here, within 13 slots" in said
    assert "two of beat would send every task twice" in said
    assert "drain 2 replicas on the host" in said
    assert "slots: 2 there + 3 here = 5 of 5" in said
    moves = desk.migrate("plan -o json mail").json["moves"]
    assert [one["group"] for one in moves] == ["mail"]
    assert moves[0]["steps"][-1] == {"pods": 2, "slotsThere": 8, "slotsHere": 0}
    assert desk.step("--dry-run mail -o json").json["moves"] == moves
    assert desk.kept() is None
    assert desk.api.names("configmaps") == []


def test_with_room_for_both_a_group_starts_there_whole_before_anything_drains_here(desk: Desk) -> None:
    desk.write(budget=30)
    desk.fleet("apply prod.yaml --yes")
    steps = desk.migrate("plan -o json mail").json["moves"][0]["steps"]
    assert [(one["pods"], one["slotsHere"]) for one in steps] == [(0, 8), (2, 8), (2, 0)]


def test_a_named_group_moves_alone_and_status_says_which_side_each_is_on(desk: Desk) -> None:
    desk.step("mail")
    found = desk.fleet("migrate status -o json").json
    assert {name: one["lives"] for name, one in found["groups"].items()} == {
        "clock": "host",
        "mail": "cluster",
        "thumbs": "host",
    }
    assert found["groups"]["mail"]["pods"] == {"desired": 2, "ready": 2}
    assert "slots: 5 here + 8 in the cluster = 13 of 13" in desk.fleet("migrate status").out
    assert "there is no group 'maill'" in desk.step("maill", code=64).err


# --- a crash


class Crash(BaseException):
    """The process ends, and cleans nothing up."""


def crash_at(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End at this point, counted before and after each effect."""
    left = [number]

    def count(_effect: str, _is_over: bool) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    around(monkeypatch, count)


@pytest.mark.parametrize("back", [False, True], ids=["there", "back"])
def test_a_crash_between_any_two_effects_breaks_nothing_and_the_next_step_goes_on(desk: Desk, back: bool) -> None:
    desk.write(budget=10, thumbs=2)
    desk.fleet("apply prod.yaml --yes")
    desk.step("thumbs")
    flag, other = ("--back", "") if back else ("", "--back")
    if not back:
        desk.step("--back thumbs")
    number = 0
    while True:
        number += 1
        with pytest.MonkeyPatch.context() as patch:
            crash_at(patch, number)
            try:
                desk.step(f"{flag} thumbs")
            except Crash:
                pass
            else:
                break
        assert desk.slots_here() + desk.slots_there() <= 10, number
        both = desk.here().get("thumbs", 0) + desk.there().get("thumbs", 0)
        assert both > 0, f"it serves, whatever ended: {number}"
        desk.fleet("apply prod.yaml --yes")
        if desk.kept_there() is not None:
            desk.fleet("apply prod.yaml cluster.yaml --yes")
        assert desk.slots_here() + desk.slots_there() <= 10, f"an apply on either side undoes nothing: {number}"
        desk.step(f"{flag} thumbs")
        assert desk.here().get("thumbs", 0) == (2 if back else 0)
        assert desk.there().get("thumbs", 0) == (0 if back else 2)
        desk.step(f"{other} thumbs")
    assert number > 15
