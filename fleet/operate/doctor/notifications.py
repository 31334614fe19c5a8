"""Checks of notifications: whether they arrive."""

from __future__ import annotations

from collections.abc import Iterator

from fleet.operate.doctor.finding import Examined, Finding
from fleet.operate.notify.overview import failing


def notification_findings(examined: Examined) -> Iterator[Finding]:
    """Receivers that could not be told."""
    for line in failing(examined.places):
        hint = f"`fleet notify test --fleet {examined.places.fleet}` tries each receiver now"
        yield Finding("warning", "notify", line, hint)
