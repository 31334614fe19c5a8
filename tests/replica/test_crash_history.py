"""Back-off and parking of a crash loop."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fleet.core.spec import RestartPolicy
from fleet.replica.crash_history import MOST_DEATHS, History, Life, pause_seconds, read_history, write_history

POLICY = RestartPolicy(backoff_initial_seconds=1.0, backoff_max_seconds=60.0, max_crashes=8, window_seconds=600.0)


def crashes(count: int, *, lived: float = 0.1, now: float = 1000.0) -> list[Life]:
    """``count`` crashes in a row, the last one just now."""
    return [Life(now - lived - back, now - back) for back in reversed(range(count))]


def test_the_first_start_does_not_wait() -> None:
    assert pause_seconds([], POLICY, now=1000.0) == 0.0


def test_pauses_double_up_to_the_longest() -> None:
    policy = RestartPolicy(backoff_initial_seconds=1.0, backoff_max_seconds=10.0, max_crashes=8)

    pauses = [pause_seconds(crashes(count), policy, now=1000.0) for count in range(1, 7)]

    assert pauses == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_more_crashes_than_allowed_park_the_replica() -> None:
    assert pause_seconds(crashes(8), POLICY, now=1000.0) is not None
    assert pause_seconds(crashes(9), POLICY, now=1000.0) is None


def test_crashes_before_the_window_are_forgotten() -> None:
    assert pause_seconds(crashes(9, now=1000.0), POLICY, now=1000.0 + 601.0) == 0.0


def test_a_long_life_resets_the_pause() -> None:
    lives = [*crashes(5, now=900.0), Life(920.0, 999.0)]

    assert pause_seconds(lives, POLICY, now=1000.0) == 1.0


def test_a_clean_end_after_a_steady_life_is_no_crash() -> None:
    assert pause_seconds([Life(900.0, 1000.0, clean=True)], POLICY, now=1000.0) == 0.0


def test_a_worker_that_replaces_itself_after_a_task_is_no_crash_however_often() -> None:
    lives = [Life(one.began, one.ended, clean=True, worked=True) for one in crashes(50)]
    assert pause_seconds(lives, POLICY, now=1000.0) == 0.0


def test_ending_cleanly_at_once_again_and_again_is_a_crash_loop() -> None:
    lives = [Life(one.began, one.ended, clean=True) for one in crashes(9)]

    assert pause_seconds(lives, POLICY, now=1000.0) is None


@given(
    st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1e9), st.booleans()), max_size=40),
    st.integers(1, 30),
    st.floats(0.01, 100),
)
def test_a_pause_is_never_longer_than_the_longest(
    rows: list[tuple[float, float, bool]], most: int, initial: float
) -> None:
    policy = RestartPolicy(backoff_initial_seconds=initial, backoff_max_seconds=60.0, max_crashes=most)
    lives = [Life(*row) for row in rows]

    pause = pause_seconds(lives, policy, now=1e9)

    assert pause is None or 0.0 <= pause <= 60.0


def test_the_history_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.0.starts"
    history = History((Life(1.0, 2.0), Life(3.0, 4.0, clean=True, worked=True)), 5.0, {"poison": 2})
    write_history(path, history)

    assert read_history(path) == history
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_torn_history_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "thumbs.0.starts"
    for text in ("", "{", "[]", '{"began": "x", "lives": []}', '{"began": null, "lives": [[1]]}', "\x00\xff"):
        path.write_text(text)
        assert read_history(path) == History()
    assert read_history(tmp_path / "absent") == History()


def test_deaths_are_counted_by_task_and_the_latest_are_kept() -> None:
    history = History().after_crash(["poison", "neighbour"]).after_crash(["poison"])
    assert history.deaths == {"neighbour": 1, "poison": 2}

    later = history.after_crash(f"t{number}" for number in range(MOST_DEATHS - 1))
    assert len(later.deaths) == MOST_DEATHS
    assert "neighbour" not in later.deaths
    assert later.deaths["poison"] == 2
