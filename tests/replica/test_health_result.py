"""What a row of health checks says of a replica."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.core.spec import HealthCheckSpec
from fleet.replica.health_result import HealthResult, Wellness, read_result, result_file, result_text

CHECK = HealthCheckSpec(port=1, failures=3, within_seconds=60.0)
REASONS = {"+": "", "-": "status 503"}


def after(checks: str) -> HealthResult:
    """One check a second, from the first second on."""
    result = HealthResult(42)
    for second, one in enumerate(checks, 1):
        result = result.after(REASONS[one], CHECK, now=float(second))
    return result


@pytest.mark.parametrize(
    ("checks", "lived_seconds", "wellness", "reason"),
    [
        ("", 1000.0, Wellness.YOUNG, "no health check has passed yet"),
        ("-----", 5.0, Wellness.YOUNG, "no health check has passed yet: status 503"),
        ("-----", 61.0, Wellness.UNHEALTHY, "no health check has passed in 1m1s: status 503"),
        ("--+", 61.0, Wellness.WELL, ""),
        ("+--", 61.0, Wellness.WELL, ""),
        ("+---", 5.0, Wellness.UNHEALTHY, "3 health checks failed: status 503"),
        ("+--+--+--", 5.0, Wellness.WELL, ""),
        ("+---+", 5.0, Wellness.WELL, ""),
    ],
)
def test_a_row_of_checks(checks: str, lived_seconds: float, wellness: Wellness, reason: str) -> None:
    assert after(checks).wellness(lived_seconds=lived_seconds) == (wellness, reason)


@pytest.mark.parametrize(("checks", "since"), [("--+", 3), ("+++", 1), ("+--+", 1), ("+---+", 5), ("-+---++", 6)])
def test_it_is_well_since_it_was_not(checks: str, since: int) -> None:
    assert after(checks).well_since == since


@given(st.text("+-", max_size=30))
def test_it_is_unhealthy_only_after_as_many_failures_in_a_row(checks: str) -> None:
    wellness, _ = after(checks).wellness(lived_seconds=1.0)
    failed = len(checks) - len(checks.rstrip("-"))
    assert (wellness is Wellness.UNHEALTHY) == ("+" in checks and failed >= CHECK.failures)
    assert (wellness is Wellness.YOUNG) == ("+" not in checks)


def test_it_is_read_as_it_was_written_and_only_for_its_process(tmp_path: Path) -> None:
    path = result_file(tmp_path, "web.0")
    assert read_result(path, pid=42) == HealthResult(42)
    path.write_text(result_text(after("+-")))
    assert read_result(path, pid=42) == after("+-")
    assert read_result(path, pid=43) == HealthResult(43)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"pid": "x"}', '{"pid": 42, "more": 1}', "[" * 100_000])
def test_a_damaged_file_says_nothing(text: str, tmp_path: Path) -> None:
    path = result_file(tmp_path, "web.0")
    path.write_text(text)
    assert read_result(path, pid=42) == HealthResult(42)
