"""A pid with a start time names one process; what a damaged file says names none."""

from __future__ import annotations

import os

import pytest

from fleet.replica.process_identity import lives, started_ticks


def test_this_process_lives_with_its_own_start_only() -> None:
    ticks = started_ticks(os.getpid())
    assert ticks
    assert lives(os.getpid(), ticks)
    assert not lives(os.getpid(), ticks + 1)
    assert lives(os.getpid()), "without a start only the pid is compared"


@pytest.mark.parametrize("pid", [0, -1, 1 << 31, 1 << 40, 1 << 70])
def test_what_is_no_pid_lives_not(pid: int) -> None:
    assert not lives(pid)
