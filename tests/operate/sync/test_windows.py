"""Maintenance windows, over clock changes too."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.operate.sync.windows import Opening, next_opening, open_until, parse_cron

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]


def opening(cron: str, hours: float, zone: str = "Europe/Berlin") -> Opening:
    return Opening("w", parse_cron(cron), hours * 3600, ZoneInfo(zone))


def berlin(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN).timestamp()


@pytest.mark.parametrize(
    ("moment", "closes"),
    [
        ("2026-11-30T08:59:59", None),
        ("2026-11-30T09:00:00", "2026-11-30T17:00:00"),
        ("2026-11-30T16:59:59", "2026-11-30T17:00:00"),
        ("2026-11-30T17:00:00", None),
        ("2026-12-04T10:00:00", None),  # a Friday
    ],
)
def test_business_hours(moment: str, closes: str | None) -> None:
    window = opening("0 9 * * 1-4", 8)
    assert open_until([window], berlin(moment)) == (berlin(closes) if closes else None)


def test_a_window_over_midnight_stays_open() -> None:
    window = opening("0 22 * * *", 6)
    assert open_until([window], berlin("2026-11-30T03:30:00")) == berlin("2026-11-30T04:00:00")


def test_a_window_in_the_hour_that_is_skipped_opens_an_hour_later() -> None:
    window = opening("30 2 * * *", 1)
    assert next_opening([window], berlin("2026-03-29T00:00:00")) == berlin("2026-03-29T03:30:00")


def test_a_window_in_the_hour_that_comes_twice_opens_once() -> None:
    window = opening("30 2 * * *", 0.25)
    first = next_opening([window], berlin("2026-10-25T00:00:00"))
    assert first is not None
    assert next_opening([window], first) == berlin("2026-10-26T02:30:00")


def test_a_window_that_never_opens_is_said() -> None:
    assert next_opening([opening("0 0 30 2 *", 1)], berlin("2026-01-01T00:00:00")) is None


def test_either_day_is_enough_where_both_are_given() -> None:
    cron = parse_cron("0 0 13 * fri")
    assert cron.falls_on(datetime(2026, 11, 13).date())
    assert cron.falls_on(datetime(2026, 11, 20).date())
    assert not cron.falls_on(datetime(2026, 11, 21).date())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 9 * *", "five fields"),
        ("60 * * * *", "not a minute"),
        ("* 24 * * *", "not a hour"),
        ("* * 0 * *", "not a day"),
        ("* * * 13 *", "not a month"),
        ("* * * * 8", "not a weekday"),
        ("*/0 * * * *", "not a step"),
        ("5-1 * * * *", "ends before"),
        ("a * * * *", "not a minute"),
        ("-1 * * * *", "not a minute"),
        ("1,, * * * *", "not a minute"),
    ],
)
def test_what_is_no_cron_expression_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_cron(text)


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.floats(0.1, 40),
    st.sampled_from(ZONES),
    st.integers(1_700_000_000, 1_900_000_000),
)
def test_what_opens_next_is_closed_before_and_open_then(
    minute: int, hour: int, hours: float, zone: str, now: int
) -> None:
    window = opening(f"{minute} {hour} * * *", hours, zone)
    begin = next_opening([window], float(now))
    assert begin is not None
    assert begin > now
    assert begin - now < 49 * 3600
    assert open_until([window], begin) is not None
    local = datetime.fromtimestamp(begin, UTC).astimezone(window.zone)
    skipped = local - timedelta(hours=1)
    assert (local.hour, local.minute) == (hour, minute) or skipped.hour == hour or local.minute != minute


@given(st.floats(0.1, 40), st.sampled_from(ZONES), st.integers(1_700_000_000, 1_900_000_000))
def test_a_window_is_open_exactly_as_long_as_it_says(hours: float, zone: str, now: int) -> None:
    window = opening("15 4 * * 1", hours, zone)
    begin = next_opening([window], float(now))
    assert begin is not None
    end = begin + hours * 3600
    assert open_until([window], end - 0.001) == pytest.approx(end)
    assert open_until([window], end) is None
