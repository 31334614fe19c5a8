"""What top measures, what its keys do, and that every screen fits, whatever a task is called."""

from __future__ import annotations

import re
from dataclasses import replace
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.cli.top.drawing import Screen, drawn, rows_of, sparkline
from fleet.cli.top.keys import HELP, ORDERS, TopState, pressed
from fleet.cli.top.measuring import KEPT, Measuring, Picture, Sight
from fleet.cli.top.terminal import keys_in
from fleet.core.observed import RunningTask, State
from fleet.core.status import Status, summarise
from fleet.replica.task_counters import BUCKETS, Histogram
from tests.worlds import but, fleet, group, running

WANTED = fleet(group("reports", 4), group("thumbs", 1, 1, 1))
SEEN = running(*WANTED.groups.values())
SCREEN = Screen(80, 24)


def status(**of_thumbs_1) -> Status:
    return summarise(WANTED, but(SEEN, "thumbs.1", **of_thumbs_1), revision=3)


def busy() -> Status:
    seen = but(
        SEEN, "thumbs.2", busy=1, processed=7, tasks=(RunningTask("1", "shop.thumb", 90.0),), memory_bytes=9 << 20
    )
    seen = but(seen, "thumbs.0", busy=1, failed=2, tasks=(RunningTask("2", "shop.zip", 3.0),), uptime_seconds=50.0)
    return summarise(WANTED, seen, revision=3)


def names(picture: Picture, **state) -> list[str]:
    return [row.name for row in rows_of(picture, TopState(**state))]


def waits(count: int, seconds: float) -> Histogram:
    return Histogram((count, *(0,) * len(BUCKETS)), seconds)


# --- what is measured


def test_rates_take_two_looks_and_a_restart_is_no_negative_rate() -> None:
    measuring = Measuring()
    assert measuring.take(Sight(status(processed=100), 0.0)).rates == {}
    after = measuring.take(Sight(status(processed=130, cpu_seconds=1.0), 2.0))
    assert (after.rates["thumbs.1"], after.rates["thumbs"], after.rates["reports"]) == (15, 15, 0)
    assert after.cpu["thumbs.1"] == 50
    restarted = measuring.take(Sight(status(processed=3), 3.0))
    assert (restarted.rates["thumbs.1"], restarted.cpu["thumbs.1"]) == (0, 0)
    assert restarted.done["thumbs"] == restarted.done[""] == (15, 0)


def test_waits_are_of_the_tasks_that_started_since() -> None:
    measuring = Measuring()
    measuring.take(Sight(status(), 0.0, {"thumbs": waits(100, 900.0)}))
    measuring.take(Sight(status(), 1.0, {"thumbs": waits(104, 902.0)}))
    found = measuring.take(Sight(status(), 2.0, {"thumbs": waits(104, 902.0)}))
    assert found.waits["thumbs"] == found.waits[""] == (0.5, None)


def test_the_history_is_bounded() -> None:
    measuring = Measuring()
    pictures = [measuring.take(Sight(status(processed=number), float(number))) for number in range(KEPT + 20)]
    assert len(pictures[-1].done["thumbs"]) == KEPT


# --- which rows


def test_groups_and_their_replicas_with_the_oldest_task_first() -> None:
    assert names(Picture(busy())) == [
        *("thumbs", "thumbs.2", "thumbs.0", "thumbs.1"),
        *("reports", "reports.0"),
    ]


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("age", "thumbs.2"),
        ("name", "reports.0"),
        ("cpu", "thumbs.1"),
        ("memory", "thumbs.2"),
        ("rate", "thumbs.1"),
        ("done", "thumbs.2"),
        ("failed", "thumbs.0"),
        ("uptime", "thumbs.0"),
    ],
)
def test_each_order_and_its_reverse(order: str, first: str) -> None:
    assert order in ORDERS
    picture = Picture(busy(), rates={"thumbs.1": 2.0}, cpu={"thumbs.1": 9.0})
    assert names(picture, order=order, is_tree=False)[0] == first
    assert names(picture, order=order, is_tree=False, is_reversed=True)[-1] == first


def test_names_are_ordered_as_people_count() -> None:
    wanted = fleet(group("thumbs", *[1] * 12))
    found = names(Picture(summarise(wanted, running(*wanted.groups.values()), revision=1)), order="name")
    assert found == ["thumbs", *(f"thumbs.{number}" for number in range(12))]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("THUMBS.1", ["thumbs", "thumbs.1"]),
        ("zip", ["thumbs", "thumbs.0"]),
        ("reports", ["reports", "reports.0"]),
        ("ready", ["thumbs", "thumbs.2", "thumbs.0", "thumbs.1", "reports", "reports.0"]),
        ("nothing of that kind", []),
    ],
)
def test_the_filter_looks_at_names_states_and_tasks(text: str, found: list[str]) -> None:
    assert names(Picture(busy()), filter=text) == found


def test_a_folded_group_hides_its_replicas() -> None:
    assert names(Picture(busy()), folded=frozenset({"thumbs"})) == ["thumbs", "reports", "reports.0"]


# --- keys


def press(state: TopState, *keys: str) -> TopState | None:
    for key in keys:
        rows = names(Picture(busy()), filter=state.filter, folded=state.folded)
        chosen = state.selected or rows[0] if rows else ""
        found = pressed(state, key, rows=rows, group=chosen.partition(".")[0], page_rows=2)
        if found is None:
            return None
        state = found
    return state


def test_q_leaves_a_page_first_and_top_then() -> None:
    assert press(TopState(), "q") is None
    assert press(TopState(), "l", "q") == TopState()
    assert press(TopState(), "h", "x") == TopState()


@pytest.mark.parametrize(
    ("keys", "selected"),
    [
        (("down",), "thumbs.2"),
        (("j", "j", "k"), "thumbs.2"),
        (("up",), "thumbs"),
        (("pagedown",), "thumbs.0"),
        (("end",), "reports.0"),
        (("end", "down"), "reports.0"),
        (("end", "home"), "thumbs"),
    ],
)
def test_a_row_is_chosen(keys: tuple[str, ...], selected: str) -> None:
    state = press(TopState(), *keys)
    assert state is not None
    assert state.selected == selected


def test_a_filter_is_typed_and_keys_in_it_are_letters() -> None:
    state = press(TopState(), "/", "q", "l", "backspace", "s", "up", "enter")
    assert state == TopState(filter="qs")
    assert press(TopState(filter="qs"), "escape") == TopState()
    assert press(TopState(), "/", "a", "escape") == TopState()


def test_orders_go_round_and_space_folds_and_unfolds() -> None:
    assert press(TopState(), *["o"] * len(ORDERS)) == TopState()
    assert press(TopState(), "r", "t", "p") == TopState(is_reversed=True, is_tree=False, paused=True)
    assert press(TopState(), " ") == TopState(folded=frozenset({"thumbs"}))
    assert press(TopState(), " ", " ") == TopState()


def test_every_key_that_does_something_is_in_the_help() -> None:
    text = "\n".join(HELP)
    state = TopState(selected="thumbs.2")
    changing = [key for key in map(chr, range(32, 127)) if press(state, key) != state]
    shown = {"space" if key == " " else key for key in changing}
    assert {word for word in shown if word not in re.findall(r"[^\s,]+", text)} == set()


@pytest.mark.parametrize(
    ("raw", "keys"),
    [
        ("q", ["q"]),
        ("\033[A\033[B", ["up", "down"]),
        ("\033OA\033[5~", ["up", "pageup"]),
        ("\033", ["escape"]),
        ("ab\r\x7f", ["a", "b", "enter", "backspace"]),
        ("ü", ["ü"]),
    ],
)
def test_what_a_terminal_sends_is_a_key(raw: str, keys: list[str]) -> None:
    assert list(keys_in(raw)) == keys


# --- the screen


def plain(line: str) -> str:
    return re.sub(r"\033\[[0-9;]*m", "", line)


@given(
    name=st.text(max_size=60),
    note=st.text(max_size=60),
    width=st.integers(1, 200),
    height=st.integers(6, 60),
    page=st.sampled_from(["table", "logs", "stacks", "help"]),
    colour=st.booleans(),
)
def test_every_screen_fits_and_obeys_nothing_that_a_task_says(
    name: str, note: str, width: int, height: int, page, colour: bool
) -> None:
    seen = but(SEEN, "thumbs.0", busy=1, note=note, tasks=(RunningTask("1", name, 90.0),))
    picture = Picture(summarise(WANTED, seen, revision=3), done={"": (1.0, 2.0)})
    lines = drawn(picture, TopState(page=page), Screen(width, height, colour=colour), text=["x" * 300])
    assert len(lines) == height
    assert all(len(plain(line)) <= width for line in lines)
    assert not [letter for line in lines for letter in plain(line) if category(letter) in ("Cc", "Zl", "Zp")]


def test_without_colour_nothing_but_text_is_written_and_the_chosen_row_is_marked() -> None:
    lines = drawn(Picture(busy()), TopState(selected="thumbs.0"), SCREEN)
    assert "\033" not in "".join(lines)
    assert [line for line in lines if line.startswith(">")] == [line for line in lines if "thumbs.0 " in line]


def test_colour_moves_no_column() -> None:
    with_colour = drawn(Picture(busy()), TopState(), replace(SCREEN, colour=True))
    assert [plain(line).rstrip() for line in with_colour] == drawn(Picture(busy()), TopState(), SCREEN)
    assert "\033[7m" in "".join(with_colour)


def test_at_eighty_columns_it_shows_what_matters() -> None:
    lines = drawn(Picture(busy(), rates={"thumbs": 1.5}), TopState(), SCREEN)
    assert lines[3].split() == ["NAME", "STATE", "SLOTS", "DONE", "FAIL", "/S", "CPU%", "MEM", "RUNS"]
    assert lines[5].split() == ["thumbs.2", "ready", "1/1", "7", "0", "…", "…", "9Mi", "thumb", "1m30s"]


def test_the_chosen_row_is_on_the_screen_however_long_the_list() -> None:
    wanted = fleet(group("thumbs", *[1] * 90))
    picture = Picture(summarise(wanted, running(*wanted.groups.values()), revision=1))
    for chosen in ("thumbs.0", "thumbs.45", "thumbs.89"):
        lines = drawn(picture, TopState(order="name", selected=chosen), SCREEN)
        assert [line.split()[1] for line in lines if line.startswith(">")] == [chosen]


def test_where_there_is_no_screen_every_row_is_shown_and_no_keys() -> None:
    wanted = fleet(group("thumbs", *[1] * 90))
    picture = Picture(summarise(wanted, running(*wanted.groups.values()), revision=1))
    lines = drawn(picture, TopState(), Screen(80, None))
    assert len(lines) == 4 + 91
    assert "quit" not in lines[-1]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ((), "    "),
        ((0.0, 0.0), "  ▁▁"),
        ((0.0, 1.0, 2.0, None), "▁▅█ "),
        ((9.0, 0.0, 1.0, 2.0, 4.0), "▁▃▅█"),
    ],
)
def test_sparklines(values: tuple[float | None, ...], line: str) -> None:
    assert sparkline(values, 4, SCREEN) == line
    assert sparkline(values, 4, Screen(80, 24, blocks=False)).isascii()


def test_a_fleet_that_is_down_and_a_replica_that_failed_are_drawn() -> None:
    lines = drawn(Picture(status(state=State.FAILED, pid=None, note="exit 1")), TopState(), SCREEN)
    assert any("failed" in line and "exit 1" in line for line in lines)
    down = summarise(None, replace(SEEN, up=False, replicas={}), revision=3)
    assert "is down" in drawn(Picture(down), TopState(), SCREEN)[0]
