"""Since when messages wait, by the word of their senders, which may be made up."""

from __future__ import annotations

from math import isfinite

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet.broker.backlog.redis import _told
from fleet.broker.envelope import agreed, headers_of, waits_since
from tests.worker.hostile import ABSURD

HONEST = st.floats(1000.0, 2000.0)
SAID = st.floats(allow_nan=False, allow_infinity=False) | st.none()


@pytest.mark.parametrize(
    ("moments", "found"),
    [
        ([], None),
        ([None], None),
        ([5.0], 5.0),
        ([5.0, None], None),
        ([5.0, 1500.0], 1500.0),
        ([5.0, 1500.0, 1600.0], 1500.0),
        ([None, 1500.0, 1600.0], 1600.0),
        ([5.0, None, None, None, None], None),
    ],
)
def test_the_middle_of_what_most_say_counts(moments: list[float | None], found: float | None) -> None:
    assert agreed(moments) == found


@given(st.lists(HONEST, min_size=2, max_size=4), SAID, st.integers(0, 4))
def test_one_message_among_others_makes_nothing_older_than_the_oldest_of_them(
    honest: list[float], forged: float | None, place: int
) -> None:
    found = agreed([*honest[:place], forged, *honest[place:]])
    assert found is not None
    assert min(honest) <= found
    assert found <= max(honest)


@given(st.lists(HONEST, min_size=2, max_size=5), SAID, st.integers(1, 9))
def test_nor_does_one_that_is_alone_at_its_priority(honest: list[float], forged: float | None, step: int) -> None:
    lists: list[list[float | None]] = [[] for _ in range(10)]
    lists[0] = list(honest)
    lists[step] = [forged]
    assert _told(lists) == agreed(honest)


@pytest.mark.parametrize("sent_at", [*ABSURD, b"1e400", b"\xff"], ids=range(len(ABSURD) + 2))
def test_no_time_that_a_sender_makes_up_raises(sent_at: object) -> None:
    for eta in (None, *ABSURD, b"\xff"):
        found = waits_since(sent_at, eta)
        assert found is None or isfinite(found)


@given(st.binary(max_size=200) | st.text(max_size=200))
@example(b'{"headers": ' + b"[" * 100_000)
@example(b'{"headers": {"x-fleet-sent-at": 1' + b"0" * 400 + b"}}")
def test_no_envelope_raises(raw: bytes | str) -> None:
    waits_since(headers_of(raw).get("x-fleet-sent-at"))
