"""Pictures in text: the revisions as a graph, and who has, needs and waits for slots as bars. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.cli.output import group_colour, painted

_LEAST_BAR = 10
_HAS, _SPARE, _WAITS = "█", "▒", "░"
_MARKS = {"good": ("○", "good"), "failed": ("✗", "bad"), "": ("·", "wait")}


@dataclass(frozen=True, slots=True)
class Node:
    """One revision. same: digest of its manifest; equal ones are the same manifest.  words: what stands beside it."""

    number: int
    outcome: str
    same: str
    words: str
    current: bool = False


def revision_graph(nodes: Sequence[Node], *, colour: bool) -> str:
    """The newest first. An arrow leads from a revision that is an earlier manifest again to the last that was it."""
    newest_first = sorted(nodes, key=lambda node: -node.number)
    returns = _returns(newest_first)
    words = [f"{node.number:>4}  {node.outcome or 'not ended':<9}  {node.words}" for node in newest_first]
    width = max(map(len, words), default=0)
    lines = []
    for row, (node, text) in enumerate(zip(newest_first, words, strict=True)):
        mark, style = ("●", "good") if node.current else _MARKS.get(node.outcome, _MARKS[""])
        lanes = "".join(_lane(row, one, returns) for one in range(len(returns)))
        plain = f"{text:<{width}} {lanes}".rstrip() if lanes.strip() else text.rstrip()
        lines.append(f"{painted(mark, style, colour=colour)}{plain}")
    return "\n".join(lines)


def _returns(nodes: Sequence[Node]) -> list[tuple[int, int]]:
    """(row of the return, row that it goes back to), the shortest first. Neighbours are no return."""
    found = []
    for row, node in enumerate(nodes):
        earlier = next((at for at in range(row + 1, len(nodes)) if nodes[at].same == node.same), None)
        if earlier is not None and earlier > row + 1:
            found.append((row, earlier))
    return sorted(found, key=lambda pair: pair[1] - pair[0])


def _lane(row: int, lane: int, returns: Sequence[tuple[int, int]]) -> str:
    """Two columns of one arrow in one row. Where an outer arrow's ends cross this lane, it passes through."""
    start, end = returns[lane]
    crossed = any(row in pair for pair in returns[lane + 1 :])
    if row == start:
        return "─╮"
    if row == end:
        return "◀╯"
    if start < row < end:
        return "─┼" if crossed else " │"
    return "──" if crossed else "  "


def slots_picture(rows: Sequence[Mapping[str, Any]], *, budget: int | None, width: int, colour: bool) -> str:
    """A bar per group. rows: name, has, needs and wants (None: not known), and why.

    Of what a group has, what it does not need is lighter; what it wants and has not is lighter still.
    """
    if not rows:
        return "no group has slots to show"
    has = sum(row["has"] for row in rows)
    total = [("budget", f"{has} of {budget}")] if budget is not None else []
    numbers = [_numbers(row) for row in rows]
    names = max(len(name) for name in (*(str(row["name"]) for row in rows), *(name for name, _ in total)))
    beside = names + max(len(text) for text in (*numbers, *(text for _, text in total))) + 4
    known = [max(row["has"], row["wants"] or 0) for row in rows]
    most = max(1, *known, *((budget, has) if budget is not None else ()))
    room = max(_LEAST_BAR, width - beside)
    lines = list(_bars(rows, numbers, names=names, most=most, room=room, colour=colour))
    for name, text in total:
        bar = _bar(has, has, budget or 0, most=most, room=room)
        lines.append(f"{name:<{names}}  {bar:<{room}}  {text}")
    needs_known = any(row["needs"] is not None for row in rows)
    legend = f"{_HAS} has" + (f" and needs  {_SPARE} has to spare  {_WAITS} wants and has not" if needs_known else "")
    return "\n".join([*lines, "", painted(legend, "dim", colour=colour)])


def _bars(
    rows: Sequence[Mapping[str, Any]], numbers: Sequence[str], *, names: int, most: int, room: int, colour: bool
) -> Iterator[str]:
    for row, text in zip(rows, numbers, strict=True):
        needs = row["has"] if row["needs"] is None else min(row["has"], row["needs"])
        bar = _bar(needs, row["has"], row["wants"] or 0, most=most, room=room)
        style = group_colour(str(row["name"]))
        yield f"{row['name']:<{names}}  {painted(f'{bar:<{room}}', style, colour=colour)}  {text}"


def _bar(needs: int, has: int, wants: int, *, most: int, room: int) -> str:
    """Each part to the same scale: ends are rounded, so parts add up. What is more than nothing is seen."""
    ends = [round(count * room / most) or int(count > 0) for count in (needs, has, max(has, wants))]
    return _HAS * ends[0] + _SPARE * max(0, ends[1] - ends[0]) + _WAITS * max(0, ends[2] - max(ends[:2]))


def _numbers(row: Mapping[str, Any]) -> str:
    if row["needs"] is None:
        return str(row["has"])
    return f"has {row['has']}, needs {row['needs']}, wants {row['wants']}"
