"""fleet explain: why each group has its number, who is next and who gives first."""

from __future__ import annotations

from tests.cli.conftest import Desk
from tests.cli.test_simulate import MANIFEST


def test_it_tells_who_is_next_and_who_gives_first(desk: Desk) -> None:
    desk.manifest.write_text(MANIFEST)

    said = desk.fleet("explain").out

    assert "budget 20, allocated 20, left 0; one slot more would go to thumbs, and mail gives first\n" in said
    assert "mail 6 in 11 slots (prefork and solo use more)" in said


def test_the_document_holds_the_division(desk: Desk) -> None:
    desk.manifest.write_text(MANIFEST)

    found = desk.fleet("explain", "-o", "json").json

    assert (found["left"], found["nextInLine"], found["givesFirst"]) == (0, "thumbs", "mail")
    assert found["groups"]["thumbs"] == {
        "slots": 5,
        "replicas": 5,
        "concurrency": 1,
        "reason": "weight 1 of 3 in the 16 slots shared by weight; next slot goes here",
        "cpuParallelism": 5,
        "weight": 1.0,
        "min": 1,
        "max": 16,
        "ideal": 5.33,
    }
    assert "weight" not in found["groups"]["reports"]


def test_what_is_named_next_in_line_is_what_one_more_slot_changes(desk: Desk) -> None:
    desk.manifest.write_text(MANIFEST)
    before = desk.fleet("explain", "-o", "json").json
    desk.manifest.write_text(MANIFEST.replace("concurrency: 20", "concurrency: 21"))
    after = desk.fleet("explain", "-o", "json").json

    slots = {name: (before["groups"][name]["slots"], group["slots"]) for name, group in after["groups"].items()}
    assert [name for name, (old, new) in slots.items() if old != new] == [before["nextInLine"]]


def test_without_shares_there_is_nobody_in_line(desk: Desk) -> None:
    assert "nextInLine" not in desk.fleet("explain", "-o", "json").json
