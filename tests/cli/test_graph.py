"""Pictures in text: revisions, and slots as bars."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fleet.cli.graph import Node, revision_graph, slots_picture


def graph(*same: str) -> list[str]:
    nodes = [Node(number, "good", one, "-") for number, one in enumerate(same, 1)]
    return revision_graph(nodes, colour=False).splitlines()


def test_a_line_of_revisions_has_no_arrows() -> None:
    assert graph("a", "b", "c") == ["○   3  good       -", "○   2  good       -", "○   1  good       -"]


def test_outcomes_are_told_apart_without_colour() -> None:
    nodes = [Node(number, outcome, "a", "-") for number, outcome in enumerate(("good", "failed", ""), 1)]
    nodes.append(Node(4, "good", "a", "-", current=True))
    assert [line[0] for line in revision_graph(nodes, colour=False).splitlines()] == ["●", "·", "✗", "○"]


def test_going_back_is_an_arrow_to_what_it_is_again() -> None:
    assert graph("a", "b", "a") == ["○   3  good       - ─╮", "○   2  good       -  │", "○   1  good       - ◀╯"]


def test_applying_the_same_again_is_no_way_back() -> None:
    assert graph("a", "a") == ["○   2  good       -", "○   1  good       -"]


def test_an_arrow_inside_another_one_stays_apart() -> None:
    assert [line[20:] for line in graph("a", "b", "c", "b", "a")] == ["───╮", "─╮ │", " │ │", "◀╯ │", "──◀╯"]


def row(name: str, has: int, needs: int | None = None, wants: int | None = None) -> dict[str, Any]:
    return {"name": name, "has": has, "needs": needs, "wants": wants}


def test_who_has_who_needs_and_who_waits() -> None:
    rows = [row("thumbs", 4, 1, 1), row("mails", 2, 2, 8)]
    lines = slots_picture(rows, budget=8, width=80, colour=False).splitlines()
    bars = [(line.count("█"), line.count("▒"), line.count("░")) for line in lines[:3]]
    room = sum(bars[1])

    def cells(count: int) -> int:
        return round(count * room / 8)

    assert bars == [(cells(1), cells(4) - cells(1), 0), (cells(2), 0, room - cells(2)), (cells(6), 0, room - cells(6))]
    assert lines[0].endswith("has 4, needs 1, wants 1")
    assert lines[2].endswith("6 of 8")


def test_no_groups_are_said() -> None:
    assert slots_picture([], budget=None, width=80, colour=False) == "no group has slots to show"


numbers = st.integers(0, 10_000)


@given(st.lists(st.tuples(numbers, st.none() | numbers, st.none() | numbers), min_size=1), st.none() | numbers)
def test_any_numbers_fit_the_screen(given_rows: list[tuple[int, int | None, int | None]], budget: int | None) -> None:
    rows = [row(f"g{at}", *one) for at, one in enumerate(given_rows)]
    lines = slots_picture(rows, budget=budget, width=100, colour=False).splitlines()
    assert all(len(line) <= 100 for line in lines)
    for line, (has, *_) in zip(lines, given_rows, strict=False):
        assert ("█" in line or "▒" in line) == (has > 0)
