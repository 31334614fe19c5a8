"""How long a loop waits before its next turn."""

from __future__ import annotations

import pytest

from fleet.worker.loop.pauses import GATHER_SECONDS, gather_seconds


@pytest.mark.parametrize(
    ("ended", "running", "gathers"),
    [
        (0, 1000, False),  # what wakes a loop is no end: a message, a command
        (1, 0, False),
        (1, 1, False),
        (1, 10, False),
        (1, 31, False),
        (1, 32, True),
        (1, 999, True),
        (10, 990, True),
        (40, 960, False),  # enough for a turn
        (500, 500, False),
    ],
)
def test_where_many_run_and_few_have_ended_more_may_end(ended: int, running: int, gathers: bool) -> None:
    assert gather_seconds(ended=ended, running=running) == (GATHER_SECONDS if gathers else 0.0)
