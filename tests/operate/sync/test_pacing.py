"""Pauses, and repairs that somebody undoes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fleet.operate.sync.pacing import HEAL_WINDOW_SECONDS, HEALS_IN_A_ROW, Heals, Pacing, pause_seconds

pacings = st.builds(Pacing, st.floats(0.1, 3600), st.floats(0, 0.5), st.floats(0.1, 600), st.floats(0.1, 86_400))
chances = st.floats(0, 1)


@given(pacings, chances)
def test_without_a_failure_the_pause_is_the_interval_within_its_jitter(pacing: Pacing, chance: float) -> None:
    pause = pause_seconds(pacing, failures=0, chance=chance)
    spread = pacing.interval_seconds * pacing.jitter
    assert pacing.interval_seconds - spread - 1e-6 <= pause <= pacing.interval_seconds + spread + 1e-6


@given(pacings, st.integers(1, 10_000))
def test_pauses_after_failures_never_shrink_and_are_bounded(pacing: Pacing, failures: int) -> None:
    pause, following = (pause_seconds(pacing, failures=count, chance=0.5) for count in (failures, failures + 1))
    assert pause <= following <= max(pacing.longest_retry_seconds, pacing.first_retry_seconds)


def test_the_first_pauses_double() -> None:
    pacing = Pacing(60, 0, 30, 600)
    assert [pause_seconds(pacing, failures=n, chance=0.3) for n in range(1, 8)] == [30, 60, 120, 240, 480, 600, 600]


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=30))
def test_the_same_repair_is_never_made_more_often_than_allowed(gaps: list[float]) -> None:
    heals, now, made = Heals(), 0.0, []
    for gap in gaps:
        now += gap
        if heals.may("start a.0", now):
            heals = heals.made("start a.0", now)
            made.append(now)
    for at in made:
        assert sum(at - HEAL_WINDOW_SECONDS < other <= at for other in made) <= HEALS_IN_A_ROW


def test_another_repair_is_not_held_up_by_the_first() -> None:
    heals = Heals()
    for now in range(HEALS_IN_A_ROW):
        heals = heals.made("start a.0", float(now))
    assert not heals.may("start a.0", 5.0)
    assert heals.may("start b.0", 5.0)
