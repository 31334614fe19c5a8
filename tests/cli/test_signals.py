"""INT and TERM while a fleet is being changed."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator

import pytest

from fleet.cli.output import Output
from fleet.cli.signals import Signals
from fleet.errors import FleetError, Interrupted


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """What somebody hears who has listened before."""
    found: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def said() -> Output:
    return Output(stdout=io.StringIO(), stderr=io.StringIO())


def test_one_that_stops_the_change_goes_no_further(heard: list[int]) -> None:
    def change() -> None:
        with Signals(said()) as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            raise Interrupted("stopped between two steps", signum=signals.number())

    with pytest.raises(Interrupted):
        change()
    assert heard == []


@pytest.mark.parametrize("fails", [False, True])
def test_one_that_comes_too_late_to_stop_anything_is_not_lost(heard: list[int], fails: bool) -> None:
    """`fleet run` applies its files again and is told to end at that moment: it must drain."""
    try:
        with Signals(said()) as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.number() == signal.SIGTERM
            if fails:
                raise FleetError("a step failed")
    except FleetError:
        assert fails
    assert heard == [signal.SIGTERM]


def test_in_a_plain_command_it_is_over_with_the_change() -> None:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with Signals(said()):
        os.kill(os.getpid(), signal.SIGINT)
