"""What each key does to what top shows. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Page = Literal["table", "logs", "stacks", "help"]

ORDERS = ("age", "name", "cpu", "memory", "rate", "done", "failed", "uptime")
"""age: of the task that has run longest."""

HELP = (
    "q          quit",
    "up, down   choose a row; also k and j, PageUp and PageDown, Home and End",
    "space      fold or unfold the group of that row",
    "o          another order: " + ", ".join(ORDERS),
    "r          the other way round",
    "t          a tree of groups, or all replicas in one list",
    "/          only rows with this in name, state or task; Escape clears it",
    "l          logs of the chosen group or replica",
    "s          stacks of the chosen replica: what each of its threads does now",
    "p          stand still, go on",
    "h, ?       this page; any key leaves it",
)


@dataclass(frozen=True, slots=True)
class TopState:
    """What is shown. selected: name of a group or replica, '' for the first row.  typing: the filter is being typed.

    folded: groups whose replicas are hidden.  scroll: lines that a page of text is moved up.
    """

    order: str = ORDERS[0]
    is_reversed: bool = False
    is_tree: bool = True
    filter: str = ""
    typing: bool = False
    selected: str = ""
    folded: frozenset[str] = frozenset()
    page: Page = "table"
    scroll: int = 0
    paused: bool = False


def pressed(state: TopState, key: str, *, rows: Sequence[str], group: str, page_rows: int) -> TopState | None:
    """The state after a key; None: leave.

    rows: names of the rows as they are shown.  group: of the chosen row.  page_rows: how many fit on the screen.
    """
    if state.typing:
        return _typed(state, key)
    if state.page != "table":
        return _in_text(state, key, page_rows)
    if key == "q":
        return None
    if key in _MOVES:
        return _moved(state, key, rows, page_rows)
    if key == " ":
        return replace(state, folded=state.folded ^ {group}) if group and state.is_tree else state
    return _KEYS[key](state) if key in _KEYS else state


_MOVES = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": 0, "pagedown": 0, "home": 0, "end": 0}

_KEYS = {
    "o": lambda state: replace(state, order=ORDERS[(ORDERS.index(state.order) + 1) % len(ORDERS)]),
    "r": lambda state: replace(state, is_reversed=not state.is_reversed),
    "t": lambda state: replace(state, is_tree=not state.is_tree),
    "/": lambda state: replace(state, typing=True),
    "escape": lambda state: replace(state, filter=""),
    "l": lambda state: replace(state, page="logs", scroll=0),
    "s": lambda state: replace(state, page="stacks", scroll=0),
    "p": lambda state: replace(state, paused=not state.paused),
    "h": lambda state: replace(state, page="help", scroll=0),
    "?": lambda state: replace(state, page="help", scroll=0),
}


def _typed(state: TopState, key: str) -> TopState:
    if key == "enter":
        return replace(state, typing=False)
    if key == "escape":
        return replace(state, typing=False, filter="")
    if key == "backspace":
        return replace(state, filter=state.filter[:-1])
    return replace(state, filter=state.filter + key) if len(key) == 1 and key.isprintable() else state


def _in_text(state: TopState, key: str, page_rows: int) -> TopState:
    steps = {"up": 1, "k": 1, "down": -1, "j": -1, "pageup": page_rows, "pagedown": -page_rows}
    if key in steps and state.page != "help":
        return replace(state, scroll=max(0, state.scroll + steps[key]))
    if key == "p":
        return replace(state, paused=not state.paused)
    return replace(state, page="table", scroll=0) if state.page == "help" or key in ("q", "escape") else state


def _moved(state: TopState, key: str, rows: Sequence[str], page_rows: int) -> TopState:
    if not rows:
        return state
    steps = {**_MOVES, "pageup": -page_rows, "pagedown": page_rows, "home": -len(rows), "end": len(rows)}
    at = rows.index(state.selected) if state.selected in rows else 0
    return replace(state, selected=rows[min(len(rows) - 1, max(0, at + steps[key]))])
