"""The tables people read, as goldens."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from fleet.cli.output import Cell, cut, painted, table
from fleet.cli.view import age, status_text
from fleet.core.observed import RunningTask, State, Stray
from fleet.core.status import summarise
from tests.worlds import but, fleet, group, running, without

WANTED = fleet(group("reports", 4), group("thumbs", 1, 1, 1))


def masked(text: str) -> str:
    """Digests change with every field that a spec gains."""
    return re.sub(r"\b[0-9a-f]{8}\b", "-" * 8, text)


def test_a_healthy_fleet() -> None:
    tasks = (
        RunningTask("1", "shop.thumb", 1.25),
        RunningTask("2", "shop.zip", 70.0),
        RunningTask("3", "shop.zip", 2.0),
    )
    seen = but(
        running(*WANTED.groups.values()), "reports.0", busy=3, tasks=tasks, processed=1200, memory_bytes=52 << 20
    )
    seen = but(seen, "thumbs.1", held=True, uptime_seconds=7500.0, failed=2)
    assert masked(status_text(summarise(WANTED, seen, revision=3))) == (
        "NAME         POOL  PID  STATE        DIGEST    SLOTS  DONE  FAILED  MEMORY  UPTIME  RUNS\n"
        "reports      solo       1/1 ready                3/4  1200       0    52Mi\n"
        "  reports.0        100  ready        --------    3/4  1200       0    52Mi    0.0s"
        "  shop.zip 1m10s, shop.zip 2.0s and 1 more\n"
        "thumbs       solo       3/3 ready                0/3     0       2                  2 available\n"
        "  thumbs.0         100  ready        --------    0/1     0       0            0.0s\n"
        "  thumbs.1         101  ready, held  --------    0/1     0       2           2h05m\n"
        "  thumbs.2         102  ready        --------    0/1     0       0            0.0s\n"
        "\n"
        "fleet shop, revision 3: ready"
    )


def test_a_fleet_in_trouble() -> None:
    seen = without(running(*WANTED.groups.values()), "reports.0", "thumbs.2")
    seen = but(seen, "thumbs.0", digest="00000000")
    seen = but(seen, "thumbs.1", state=State.FAILED, pid=None, note="exit 1, 8 times in 10m")
    seen = replace(seen, strays=(Stray(77, "thumbs.2", "orphan"),))
    text = masked(status_text(summarise(WANTED, seen, revision=3), footer=["override: thumbs paused, by ana"]))
    assert text.splitlines()[2:] == [
        "  reports.0             missing",
        "thumbs       solo       0/3 ready              0/3     0       0                  1 available",
        "  thumbs.0         100  ready      --------    0/1     0       0            0.0s  [outdated]",
        "  thumbs.1              failed     --------    0/1     0       0                  (exit 1, 8 times in 10m)",
        "  thumbs.2              missing",
        "",
        "fleet shop, revision 3: not ready, differs from what was applied",
        "reports: 0 of 1 ready: reports.0",
        "thumbs: 0 of 3 ready: thumbs.2, thumbs.1",
        "processes that supervisord does not run: 77 (thumbs.2); `fleet apply` or `fleet doctor --fix` ends them",
        "override: thumbs paused, by ana",
    ]


def test_numbers_are_right_aligned_and_colour_does_not_move_columns() -> None:
    rows = [[Cell("a", "good"), Cell("1", right=True)], [Cell("long"), Cell("100", "bad", right=True)]]
    assert table(("NAME", "N"), rows) == "NAME    N\na       1\nlong  100"
    coloured = table(("NAME", "N"), rows, colour=True).splitlines()
    assert coloured[1] == "\033[32ma\033[0m       1"
    assert painted("x", "good", colour=False) == "x"


def test_a_screen_is_never_overfull() -> None:
    assert cut(["a", "b", "c"], height=3) == ["a", "b", "c"]
    assert cut(["a", "b", "c", "d"], height=3) == ["a", "b", "… 2 more lines"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.04, "0.0s"), (59.9, "59.9s"), (61, "1m01s"), (7500, "2h05m"), (200_000, "2d7h")]
)
def test_ages(seconds: float, shown: str) -> None:
    assert age(seconds) == shown
